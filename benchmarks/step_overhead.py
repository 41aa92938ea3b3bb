"""Overhead of a decode step of 256 sequences beside the model: planning, committing, building the model's inputs.

    python benchmarks/step_overhead.py --out benchmarks/results/step_overhead.json

Two models are measured: the demo's generator, also while sequences come and go, and random weights in the shape of
Qwen2.5-0.5B with its vocabulary. Times are medians of processor time on one thread. What the model computes (its
layers, logits and sampling) is compared with everything else. The 0.5B shape may be cut to fewer layers (`--layers`).
The time of a layer is then multiplied by the number of layers of the model, and the result says so.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish
from tokenizers import Tokenizer as Library
from tokenizers import models
from transformers import Qwen2Config, Qwen2ForCausalLM

import ponder_worker.demo
from ponder_worker.engine import Engine, SamplingParams

DEMO = Path(ponder_worker.demo.__file__).parent / "weights" / "generator"
SEQUENCES, PROMPT = 256, 64
LAYERS = 24


class Stopwatch:
    """The times at which some methods begin and end in a step, in processor seconds."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.ended: dict[str, float] = {}

    def watch(self, owner: Any, name: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.began[name] = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.ended[name] = time.process_time()

        setattr(owner, name, timed)

    def parts(self) -> dict[str, float]:
        """The parts of a step in milliseconds.

        inputs: everything from the plan to the layers, including the layouts of attention. draws: the sampling
        parameters. rest: the remainder of the step, except for freeing the logits.
        """
        began, ended = self.began, self.ended
        seconds = {
            "plan": ended["plan"] - began["plan"],
            "inputs": began["forward"] - ended["plan"],
            "layers": ended["forward"] - began["forward"],
            "draws": began["logits"] - ended["forward"],
            "sampling": ended["logprobs"] - began["logits"],
            "commit": ended["commit"] - began["commit"],
            "rest": ended["step"] - ended["commit"] + began["commit"] - ended["launch"] + began["plan"] - began["step"],
        }
        return {name: 1e3 * value for name, value in seconds.items()}


@click.command()
@click.option("--layers", default=3, show_default=True, help="Layers of the 0.5B shape that are really computed.")
@click.option("--steps", default=40, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(layers: int, steps: int, dtype: str, out: Path | None) -> None:
    """Measure the host's share of a decode step."""
    torch.set_num_threads(1)
    results = {
        "demo": measure(DEMO, torch.float32, steps, 5, 5),
        "demo, sequences come and go": measure(DEMO, torch.float32, steps, 5, 5, come_and_go=True),
    }
    with tempfile.TemporaryDirectory() as name:
        save_half_billion(Path(name), layers)
        results["0.5B shape"] = measure(Path(name), getattr(torch, dtype), max(8, steps // 3), layers, LAYERS)
    report = {
        **circumstances(
            f"a decode step of {SEQUENCES} sequences, 16 siblings a prompt of {PROMPT}: milliseconds and shares",
            "torch",
            threads=1,
        ),
        "results": results,
    }
    publish(report, out)


def save_half_billion(folder: Path, layers: int) -> None:
    """Saves a random model with the dimensions of Qwen2.5-0.5B."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    Library(models.WordLevel({"0": 0}, "0")).save(f"{folder}/tokenizer.json")


def measure(
    folder: Path, dtype: torch.dtype, steps: int, layers: int, all_layers: int, *, come_and_go: bool = False
) -> dict[str, Any]:
    """Milliseconds of the parts of a step. The time of the layers is scaled from `layers` to `all_layers`.

    come_and_go: a sequence ends after 64 to 192 tokens and another one of its family takes its place, so that hardly
    any step has the same sequences as the one before. All of them look for a separator, as the steps of a search do.
    """
    engine = Engine.load(folder, dtype=dtype, num_pages=SEQUENCES * 12)
    watch = Stopwatch()
    for owner, name in (
        (engine._scheduler, "plan"),
        (engine._scheduler, "commit"),
        (engine._runner, "launch"),
        (engine.model, "forward"),
        (engine.model, "logits"),
        (engine._runner._sampler, "logprobs"),
        (engine, "step"),
    ):
        watch.watch(owner, name)
    chance = random.Random(0)
    vocabulary = engine.model.config.vocabulary_size
    prompts = [[chance.randrange(vocabulary) for _ in range(PROMPT)] for _ in range(SEQUENCES // 16)]

    def begin(number: int) -> None:
        longest = chance.randrange(64, 192) if come_and_go else steps + 16
        separator = "\n\n\n" if come_and_go else None
        sampling = SamplingParams(longest, temperature=0.8, seed=number, stop_at_end=False, separator=separator)
        engine.generate(prompts[number // 16 % len(prompts)], prompt_length=PROMPT, sampling=sampling)

    for number in range(SEQUENCES):
        begin(number)
    while engine.num_waiting or engine.counters.generated_tokens < 2 * SEQUENCES:
        engine.step()
    num_begun = SEQUENCES
    rows: list[dict[str, float]] = []
    for _ in range(steps):
        outputs = engine.step()
        assert len(outputs) == SEQUENCES
        rows.append(watch.parts())
        for _ in range(sum(output.finish_reason is not None for output in outputs)):
            begin(num_begun)
            num_begun += 1
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    model = middle["layers"] * all_layers / layers + middle["sampling"]
    overhead = sum(middle[name] for name in ("plan", "inputs", "draws", "commit", "rest"))
    result = {name: round(value, 3) for name, value in middle.items()} | {
        "layers_computed": layers,
        "layers_of_the_model": all_layers,
        "model_ms": round(model, 2),
        "overhead_ms": round(overhead, 3),
        "overhead_share": round(overhead / (overhead + model), 4),
    }
    click.echo(f"{folder.name}: {result}", err=True)
    return result


if __name__ == "__main__":
    main()
