"""Decode tokens a second of the engine, beside transformers' batched `generate`, on the same random weights.

    python benchmarks/engine.py --out benchmarks/results/engine.json

Both are timed with the same number of sequences, prompt and new tokens, in turn, so that a busy machine slows both:
the ratio of medians is the figure to look at. Beside the wall's clock, the processor's: on a busy machine, with one
thread, it says what an idle one would come near to. The last line of standard output is one JSON object.
"""

import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# With a busy neighbour, threads that spin while they wait cost milliseconds an operation.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
import transformers
from tokenizers import Tokenizer as Library
from tokenizers import models
from transformers import LlamaConfig, LlamaForCausalLM

from ponder_worker.engine import Engine, Sampling

VOCABULARY = 280


@click.command()
@click.option("--sequences", multiple=True, type=int, default=(64, 200), show_default=True)
@click.option("--prompt", "prompt_tokens", default=64, show_default=True, help="Tokens of each prompt.")
@click.option("--new", "new_tokens", default=128, show_default=True, help="Tokens that each sequence generates.")
@click.option(
    "--siblings", multiple=True, type=int, default=(1, 16), show_default=True, help="Sequences that share a prompt."
)
@click.option("--rounds", default=3, show_default=True)
@click.option("--quick", is_flag=True, help="One size, one round, fewer tokens: seconds instead of minutes.")
@click.option("--threads", default=2, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(
    sequences: tuple[int, ...],
    prompt_tokens: int,
    new_tokens: int,
    siblings: tuple[int, ...],
    rounds: int,
    quick: bool,
    threads: int,
    dtype: str,
    out: Path | None,
) -> None:
    """Time a random Llama of a million parameters, prefill and decode together."""
    torch.set_num_threads(threads)
    if quick:
        sequences, rounds, new_tokens = sequences[:1], 1, min(new_tokens, 48)
    pages_each = -(-(prompt_tokens + new_tokens) // 16) + 1
    with tempfile.TemporaryDirectory() as folder:
        peer = random_llama(Path(folder)).to(getattr(torch, dtype))
        engine = Engine.load(folder, dtype=getattr(torch, dtype), num_pages=max(sequences) * pages_each)
    cases = [(count, share) for count in sequences for share in siblings]
    results = [measure(engine, peer, count, share, prompt_tokens, new_tokens, rounds) for count, share in cases]
    report = {
        "what": "decode of a random Llama, 1M parameters, prefill included",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {threads} threads, {torch.backends.cpu.get_cpu_capability()}, {dtype}",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "command": " ".join(["python", "benchmarks/engine.py", *sys.argv[1:]]),
        "results": results,
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")
    click.echo(json.dumps(report))


def random_llama(folder: Path) -> LlamaForCausalLM:
    """The shape of the demo's generator: 5 layers, hidden 128, 4 heads over 2 kv heads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    Library(models.WordLevel({str(token): token for token in range(VOCABULARY)}, "0")).save(f"{folder}/tokenizer.json")
    return model


def measure(
    engine: Engine, peer: LlamaForCausalLM, count: int, siblings: int, prompt_tokens: int, new_tokens: int, rounds: int
) -> dict[str, Any]:
    """Tokens a second of both, medians over rounds; `siblings` sequences share a prompt.

    Each round has new prompts, so that no prefix of an earlier one is found.
    """
    own: list[tuple[float, float]] = []
    others: list[tuple[float, float]] = []
    steps: list[float] = []
    for number in range(rounds + 1):
        chance = random.Random(number)
        different = [[chance.randrange(VOCABULARY) for _ in range(prompt_tokens)] for _ in range(-(-count // siblings))]
        prompts = [different[index // siblings] for index in range(count)]
        started = clocks()
        step_times = run_engine(engine, prompts, new_tokens)
        between = clocks()
        run_peer(peer, prompts, new_tokens)
        ended = clocks()
        if number:  # the first round warms up
            own.append((between[0] - started[0], between[1] - started[1]))
            others.append((ended[0] - between[0], ended[1] - between[1]))
            steps += step_times
    (wall, cpu), (peer_wall, peer_cpu) = (
        [statistics.median(side) for side in zip(*s, strict=True)] for s in (own, others)
    )
    tokens = count * new_tokens
    result = {
        "sequences": count,
        "siblings": siblings,
        "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens,
        "engine_tokens_per_s": round(tokens / wall),
        "transformers_tokens_per_s": round(tokens / peer_wall),
        "ratio": round(peer_wall / wall, 2),
        "engine_tokens_per_cpu_s": round(tokens / cpu),
        "transformers_tokens_per_cpu_s": round(tokens / peer_cpu),
        "cpu_ratio": round(peer_cpu / cpu, 2),
        "engine_step_ms": round(statistics.median(steps) * 1e3, 2),
    }
    click.echo(f"{count} sequences, {siblings} a prompt: {result}", err=True)
    return result


def clocks() -> tuple[float, float]:
    """Seconds of the wall's clock and of the processor's, all threads together."""
    return time.perf_counter(), time.process_time()


def run_engine(engine: Engine, prompts: list[list[int]], new_tokens: int) -> list[float]:
    """Seconds of every step until all are done."""
    for seed, prompt in enumerate(prompts):
        engine.generate(prompt, prompt_length=len(prompt), sampling=Sampling(new_tokens, seed=seed, stop_at_end=False))
    times = []
    while engine.has_work:
        started = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - started)
    return times


def run_peer(peer: LlamaForCausalLM, prompts: list[list[int]], new_tokens: int) -> None:
    """One batched call."""
    with torch.inference_mode():
        peer.generate(
            torch.tensor(prompts),
            attention_mask=torch.ones(len(prompts), len(prompts[0]), dtype=torch.int64),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=True,
            top_k=0,
            eos_token_id=None,
            pad_token_id=0,
        )


if __name__ == "__main__":
    main()
