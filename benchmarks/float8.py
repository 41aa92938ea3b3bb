"""Effect of float8 keys and values on the demo model: greedy answers to held-out problems, and log-probabilities.

    PYTHONPATH=platform:gpu_worker:kernels python benchmarks/float8.py --out benchmarks/results/float8.json

The log-probabilities are those of the answers that float32 keys and values give. The last line of standard output is
one JSON object.
"""

from pathlib import Path

import click
import torch
from circumstances import circumstances, publish

from ponder_worker import demo
from ponder_worker.demo.problems import Problem, held_out_problems
from ponder_worker.demo.training.evaluate import read_answer
from ponder_worker.engine import Engine, SamplingParams, Sequence
from ponder_worker.models.kv_pages import FP8

GENERATOR = Path(demo.__file__).parent / "weights" / "generator"


@click.command()
@click.option("--per-level", default=50, show_default=True, help="Held-out problems of each of five levels.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(per_level: int, out: Path | None) -> None:
    """Answer and score with float32 and with float8."""
    problems = held_out_problems(per_level)
    plain, small = (Engine.load(GENERATOR, num_pages=8192, kv_dtype=kv_dtype) for kv_dtype in (None, FP8))
    answers, others = (answer(engine, problems) for engine in (plain, small))
    expected, found = (scores(engine, answers) for engine in (plain, small))
    difference = (expected - found).abs()
    result = {
        **circumstances("the demo model with keys and values in float8, beside float32", "torch"),
        "problems": len(problems),
        "right": {"float32": right(plain, answers, problems), "float8": right(small, others, problems)},
        "same_tokens": sum(one.tokens == other.tokens for one, other in zip(answers, others, strict=True)),
        "tokens_scored": len(difference),
        "difference": {
            "mean": round(float(difference.mean()), 5),
            "0.99": round(float(difference.quantile(0.99)), 4),
            "largest": round(float(difference.max()), 4),
        },
        "kv_bytes_per_token": {"float32": plain.model.kv_bytes_per_token, "float8": small.model.kv_bytes_per_token},
    }
    publish(result, out)


def answer(engine: Engine, problems: list[Problem]) -> list[Sequence]:
    sequences = []
    for problem in problems:
        prompt = engine.tokenizer.render([{"role": "user", "content": problem.prompt}])
        sampling = SamplingParams(256, temperature=0.0)
        sequences.append(engine.generate(prompt, prompt_length=len(prompt), sampling=sampling))
    drain(engine)
    return sequences


def scores(engine: Engine, answers: list[Sequence]) -> torch.Tensor:
    """Log-probabilities of all tokens of these answers."""
    scored = [engine.score(sequence.tokens, start=sequence.prompt_length) for sequence in answers]
    drain(engine)
    return torch.tensor([value for sequence in scored for value in sequence.logprobs])


def right(engine: Engine, answers: list[Sequence], problems: list[Problem]) -> int:
    texts = [engine.tokenizer.decode(sequence.generated) for sequence in answers]
    return sum(read_answer(text) == problem.answer for text, problem in zip(texts, problems, strict=True))


def drain(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


if __name__ == "__main__":
    main()
