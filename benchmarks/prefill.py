"""Effect of single optimisations on prompts: one engine prefills with each of them and without it, in turn.

    python benchmarks/prefill.py --out benchmarks/results/prefill.json

The models are the random ones of engine.py, the larger one with 4 of its 24 layers, in bfloat16. Times are medians of
processor time on one thread, over rounds in which both variants see the same load of the machine. The last line of
standard output is one JSON object.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.models import linear, transformer
from ponder_worker.models.transformer import Transformer

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from shape import SHAPES, Shape

PROMPTS = ((64, 64), (4, 512), (1, 3840))
LAYERS = {"small": 6, "0.5B": 4}
Switch = Callable[[bool], None]


@click.command()
@click.option("--rounds", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(rounds: int, out: Path | None) -> None:
    """Time attention in C, products in C, and the feed-forward layer on some rows at a time."""
    torch.set_num_threads(1)
    results = [line for name in LAYERS for line in measure(name, rounds)]
    report = {
        **circumstances("prefill of prompts; ms of processor time, medians", "torch", threads=1),
        "results": results,
    }
    publish(report, out)


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    shape = SHAPES[name]._replace(fields={**SHAPES[name].fields, "num_hidden_layers": LAYERS[name]})
    with tempfile.TemporaryDirectory() as folder:
        shape.save(Path(folder))
        engine = Engine.load(folder, dtype=torch.bfloat16, num_pages=512)
        switches = {
            "attention in C, against torch": switch_attention(engine.model),
            "products in C, against oneDNN": switch_products(engine.model, folder),
            "512 rows fed forward at a time, against all": switch_rows(),
        }
    lines = []
    for title, switch in switches.items():
        for num_prompts, length in PROMPTS:
            without, with_it = alternate(engine, shape, (num_prompts, length), switch, rounds)
            line = {"model": name, "what": title, "prompts": num_prompts, "length": length}
            line |= {
                "ms_without": round(without, 1),
                "ms_with": round(with_it, 1),
                "ratio": round(without / with_it, 2),
            }
            click.echo(line, err=True)
            lines.append(line)
    return lines


def switch_attention(model: Transformer) -> Switch:
    mine = model._native
    return lambda on: setattr(model, "_native", mine if on else None)


def switch_products(model: Transformer, folder: str) -> Switch:
    mine, product = model._layers, linear.product
    linear.product = lambda weight, bias: None
    theirs = Transformer.load(folder, dtype=torch.bfloat16, device=torch.device("cpu"))._layers
    linear.product = product
    return lambda on: setattr(model, "_layers", mine if on else theirs)


def switch_rows() -> Switch:
    some = transformer._MOST_ROWS
    return lambda on: setattr(transformer, "_MOST_ROWS", some if on else 1 << 30)


def alternate(
    engine: Engine, shape: Shape, prompts: tuple[int, int], switch: Switch, rounds: int
) -> tuple[float, float]:
    """Milliseconds until all prompts are computed, without the optimisation and with it."""
    found: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * rounds):
        on = turn % 2 == 1
        switch(on)
        add(engine, shape.fields["vocab_size"], prompts, seed=turn)
        started = time.process_time()
        while engine.has_work:
            engine.step()
        found[on].append(1e3 * (time.process_time() - started))
    return statistics.median(found[False]), statistics.median(found[True])


def add(engine: Engine, vocabulary: int, prompts: tuple[int, int], seed: int) -> None:
    """Adds prompts. Each turn has its own, so that none finds a prefix of an earlier one."""
    num_prompts, length = prompts
    chance = random.Random(f"{seed} {num_prompts}")
    for _ in range(num_prompts):
        tokens = [chance.randrange(vocabulary) for _ in range(length)]
        engine.generate(tokens, prompt_length=length, sampling=SamplingParams(1, stop_at_end=False))


if __name__ == "__main__":
    main()
