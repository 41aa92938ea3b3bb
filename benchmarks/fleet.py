"""What does a fleet of spot machines that come and go waste, cost and miss, on recorded interruptions?

    python benchmarks/fleet.py --data ../shared/data --out benchmarks/results/fleet.json
    python benchmarks/fleet_plot.py benchmarks/results/fleet.json docs/images

A simulation (see fleet_simulation.py) replays public traces of spot machines against public traces of requests. The
decisions are the product's own: its plan, its autoscaler's decisions, its order of dispatch. Estimates of tokens err as
much as the product's did in benchmarks/results/estimate.json. Each case is run for several seeds, which draw the load,
the part of the trace's nodes, and the moment of the trace at which the simulation begins. A trace that is missing is
skipped, saying so. The last line of standard output is one JSON object.
"""

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish
from fleet_arm import SCALE, Arm, Kept, Outcome
from fleet_load import (
    HOUR_S,
    INTERACTIVE_DUE_S,
    INTERACTIVE_SHARE,
    LENGTH_S,
    SERVICES,
    Load,
    Misjudgement,
    Service,
    draw_load,
)
from fleet_machines import Machine, read_machines
from fleet_simulation import Simulation
from fleet_spot import READERS, SpotTrace

from ponder.errors import InvalidInput
from ponder.fleet.problem import Bounds

PONDER, ON_DEMAND = Arm("ponder"), Arm("on-demand only", markets=("on_demand",))
ARMS = (
    ON_DEMAND,
    PONDER,
    Arm("request-level requeue", kept=Kept.SAMPLES, hands_back=False),
    Arm("job-level requeue", kept=Kept.NOTHING, hands_back=False),
    Arm("ponder without notices", hears_notices=False),
    Arm("ponder without token checkpoints", kept=Kept.SAMPLES),
    Arm("ponder on spot only", markets=("spot",)),
)
CASES = (
    *((trace, "deepseek") for trace in READERS),
    ("g4dn", "azure"),
)
MOST_NODES = 12
"""Larger traces are thinned to about so many nodes at a time."""
UTILISATION = 0.5
"""The work is so much of what the trace's nodes could do."""
MOST_WORKERS = 2.5
"""The bound on workers, for each node of the trace."""
PLOTTED = "g4dn deepseek"


@dataclass(frozen=True, slots=True)
class Case:
    """A trace of spot machines, and a service whose load the machines get."""

    name: str
    trace: SpotTrace
    machine: Machine
    service: Service

    def run(self, arms: Sequence[Arm], seed: int) -> dict[str, Outcome]:
        """Runs the arms on the same load and the same interruptions."""
        chance = random.Random(f"{self.name}/{seed}")
        trace = self.trace.thinned(MOST_NODES, chance)
        load, offset_s = self._load(chance), chance.random() * trace.length_s
        bounds = Bounds(0, round(MOST_WORKERS * self.num_nodes))
        outcomes = {}
        for arm in arms:
            outcomes[arm.name] = Simulation(arm, self.machine, load, bounds, spot=trace.replayed(offset_s)).run()
            gc.collect()
        return outcomes

    @property
    def num_nodes(self) -> float:
        return min(MOST_NODES, self.trace.mean_nodes)

    def _load(self, chance: random.Random) -> Load:
        busy_s = UTILISATION * self.num_nodes * LENGTH_S
        return draw_load(self.service, busy_s, self.machine.speed, Misjudgement.measured(), chance)


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True,
    help="The folder of the public traces and prices.",
)  # fmt: skip
@click.option("--seeds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True, help="The simulations that run at a time.")
@click.option("--only", help="Only cases whose name contains this.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(data: Path, seeds: int, processes: int, only: str | None, out: Path | None) -> None:
    gc.disable()  # each run makes a million objects, and no garbage before its end
    began, began_cpu = time.monotonic(), os.times()
    cases, skipped = read_cases(data, only or "")
    outcomes: dict[str, list[dict[str, Outcome]]] = {case.name: [] for case in cases}
    with ProcessPoolExecutor(processes) as pool:
        futures = [(case.name, pool.submit(case.run, ARMS, seed)) for seed in range(seeds) for case in cases]
        for name, future in futures:
            outcomes[name].append(future.result())
    reports = {case.name: case_report(case, outcomes[case.name]) for case in cases}
    for name, found in reports.items():
        click.echo(told(name, found), err=True)
    plotted = outcomes.get(PLOTTED)
    moments = plotted[0][PONDER.name].moments if plotted else ()
    report = {
        **circumstances("simulated fleets on recorded interruptions, with the product's decisions", "pydantic"),
        "seeds": seeds,
        "setting": {
            "hours": LENGTH_S / HOUR_S, "most_nodes": MOST_NODES, "utilisation": UTILISATION, "scale": SCALE,
            "interactive_share": INTERACTIVE_SHARE, "interactive_due_s": INTERACTIVE_DUE_S,
        },
        "skipped": skipped,
        "cases": reports,
        "all": overall(reports),
        "plotted": {"case": PLOTTED, "moments": [asdict(moment) for moment in moments[::10]]},
        "seconds": round(time.monotonic() - began),
        "cpu_seconds": round(sum(os.times()[:4]) - sum(began_cpu[:4])),
    }  # fmt: skip
    publish(report, out)


def read_cases(data: Path, only: str) -> tuple[list[Case], list[str]]:
    """Returns the cases whose data is there, and the names of the others."""
    services: dict[str, Service] = {}
    cases, skipped = [], []
    for trace, service in CASES:
        name, path = f"{trace} {service}", data / "spot" / READERS[trace][0]
        if only not in name:
            continue
        try:
            if service not in services:
                services[service] = SERVICES[service](data / "traces", random.Random(0))
            machine = read_machines(data / "prices" / "cloud-gpus.csv")[trace]
            cases.append(Case(name, READERS[trace][1](path), machine, services[service]))
        except (OSError, InvalidInput) as error:
            skipped.append(name)
            click.echo(f"skipped {name}: {error}", err=True)
    return cases, skipped


def case_report(case: Case, outcomes: Sequence[Mapping[str, Outcome]]) -> dict[str, Any]:
    return {
        "nodes": round(case.trace.mean_nodes, 1),
        "hours": round(case.trace.length_s / HOUR_S, 1),
        "removals_per_node_hour": round(case.trace.removals_per_node_hour, 3),
        "machine": asdict(case.machine),
        "arms": {
            arm.name: {
                name: spread([figure(outcome[arm.name], outcome[ON_DEMAND.name]) for outcome in outcomes])
                for name, figure in FIGURES.items()
            }
            for arm in ARMS
        },
    }


FIGURES: dict[str, Callable[[Outcome, Outcome], float]] = {
    "gpu_hours": lambda one, _: one.account.billed_s / HOUR_S,
    "waste": lambda one, _: one.account.wasted_s / one.account.busy_s,
    "waste_and_loading": lambda one, _: (
        (one.account.wasted_s + one.account.loading_s) / (one.account.busy_s + one.account.loading_s)
    ),
    "recomputed": lambda one, _: one.account.recomputed_s / one.account.busy_s,
    "lost": lambda one, _: one.account.lost_s / one.account.busy_s,
    "idle": lambda one, _: one.account.idle_s / one.account.billed_s,
    "dollars": lambda one, _: one.account.nanodollars / 10**9,
    "dollars_to_on_demand": lambda one, reference: one.account.nanodollars / reference.account.nanodollars,
    "jobs": lambda one, _: one.num_jobs,
    "missed": lambda one, _: len(one.missed),
    "missed_by_it_alone": lambda one, reference: len(one.missed - reference.missed),
    "missed_by_on_demand_alone": lambda one, reference: len(reference.missed - one.missed),
    "interruptions": lambda one, _: one.num_interruptions,
    "starts": lambda one, _: one.num_starts,
    "failed_starts": lambda one, _: one.num_failed_starts,
    "drained": lambda one, _: one.num_drained,
}
"""The figures of an arm's outcome, beside that of on-demand machines only on the same load."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and the range over the seeds."""
    return {"median": _rounded(statistics.median(values)), "low": _rounded(min(values)), "high": _rounded(max(values))}


def overall(reports: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the median and the range of the cases' medians, for each arm."""
    names = ("waste", "waste_and_loading", "dollars_to_on_demand", "missed_by_it_alone")
    return {
        arm.name: {
            name: spread([case["arms"][arm.name][name]["median"] for case in reports.values()]) for name in names
        }
        for arm in ARMS
    } if reports else {}  # fmt: skip


def told(name: str, report: Mapping[str, Any]) -> str:
    """Returns a line for each arm of a case."""
    lines = [f"{name}: {report['removals_per_node_hour']} removals of a node in an hour"]
    for arm, found in report["arms"].items():
        waste, loading = (f"{found[one]['median']:.2%}" for one in ("waste", "waste_and_loading"))
        dollars, missed = found["dollars_to_on_demand"]["median"], found["missed_by_it_alone"]["median"]
        lines.append(
            f"  {arm:34} waste {waste:>7}, with loading {loading:>7}, dollars {dollars:.2f}, missed {missed:g}"
        )
    return "\n".join(lines)


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


if __name__ == "__main__":
    main()
