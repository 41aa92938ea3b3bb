"""What one optimisation is worth: steps of one engine with it and without it, in turn.

    python benchmarks/switches.py

Alternating steps see the same load of the machine, so that the ratio of their medians holds on a busy one too.
Processor time, one thread. The model is random: 6 layers, hidden 192, 6 heads over 2 kv heads, vocabulary 2048.
"""

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from tokenizers import Tokenizer as Library
from tokenizers import models
from transformers import LlamaConfig, LlamaForCausalLM

from ponder_worker.engine import Engine, Sampling
from ponder_worker.models import attention

VOCABULARY = 2048
NEW_TOKENS = 24


@click.command()
@click.option("--prompt", "prompts", multiple=True, type=int, default=(32, 64, 128, 512), show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
def main(prompts: tuple[int, ...], dtype: str) -> None:
    """Time the reading of siblings' shared pages once, against once a sibling: 16 prompts of 16 sequences."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        save(Path(name))
        engine = Engine.load(name, dtype=getattr(torch, dtype), num_pages=256 * 48)
    least = attention._LEAST_SAVED_PAGES
    for length in prompts:
        without, with_it = alternate(
            engine, length, lambda on: setattr(attention, "_LEAST_SAVED_PAGES", least if on else 1 << 40)
        )
        click.echo(
            f"prompt {length}, {dtype}: {without:.1f} ms without, {with_it:.1f} ms with, {without / with_it:.2f}"
        )


def save(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    Library(models.WordLevel({str(token): token for token in range(VOCABULARY)}, "0")).save(f"{folder}/tokenizer.json")


def alternate(engine: Engine, length: int, switch: Callable[[bool], None]) -> tuple[float, float]:
    """Milliseconds of a decode step, median, without and with."""
    chance = random.Random(length)
    sequences = []
    for seed in range(256):
        if seed % 16 == 0:
            prompt = [chance.randrange(VOCABULARY) for _ in range(length)]
        sampling = Sampling(NEW_TOKENS, seed=seed, stop_at_end=False)
        sequences.append(engine.generate(prompt, prompt_length=length, sampling=sampling))
    while engine.num_waiting or any(len(sequence.tokens) == length for sequence in sequences):
        engine.step()
    times: tuple[list[float], list[float]] = ([], [])
    turn = False
    while engine.has_work:
        switch(turn)
        started = time.process_time()
        engine.step()
        times[turn].append(1e3 * (time.process_time() - started))
        turn = not turn
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
