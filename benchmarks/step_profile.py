"""Where a decode step of a real model goes: products, attention, what stands between them, logits, sampling, the rest.

    python benchmarks/step_profile.py ~/models/SmolLM2-135M-Instruct --out benchmarks/results/step_profile.json

40 samples of one prompt, 40 prompts, and 256 samples of one prompt, each of 64 tokens, in bfloat16. Every call of the
model's operations is timed, the cost of calling it from Python included; figures are medians over steps, in
milliseconds of processor time with one thread, and of wall-clock time with more. `loop_us` is what dividing an empty
loop among the threads takes: while they look for the next loop, and after a pause of 2 ms, in which they fall asleep.
The last line of standard output is one JSON object.
"""

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.models import attention
from ponder_worker.models.native.library import library

CASES = (("40 samples of one prompt", 40, 1), ("40 prompts", 40, 40), ("256 samples of one prompt", 256, 1))
PROMPT = 64
WHAT = (
    "a decode step of a real model, bfloat16; ms of processor time, or of wall-clock time with more than one thread, "
    "medians"
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--threads", default=2, show_default=True)
@click.option("--steps", default=40, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(folder: Path, threads: int, steps: int, out: Path | None) -> None:
    """Profile a decode step."""
    torch.set_num_threads(threads)
    engine = Engine.load(folder, dtype=torch.bfloat16, num_pages=4096)
    profile = Profile(time.process_time if threads == 1 else time.perf_counter)
    profile.watch(engine)
    results = {
        name: profile.measure(engine, num_samples, num_prompts, steps) for name, num_samples, num_prompts in CASES
    }
    report = {
        **circumstances(
            WHAT,
            "torch",
            threads=threads,
        ),
        "loop_us": {"at once": loop_us(threads, 0.0), "after 2 ms": loop_us(threads, 0.002)},
        "results": results,
    }
    publish(report, out)


class Profile:
    """The time that the parts of a step take."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}

    def watch(self, engine: Engine) -> None:
        """Times the calls of an engine's parts from now on."""
        model: Any = engine.model
        model._operations = Watched(self, model._operations)
        attention.attend = self.timed("attention", attention.attend)
        for layer in model._layers:
            dense = layer._feed_forward
            for owner, name in (
                (layer, "_query_key_value"),
                (layer, "_output"),
                (dense, "_gate_up"),
                (dense, "_down"),
            ):
                setattr(owner, name, self.timed("products", getattr(owner, name)))
        for part, owner, name in (
            ("logits", model, "logits"),
            ("layouts", model, "layouts"),
            ("sampling", engine._runner._sampler, "sample"),
            ("sampling", engine._runner._sampler, "logprobs"),
            ("plan and commit", engine._scheduler, "plan"),
            ("plan and commit", engine._scheduler, "commit"),
        ):
            setattr(owner, name, self.timed(part, getattr(owner, name)))

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self._clock()
            try:
                return call(*args, **kwargs)
            finally:
                self._seconds[part] = self._seconds.get(part, 0.0) + self._clock() - began

        return timed

    def measure(self, engine: Engine, num_samples: int, num_prompts: int, steps: int) -> dict[str, float]:
        """Milliseconds of a step and of its parts, in the middle of answers of 64 tokens."""
        chance = random.Random(0)
        vocabulary = engine.model.config.vocabulary_size
        prompts = [[chance.randrange(vocabulary) for _ in range(PROMPT)] for _ in range(num_prompts)]
        for number in range(num_samples):
            sampling = SamplingParams(steps + 24, seed=number, stop_at_end=False)
            engine.generate(prompts[number % num_prompts], prompt_length=PROMPT, sampling=sampling)
        while engine.num_waiting:
            engine.step()
        for _ in range(8):
            engine.step()
        rows = []
        for _ in range(steps):
            self._seconds.clear()
            began = self._clock()
            engine.step()
            step = self._clock() - began
            rows.append({"step": step, **self._seconds, "rest": step - sum(self._seconds.values())})
        while engine.has_work:
            engine.step()
        found = {part: 1e3 * statistics.median(row[part] for row in rows) for part in rows[0]}
        found = {part: round(ms, 2) for part, ms in found.items()}
        click.echo(found, err=True)
        return found


class Watched:
    """The operations of a model, each timed as a part of its own."""

    def __init__(self, profile: Profile, operations: Any) -> None:
        self.add_and_normalise = profile.timed("norms", operations.add_and_normalise)
        self.rotate_and_write = profile.timed("rotation and writing", operations.rotate_and_write)
        self.gate = profile.timed("gates", operations.gate)


def loop_us(threads: int, pause_s: float) -> float:
    """Microseconds that a loop over two short rows takes longer on these threads than on one."""
    functions = library(torch.float32)
    if functions is None:
        raise click.ClickException("the C needs a compiler")
    x, out = torch.ones(2, 32), torch.empty(2, 16)
    alone: list[float] = []
    divided: list[float] = []
    for _ in range(300):
        for number, times in ((1, alone), (threads, divided)):
            time.sleep(pause_s)
            began = time.perf_counter()
            functions.gate(x.data_ptr(), out.data_ptr(), 2, 16, number)
            times.append(time.perf_counter() - began)
    return round(1e6 * (statistics.median(divided) - statistics.median(alone)), 1)


if __name__ == "__main__":
    main()
