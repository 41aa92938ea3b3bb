"""Effect of single optimisations: one engine steps with each of them and without it, in turn.

    python benchmarks/switches.py --out benchmarks/results/switches.json

Alternating steps see the same load, so the ratio of their medians holds on a busy machine too. Times are processor time
on one thread, in bfloat16. The model is random: 6 layers, hidden 192, 6 heads over 2 kv heads, 2048 tokens.
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
from circumstances import circumstances, publish
from tokenizers import Tokenizer as Library
from tokenizers import models
from transformers import LlamaConfig, LlamaForCausalLM

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.models import linear as linear_module
from ponder_worker.models.operations import TorchOperations
from ponder_worker.models.transformer import Transformer

VOCABULARY = 2048
NEW_TOKENS = 24


@click.command()
@click.option("--prompt", "prompts", multiple=True, type=int, default=(64, 512), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON here.")
def main(prompts: tuple[int, ...], out: Path | None) -> None:
    """Time the operations in C, attention on AMX, and the matrix products, on 16 prompts of 16 sequences."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        save(Path(name))
        engine = Engine.load(name, dtype=torch.bfloat16, num_pages=256 * 48)
        switches = {
            "steps in C, against torch": switch_c(engine),
            "shared pages on AMX, against vectors": lambda on: setattr(engine.model._native, "_tiles", int(on)),
            "products in C, against oneDNN": switch_products(engine.model, name),
        }
    results = []
    for title, switch in switches.items():
        for length in prompts:
            without, with_it = alternate(engine, length, switch)
            switch(True)
            line = {"what": title, "prompt": length, "ms_without": round(without, 2), "ms_with": round(with_it, 2)}
            results.append(line | {"ratio": round(without / with_it, 2)})
            click.echo(results[-1], err=True)
    report = {
        **circumstances("a decode step of 256 sequences; ms of processor time", "torch", "transformers", threads=1),
        "results": results,
    }
    publish(report, out)


def switch_c(engine: Engine) -> Callable[[bool], None]:
    """Switch attention, norms, rotation, gates and sampling between C and torch."""
    model, sampler = engine.model, engine._runner._sampler
    mine, choice = model._native, sampler._choice

    def switch(on: bool) -> None:
        model._native, model._operations = (mine, mine) if on else (None, TorchOperations())
        sampler._choice = choice if on else None

    return switch


def switch_products(model: Transformer, folder: str) -> Callable[[bool], None]:
    mine, product = model._layers, linear_module.product
    linear_module.product = lambda weight, bias, *, as_float32=False: None
    theirs = Transformer.load(folder, dtype=torch.bfloat16, device=torch.device("cpu"))._layers
    linear_module.product = product
    return lambda on: setattr(model, "_layers", mine if on else theirs)


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
    """Median milliseconds of a decode step, without the optimisation and with it."""
    chance = random.Random(length)
    sequences = []
    for seed in range(256):
        if seed % 16 == 0:
            prompt = [chance.randrange(VOCABULARY) for _ in range(length)]
        sampling = SamplingParams(NEW_TOKENS, seed=seed, stop_at_end=False)
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
