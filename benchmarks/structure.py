"""The cost of holding sequences to a JSON schema: how much longer a step of 64 takes than without.

    python benchmarks/structure.py [FOLDER] --out benchmarks/results/structure.json

FOLDER is a model in Hugging Face's format, such as SmolLM2-135M-Instruct; the demo's generator is measured as well,
whose steps are the shortest there are. Models of bfloat16 compute in the dtype that a worker chooses on this
processor. In every round each model makes the same sequences free and held, in turns. All
sequences are in different places of the structure, and none of them ends while it is measured. The last line of
standard output is one JSON object.
"""

import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish

import ponder_worker.demo
from ponder.domain.structure import grammar_of
from ponder.processor import automatic_precision, bfloat16_instructions
from ponder_worker.engine import Engine, SamplingParams, Sequence, Structure

DEMO = Path(ponder_worker.demo.__file__).parent / "weights" / "generator"
SEQUENCES, PROMPT = 64, 32
WORD = {"type": "string", "minLength": 3, "maxLength": 40}
SCHEMA = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "minItems": 50,
            "items": {
                "type": "object",
                "properties": {
                    "name": WORD,
                    "age": {"type": "integer", "minimum": 0, "maximum": 150},
                    "email": {"type": "string", "format": "email"},
                    "kind": {"enum": ["friend", "colleague", "stranger"]},
                    "tags": {"type": "array", "items": WORD, "minItems": 1},
                    "note": {
                        "anyOf": [{"type": "null"}, {"type": "object", "additionalProperties": {"type": "number"}}]
                    },
                },
                "required": ["name", "age", "kind", "tags", "note"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["people"],
    "additionalProperties": False,
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--rounds", default=9, show_default=True)
@click.option("--steps", default=60, show_default=True, help="Steps of each kind in a round.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(folder: Path | None, rounds: int, steps: int, threads: int, out: Path | None) -> None:
    """Time steps of 64 sequences, free and held to a JSON schema."""
    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    results = [row("demo", DEMO, torch.float32, rounds, steps)]
    if folder is not None and (folder / "config.json").is_file():
        dtype = getattr(torch, automatic_precision("bfloat16", bfloat16_instructions()).dtype)
        name = json.loads((folder / "config.json").read_text())["model_type"]
        results.append(row(name, folder, dtype, rounds, steps))
    else:
        click.echo(f"the demo's model only: there is none in {folder}", err=True)
    report = {
        **circumstances(
            f"a decode step of {SEQUENCES} sequences, free and held to a JSON schema: milliseconds, medians of rounds",
            "torch",
            "llguidance",
            threads=threads,
        ),
        "load_average_before": round(load, 1),
        "rounds": rounds,
        "results": results,
    }
    publish(report, out)


def row(name: str, folder: Path, dtype: torch.dtype, rounds: int, steps: int) -> dict[str, Any]:
    engine = Engine.load(folder, dtype=dtype, num_pages=2 * SEQUENCES * 32)
    grammar = grammar_of({"json_schema": SCHEMA})
    started = time.perf_counter()
    engine.compile(grammar)
    compile_s = time.perf_counter() - started
    times: dict[bool, list[Times]] = {False: [], True: []}
    for number in range(rounds + 1):
        for is_held in (False, True):
            took = timed(engine, Structure(grammar) if is_held else None, steps, seed=number)
            if number:  # the first round warms up
                times[is_held].append(took)
    return {
        "model": name,
        "dtype": str(dtype).removeprefix("torch."),
        "vocabulary": engine.model.config.vocabulary_size,
        "compile_ms": round(1e3 * compile_s, 1),
        "step_ms": compared(*([took.wall_s for took in times[is_held]] for is_held in (False, True))),
        "processor_ms": compared(*([took.processor_s for took in times[is_held]] for is_held in (False, True))),
    }


def compared(free: list[float], held: list[float]) -> dict[str, Any]:
    """Medians in milliseconds, and how much more the held ones took in each round."""
    more_s = [held_s - free_s for free_s, held_s in zip(free, held, strict=True)]
    more = [100 * (held_s / free_s - 1) for free_s, held_s in zip(free, held, strict=True)]
    return {
        "free": round(1e3 * statistics.median(free), 3),
        "held": round(1e3 * statistics.median(held), 3),
        "more": round(1e3 * statistics.median(more_s), 3),
        "more_percent": round(statistics.median(more), 1),
        "more_percent_by_round": [round(each, 1) for each in more],
    }


class Times(NamedTuple):
    """Seconds a step: by the clock, and of processor time of all threads, which other load does not change much."""

    wall_s: float
    processor_s: float


def timed(engine: Engine, structure: Structure | None, steps: int, *, seed: int) -> Times:
    """Times a step, once all sequences decode."""
    sequences = list(begun(engine, structure, steps, seed))
    while any(len(sequence.tokens) <= PROMPT + 4 for sequence in sequences):
        engine.step()
    started, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        assert len(engine.step()) == SEQUENCES, "a sequence has ended"
    took = Times((time.perf_counter() - started) / steps, (time.process_time() - processor) / steps)
    for sequence in sequences:
        engine.cancel(sequence)
    engine.step()
    return took


def begun(engine: Engine, structure: Structure | None, steps: int, seed: int) -> Iterator[Sequence]:
    size = min(engine.model.config.vocabulary_size, 300)
    for number in range(SEQUENCES):
        prompt = [3 + (7 * number + 11 * place) % (size - 3) for place in range(PROMPT)]
        sampling = SamplingParams(
            max_tokens=steps + 20, seed=1000 * seed + number, stop_at_end=structure is not None, structure=structure
        )
        yield engine.generate(prompt, prompt_length=PROMPT, sampling=sampling)


if __name__ == "__main__":
    main()
