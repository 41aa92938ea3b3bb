"""Share of tokens that a sequence samples differently beside others than alone. Only rounding can differ.

    python benchmarks/token_agreement.py --out benchmarks/results/token_agreement.json

The demo's generator answers 64 of its problems, each with its own seed: one at a time, then all 64 at once, then all 64
with prompts that arrive while others decode. The temperature is 1, where the model is mostly certain, and 2, where it
is not. Matrix products of other shapes add in another order, and a token differs where two were nearly equally likely.
After a difference the texts are different, so only the first difference of a sequence counts. The figure is differences
per million tokens that were sampled from equal texts.
"""

import os
import random
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish

import ponder_worker.demo
from ponder_worker.demo.problems import held_out_problems
from ponder_worker.engine import Engine, SamplingParams, Sequence

DEMO = Path(ponder_worker.demo.__file__).parent / "weights" / "generator"
COMPANY = 64


@click.command()
@click.option("--rounds", default=4, show_default=True, help="Rounds of 64 sequences.")
@click.option("--new", "new_tokens", default=96, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(rounds: int, new_tokens: int, out: Path | None) -> None:
    """Compare tokens sampled alone with those sampled beside other sequences, in float32 and bfloat16."""
    torch.set_num_threads(1)
    cases = [(name, temperature) for name in ("float32", "bfloat16") for temperature in (1.0, 2.0)]
    results = {
        f"{name}, temperature {temperature:g}": compare(getattr(torch, name), temperature, rounds, new_tokens)
        for name, temperature in cases
    }
    report = {
        **circumstances(
            f"tokens of {COMPANY * rounds} sequences alone and in company of {COMPANY}, same seeds", "torch", threads=1
        ),
        "new_tokens": new_tokens,
        "results": results,
    }
    publish(report, out)


def compare(dtype: torch.dtype, temperature: float, rounds: int, new_tokens: int) -> dict[str, Any]:
    engine = Engine.load(DEMO, dtype=dtype, num_pages=COMPANY * 32)
    problems = held_out_problems(per_level=-(-COMPANY * rounds // 5))
    everything = [engine.tokenizer.render([{"role": "user", "content": problem.prompt}]) for problem in problems]
    random.Random(0).shuffle(everything)
    alone, together, arriving = [], [], []
    for number in range(rounds):
        prompts = everything[number * COMPANY : (number + 1) * COMPANY]
        samplings = [SamplingParams(new_tokens, seed=seed, temperature=temperature) for seed in range(COMPANY)]
        requests = list(zip(prompts, samplings, strict=True))
        for request in requests:
            alone += run(engine, [request])
        together += run(engine, requests)
        arriving += run(engine, requests, every=2)
    result = {name: differences(alone, others) for name, others in (("together", together), ("arriving", arriving))}
    click.echo(f"{dtype}, temperature {temperature:g}: {result}", err=True)
    return result


def run(engine: Engine, requests: list[tuple[list[int], SamplingParams]], *, every: int = 0) -> list[Sequence]:
    """Runs all problems, with `every` steps between two arrivals. Each run has its own salt and finds no old prefix."""
    sequences: list[Sequence] = []
    salt = random.randbytes(8)
    for prompt, sampling in requests:
        sequences.append(engine.generate(prompt, prompt_length=len(prompt), sampling=sampling, salt=salt))
        for _ in range(every):
            engine.step()
    while engine.has_work:
        engine.step()
    return sequences


def differences(alone: list[Sequence], others: list[Sequence]) -> dict[str, float]:
    differing, on_equal_ground, apart = 0, 0, 0.0
    for one, other in zip(alone, others, strict=True):
        pairs = zip(one.generated, other.generated, strict=False)  # a sequence that differs may end at another place
        first = next((place for place, (token, another) in enumerate(pairs) if token != another), None)
        differing += first is not None
        equal = len(one.generated) if first is None else first + 1
        on_equal_ground += equal
        both = zip(one.logprobs[: equal - 1], other.logprobs, strict=False)
        apart = max([apart, *(abs(value - another) for value, another in both)])
    return {
        "sequences": len(alone),
        "sequences_that_differ": differing,
        "tokens_on_equal_ground": on_equal_ground,
        "differences_a_million_tokens": round(1e6 * differing / on_equal_ground, 1),
        "most_that_a_logprob_differs": float(f"{apart:.2g}"),
    }


if __name__ == "__main__":
    main()
