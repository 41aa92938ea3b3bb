"""Accuracy of the demo models by level and kind, and the probe of the reward model.

    python benchmarks/demo_models.py --out benchmarks/results/demo_models.json

The last line of standard output is one JSON object.
"""

import time
from pathlib import Path
from typing import Any

import click
import torch
from circumstances import circumstances, publish

from ponder_worker import demo
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.demo.training.evaluate import Figures, Pair, as_json, by, likelihood_probe, solve

WEIGHTS = Path(demo.__file__).parent / "weights"
GENERATORS = ("generator", "large")


@click.command()
@click.option("--weights", type=click.Path(path_type=Path, exists=True), default=WEIGHTS, help="Folder of the models.")
@click.option("--per-level", default=100, show_default=True, help="Held-out problems of each level.")
@click.option("--samples", default=16, show_default=True, help="Samples of each problem.")
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    weights: Path, per_level: int, samples: int, temperature: float, seed: int, threads: int, out: Path | None
) -> None:
    """Measure the models in WEIGHTS on held-out problems."""
    torch.set_num_threads(threads)
    started = time.monotonic()
    pairs, problems = {name: Pair.load(weights, name) for name in GENERATORS}, held_out_problems(per_level, seed)
    measured = {name: _measured(pair, problems, per_level, samples, temperature, seed) for name, pair in pairs.items()}
    probed = likelihood_probe(pairs["generator"], problems, seed)
    click.echo(f"probe: {as_json(probed)}")
    parameters = {name: _size(pair.generator) for name, pair in pairs.items()}
    result = {
        **circumstances("demo models on held-out problems", "torch", threads=threads),
        "settings": {"per_level": per_level, "samples": samples, "temperature": temperature, "seed": seed},
        "parameters": parameters | {"reward": _size(pairs["generator"].reward)},
        "generators": measured,
        "probe": as_json(probed),
        "seconds": round(time.monotonic() - started, 1),
    }
    publish(result, out)


def _measured(
    pair: Pair, problems: list[Problem], per_level: int, samples: int, temperature: float, seed: int
) -> dict[str, Any]:
    """Returns the figures of a generator by level, and by level and kind."""
    solved = solve(pair, problems, samples, temperature, seed)
    levels = by(lambda problem: f"level {problem.level}", solved)
    # The hard levels of the demo hold no stories, so all kinds are measured here, each by itself.
    stories = [problem for problem in held_out_problems(per_level // 3, seed, kinds=("story",)) if problem.level > 3]
    solved += solve(pair, stories, samples, temperature, seed)
    kinds = by(lambda problem: f"level {problem.level} {problem.kind}", solved)
    for name, figures in {**levels, **kinds}.items():
        click.echo(_line(name, figures))
    return {
        "levels": {name: as_json(figures) for name, figures in levels.items()},
        "kinds": {name: as_json(figures) for name, figures in kinds.items()},
    }


def _line(name: str, figures: Figures) -> str:
    n = max(figures.majority)
    return (
        f"{name:20} one sample {figures.one_sample:.2f}  majority@{n} {figures.majority[n]:.2f}"
        f"  best-of-4 {figures.best_of.get(4, 0.0):.2f}  best-of-{n} {figures.best_of[n]:.2f}"
        f"  pass@{n} {figures.pass_at[n]:.2f}  {figures.tokens_per_sample:.0f} tokens"
    )


def _size(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    main()
