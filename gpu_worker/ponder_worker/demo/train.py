"""``ponder demo train``: make the generator and the reward model again, from a seed."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from ponder_worker.demo.corpus import Batch, Corpus, tokenizer_corpus
from ponder_worker.demo.model import Llama, LlamaShape, save_model
from ponder_worker.demo.optimizer import Optimizer
from ponder_worker.demo.tokenizer import END, PAD, save_tokenizer, token_id, train_tokenizer

GENERATOR = LlamaShape()
REWARD = replace(GENERATOR, num_hidden_layers=8)
_EASY, _EVEN = (4.0, 3.0, 1.0, 0.5, 0.5), (0.6, 0.8, 1.0, 1.2, 1.4)
_WARM_UP, _EASY_SHARE = 0.01, 0.15
_REPORT_EVERY_S, _SAVE_EVERY_S = 20.0, 180.0
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one training run is made of. The learning rates fall linearly to zero over the run.

    The run ends after `tokens` (padding not counted) or after `minutes`, whichever share is used up sooner. Where the
    clock never leads, the same seed gives the same run.
    """

    shape: LlamaShape
    tokens: int
    minutes: float = math.inf
    batch_tokens: int = 4096
    muon_lr: float = 0.004
    adam_lr: float = 0.004


RECIPES = {"generator": Recipe(GENERATOR, tokens=14_000_000), "reward": Recipe(REWARD, tokens=24_000_000)}
"""What the shipped models were made by. The generator's is kept short on purpose: see the model card."""


def train_model(
    recipe: Recipe, tokenizer: Tokenizer, seed: int, save: Callable[[Llama], None], log: Callable[[str], None]
) -> Llama:
    """Train one model; `save` is called every few minutes and at the end."""
    torch.manual_seed(seed)
    model = Llama(replace(recipe.shape, vocab_size=tokenizer.get_vocab_size()))
    optimizer = Optimizer(model, recipe.muon_lr, recipe.adam_lr)
    corpus = Corpus(tokenizer, seed, recipe.batch_tokens)
    started = saved = reported = time.monotonic()
    seen, losses = 0, list[float]()
    for batch, done in _schedule(corpus, recipe):
        loss = solution_loss(model, batch.ids, batch.taught)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(min(1.0, done / _WARM_UP) * (1.0 - done))
        seen += batch.num_tokens
        losses.append(float(loss.detach()))
        now = time.monotonic()
        if now - reported > _REPORT_EVERY_S:
            elapsed_s, mean = now - started, sum(losses) / len(losses)
            speed = f"{seen / 1e6:7.2f}M tokens  {seen / elapsed_s:6.0f}/s"
            log(f"{elapsed_s:6.0f} s  {100 * done:5.1f} %  {speed}  loss {mean:.4f}")
            reported, losses = now, []
        if now - saved > _SAVE_EVERY_S:
            save(model)
            saved = now
    save(model)
    log(f"{time.monotonic() - started:6.0f} s  {seen} tokens seen")
    return model


def solution_loss(model: Llama, ids: Tensor, taught: Tensor) -> Tensor:
    """Mean cross-entropy of the taught tokens; ids: [batch, tokens + 1], taught: [batch, tokens]."""
    logits = model.logits(model(ids[:, :-1])[taught])
    return F.cross_entropy(logits, ids[:, 1:][taught])


def _schedule(corpus: Corpus, recipe: Recipe) -> Iterator[tuple[Batch, float]]:
    """Batches until the run is over, each with the share of the run that lies behind it; easy levels come first."""
    seen, done, started = 0, 0.0, time.monotonic()
    while True:
        easy = max(0.0, 1.0 - done / _EASY_SHARE)
        weights = tuple(easy * a + (1.0 - easy) * b for a, b in zip(_EASY, _EVEN, strict=True))
        for batch in corpus.batches(weights):
            elapsed_s = time.monotonic() - started
            done = max(seen / recipe.tokens, elapsed_s / (60.0 * recipe.minutes))
            if done >= 1.0:
                return
            yield batch, done
            seen += batch.num_tokens


def save_folder(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a folder that transformers loads unchanged; one called ``reward`` is told how it scores a step."""
    folder.mkdir(parents=True, exist_ok=True)
    end, pad = token_id(tokenizer, END), token_id(tokenizer, PAD)
    save_tokenizer(tokenizer, folder, model.shape.max_position_embeddings)
    save_model(model, folder, end, pad)
    sampling = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 320}
    _write(folder / "generation_config.json", {**sampling, "eos_token_id": end, "pad_token_id": pad})
    if folder.name == "reward":
        _write(folder / "reward.json", {"kind": "likelihood", "aggregate": "sum"})


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


@click.command()
@click.option("--model", "which", type=click.Choice([*RECIPES, "both"]), default="both", show_default=True)
@click.option("--seed", default=1, show_default=True, help="Everything random follows from it.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Where both go.")
@click.option("--tokens", type=int, help="Tokens a model is trained on; without it, what the shipped ones were.")
@click.option("--minutes", type=float, default=math.inf, help="At most so many minutes a model.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch.")
def train(*, which: str, seed: int, out: Path, tokens: int | None, minutes: float, threads: int) -> None:
    """Train the demo models on problems made on the spot, and save them as Hugging Face folders."""
    torch.set_num_threads(threads)
    tokenizer = train_tokenizer(tokenizer_corpus(seed))
    for name, shipped in RECIPES.items():
        if which in (name, "both"):
            recipe = replace(shipped, tokens=tokens or shipped.tokens, minutes=minutes)
            save = partial(save_folder, tokenizer=tokenizer, folder=out / name)
            train_model(recipe, tokenizer, seed, save, partial(_log, name))


def _log(name: str, line: str) -> None:
    click.echo(f"{name}  {line}")


if __name__ == "__main__":
    train()
