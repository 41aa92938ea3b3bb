"""Accuracy and time of int8 products, compared with bfloat16.

    python benchmarks/int8.py --out benchmarks/results/int8.json

Accuracy is that of the demo models on held-out problems, with the same seeds for every dtype. Time is that of the
random models of engine.py, with 64 sequences of 64 prompt tokens. Two engines step in turn, so that both see the same
load of the machine. Times are medians of processor time on one thread. The last line of standard output is one JSON
object.
"""

import math
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish

from ponder_worker import demo
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.demo.training.evaluate import read_answer
from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.engine.sequence import Sequence

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from shape import SHAPES, Shape

WEIGHTS = Path(demo.__file__).parent / "weights"
DTYPES = (torch.float32, torch.bfloat16, torch.int8)
NUM_SEQUENCES, PROMPT = 64, 64


@click.command()
@click.option("--per-level", default=40, show_default=True, help="Held-out problems of each level.")
@click.option("--samples", default=4, show_default=True, help="Samples of each problem.")
@click.option("--steps", default=16, show_default=True, help="Decode steps of each engine.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(per_level: int, samples: int, steps: int, out: Path | None) -> None:
    """Measure accuracy, then time."""
    torch.set_num_threads(1)
    problems = held_out_problems(per_level)
    report = {
        **circumstances(
            "int8 products of the layers, beside bfloat16; ms of processor time, medians", "torch", threads=1
        ),
        "settings": {"problems": len(problems), "samples": samples, "steps": steps},
        "accuracy": {str(dtype): accuracy(dtype, problems, samples) for dtype in DTYPES},
        "steps": {name: times(SHAPES[name], steps) for name in ("small", "0.5B")},
    }
    publish(report, out)


def accuracy(dtype: torch.dtype, problems: list[Problem], samples: int) -> dict[str, float]:
    """The share of right samples at temperature 1, and the perplexity of the reference solutions per token."""
    result = {}
    for name in ("generator", "reward"):
        engine = Engine.load(WEIGHTS / name, dtype=dtype, num_pages=256 * 32)
        if name == "generator":
            result["one_sample"] = round(one_sample(engine, problems, samples), 4)
        result[f"perplexity_{name}"] = round(math.exp(-statistics.fmean(reference_logprobs(engine, problems))), 5)
    click.echo(f"{dtype}: {result}", err=True)
    return result


def one_sample(engine: Engine, problems: list[Problem], samples: int) -> float:
    asked = []
    for place, problem in enumerate(problems):
        prompt = rendered(engine, problem)
        for seed in range(place * samples, (place + 1) * samples):
            sequence = engine.generate(prompt, prompt_length=len(prompt), sampling=SamplingParams(320, seed=seed))
            asked.append((problem, sequence))
    finish(engine)
    return statistics.fmean(
        read_answer(engine.tokenizer.decode(sequence.generated).strip()) == problem.answer
        for problem, sequence in asked
    )


def reference_logprobs(engine: Engine, problems: list[Problem]) -> list[float]:
    sequences = []
    for problem in problems:
        prompt = rendered(engine, problem)
        tokens = [*prompt, *engine.tokenizer.encode(problem.solution)]
        sequences.append(engine.score(tokens, start=len(prompt)))
    finish(engine)
    return [value for sequence in sequences for value in sequence.logprobs]


def rendered(engine: Engine, problem: Problem) -> list[int]:
    return engine.tokenizer.render([{"role": "user", "content": problem.prompt}])


def finish(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


def times(shape: Shape, steps: int) -> dict[str, Any]:
    """Times of a prefill step of 2,048 tokens and of a decode step of 64."""
    with tempfile.TemporaryDirectory() as name:
        shape.save(Path(name))
        engines = [Engine.load(name, dtype=dtype, num_pages=NUM_SEQUENCES * 16) for dtype in DTYPES[1:]]
    found: dict[str, tuple[list[float], list[float]]] = {"prefill": ([], []), "decode": ([], [])}
    for turn in range(2):
        sequences = [added(engine, shape.fields["vocab_size"], steps, turn) for engine in engines]
        while engines[0].has_work:
            kind = "prefill" if any(not sequence.generated for sequence in sequences[0]) else "decode"
            for engine, spent in zip(engines, found[kind], strict=True):
                started = time.process_time()
                engine.step()
                spent.append(1e3 * (time.process_time() - started))
    result = {kind: comparison(*spent) for kind, spent in found.items()}
    click.echo(f"hidden {shape.fields['hidden_size']}: {result}", err=True)
    return result


def added(engine: Engine, vocabulary: int, steps: int, turn: int) -> list[Sequence]:
    chance = random.Random(turn)
    prompts = [[chance.randrange(vocabulary) for _ in range(PROMPT)] for _ in range(NUM_SEQUENCES)]
    samplings = [SamplingParams(steps, seed=seed, stop_at_end=False) for seed in range(NUM_SEQUENCES)]
    return [
        engine.generate(prompt, prompt_length=PROMPT, sampling=sampling)
        for prompt, sampling in zip(prompts, samplings, strict=True)
    ]


def comparison(before: list[float], after: list[float]) -> dict[str, float]:
    bfloat16, int8 = statistics.median(before), statistics.median(after)
    return {"bfloat16_ms": round(bfloat16, 2), "int8_ms": round(int8, 2), "ratio": round(bfloat16 / int8, 2)}


if __name__ == "__main__":
    main()
