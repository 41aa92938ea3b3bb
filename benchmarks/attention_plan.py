"""Cost of planning shared attention on the host: processor time of a plan, and of a step that only grows.

    python benchmarks/attention_plan.py --out benchmarks/results/attention_plan.json

There are 256 sequences, in the scenes of attention_sharing.py and in one of 192 pages per row. `plan` makes a plan;
`grown` is a step of `Planner` in which every sequence has one more token and the plan holds; `packed` writes a plan
into a static buffer. `planned_part` is a count: the share of a thousand decode steps without admissions that make a
plan. Scenes and kinds take turns. The figures are medians of processor time in milliseconds. The last line of standard
output is one JSON object.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from attention_sharing import PAGE, SCENES, Integers, families
from circumstances import circumstances, publish

from ponder_kernels.attention.attention_plan import plan
from ponder_kernels.attention.device_plan import Capacity, DevicePlan
from ponder_kernels.attention.planner import Planner


def long_families() -> tuple[Integers, Integers]:
    """The page table of 4 families of 64 sequences with 2k shared tokens, cut to 192 pages per row."""
    contexts, table = families(4, 64, 2048, 1024)
    return np.minimum(contexts, 192 * PAGE), table[:, :192]


def timed(run: Callable[[], object]) -> float:
    begin = time.process_time()
    run()
    return (time.process_time() - begin) * 1e3


def planned_part(contexts: Integers, steps: int = 1000) -> float:
    planner, width = Planner(PAGE), -(-int(contexts.max() + steps) // PAGE)
    table = np.arange(len(contexts) * width, dtype=np.int32).reshape(len(contexts), width)
    for step in range(steps):
        planner.plan(np.ones_like(contexts), contexts + step, table)
    return planner.num_planned / steps


def kinds(contexts: Integers, table: Integers) -> dict[str, Callable[[], object]]:
    ones, table = np.ones_like(contexts), np.ascontiguousarray(table, dtype=np.int32)
    planner = Planner(PAGE)
    found = planner.plan(ones, contexts, table)
    wide = np.pad(table, ((0, 0), (0, 8)))
    work = DevicePlan.of(found, table, torch.device("cpu"), tile_queries=16, capacity=Capacity.of(found, wide))
    return {
        "plan": lambda: plan(ones, contexts, table, PAGE),
        "private": lambda: plan(ones, contexts, table, PAGE, share=False),
        "grown": lambda: planner.plan(ones, contexts + 1, table),
        "packed": lambda: work.fill(found, table),
    }


@click.command()
@click.option("--rounds", default=101, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(rounds: int, out: Path | None) -> None:
    scenes = {"4 families of 64, 192 pages a row": long_families, **SCENES}
    made = {name: scene() for name, scene in scenes.items()}
    runs = {name: kinds(*scene) for name, scene in made.items()}
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in of} for name, of in runs.items()}
    for _ in range(rounds):
        for name, of in runs.items():
            for kind, run in of.items():
                times[name][kind].append(timed(run))
    results: list[dict[str, Any]] = []
    for name, of in times.items():
        medians = {f"{kind}_ms": round(statistics.median(found), 3) for kind, found in of.items()}
        least = {f"{kind}_least_ms": round(min(found), 3) for kind, found in of.items()}
        results.append({"scene": name, "pages": made[name][1].shape[1], **medians, **least})
        click.echo(f"{name}: {medians}, least {least['plan_least_ms']}")
    report = {
        **circumstances("the host's planner of shared-prefix attention, 256 sequences; processor time", "numpy"),
        "planned_part": planned_part(made["private: 256 chains of 3k"][0]),
        "results": results,
    }
    publish(report, out)


if __name__ == "__main__":
    main()
