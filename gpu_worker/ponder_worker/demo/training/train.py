"""The command ``ponder demo train``, which trains the generator and the reward model again, from a seed."""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from ponder_worker.demo.training.bpe import END, PAD, save_tokenizer, token_id, train_tokenizer
from ponder_worker.demo.training.corpus import Batch, Corpus, tokenizer_corpus
from ponder_worker.demo.training.llama import Llama, LlamaShape, deepened, load_model, save_model

_EASY, _EVEN = (4.0, 3.0, 1.0, 0.5, 0.5), (0.6, 0.8, 1.0, 1.2, 1.4)
_WARM_UP = 0.01
_REPORT_EVERY_S, _SAVE_EVERY_S = 20.0, 180.0
_IGNORED = -100


@dataclass(frozen=True, slots=True)
class Recipe:
    """The parameters of one training run.

    The run ends after `tokens` (padding not counted) or after `minutes`, whichever comes first. If the clock never
    decides, the same seed gives the same run. The learning rates fall linearly between the two `rates`, which are
    shares of `muon_lr` and `adam_lr`. `parent` names the model with whose weights the run begins, and which is first
    made as deep as `num_layers` says. `easy_share` is the first part of the run, in which easy levels are more common
    than later.
    """

    tokens: int
    rates: tuple[float, float]
    parent: str | None = None
    num_layers: int | None = None
    easy_share: float = 0.0
    minutes: float = math.inf
    batch_tokens: int = 4096
    muon_lr: float = 0.004
    adam_lr: float = 0.004


SHAPE = LlamaShape()
RECIPES = {
    "trunk": Recipe(tokens=7_500_000, rates=(1.0, 0.46), easy_share=0.28),
    "generator": Recipe(tokens=3_000_000, rates=(0.5, 0.0), parent="trunk"),
    "reward": Recipe(tokens=9_000_000, rates=(0.5, 0.0), parent="trunk"),
    "large": Recipe(tokens=10_000_000, rates=(0.6, 0.0), parent="reward", num_layers=10),
}
"""The recipes of the shipped models. The generator and the reward model begin with the trunk. The generator is finished
early, on purpose (see the model card), and the reward model is trained for longer. The large generator, the last model
of a cascade, is the reward model made deeper and trained on."""


def train_model(
    model: Llama, recipe: Recipe, corpus: Corpus, save: Callable[[Llama], None], log: Callable[[str], None]
) -> None:
    """Trains `model` in place. `save` is called every few minutes and at the end."""
    optimizer = _Optimizer(model, recipe.muon_lr, recipe.adam_lr)
    first, last = recipe.rates
    started = saved = reported = time.monotonic()
    seen, losses = 0, list[float]()
    for batch, done in _schedule(corpus, recipe):
        loss = solution_loss(model, batch.ids, batch.taught)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(min(1.0, done / _WARM_UP) * (first + (last - first) * done))
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


def solution_loss(model: Llama, ids: Tensor, taught: Tensor) -> Tensor:
    """Mean cross-entropy of the taught tokens. ids: `[batch, tokens + 1]`. taught: `[batch, tokens]`."""
    logits = model.logits(model(ids[:, :-1])[taught])
    return F.cross_entropy(logits, ids[:, 1:][taught])


def _schedule(corpus: Corpus, recipe: Recipe) -> Iterator[tuple[Batch, float]]:
    """The batches of a run, each with the share of the run that is done. Easy levels come first."""
    seen, done, started = 0, 0.0, time.monotonic()
    while True:
        easy = max(0.0, 1.0 - done / recipe.easy_share) if recipe.easy_share else 0.0
        weights = tuple(easy * a + (1.0 - easy) * b for a, b in zip(_EASY, _EVEN, strict=True))
        for batch in corpus.batches(weights):
            elapsed_s = time.monotonic() - started
            done = max(seen / recipe.tokens, elapsed_s / (60.0 * recipe.minutes))
            if done >= 1.0:
                return
            yield batch, done
            seen += batch.num_tokens


def save_folder(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a folder that transformers loads unchanged. One named ``reward`` also says how it scores a step."""
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


class _Muon:
    """Momentum with orthogonalised updates (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    The update's size is matched to AdamW's as in arXiv:2502.16982: 0.2 * sqrt(larger side). Matrices of one shape
    are orthogonalised together.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        groups: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            groups[tuple(sorted(matrix.shape))].append(matrix)
        self.groups = list(groups.values())
        self.velocities = [[torch.zeros_like(matrix) for matrix in group] for group in self.groups]
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Applies and clears the gradients, with the learning rate `lr` * `scale`."""
        lr = self.lr * scale
        for group, velocities in zip(self.groups, self.velocities, strict=True):
            gradients = [matrix.grad for matrix in group if matrix.grad is not None]
            torch._foreach_lerp_(velocities, gradients, 1 - self.momentum)
            ahead = torch._foreach_lerp(gradients, velocities, self.momentum)
            # Matrices are made wide, so that the products inside have the size of the smaller side.
            wide = [update if update.shape[0] <= update.shape[1] else update.T for update in ahead]
            updates = orthogonalised(torch.stack(wide))
            for matrix, update in zip(group, updates, strict=True):
                turned = update if matrix.shape[0] <= matrix.shape[1] else update.T
                matrix.mul_(1 - lr * self.weight_decay).add_(turned, alpha=-lr * 0.2 * max(matrix.shape) ** 0.5)
                matrix.grad = None


def orthogonalised(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """Approximates the nearest semi-orthogonal matrices. matrices: `[count, rows, columns]`, rows <= columns.

    The method is a Newton-Schulz iteration of the fifth order, with the coefficients of the page above.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.float()


class _Optimizer:
    """Both optimizers of a model, on the same schedule."""

    def __init__(self, model: nn.Module, muon_lr: float, adam_lr: float) -> None:
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.muon = _Muon(matrices, muon_lr, momentum=0.95, weight_decay=0.01)
        self.adam_lr = adam_lr
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, scale: float) -> None:
        """Applies and clears the gradients, with all learning rates multiplied by `scale`."""
        self.adam.param_groups[0]["lr"] = self.adam_lr * scale
        self.adam.step()
        self.adam.zero_grad()
        self.muon.step(scale)


@click.command()
@click.option("--model", "which", type=click.Choice([*RECIPES, "all"]), default="all", show_default=True)
@click.option("--seed", default=1, show_default=True, help="Seed of everything random.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the models.")
@click.option("--tokens", type=int, help="Training tokens a model; by default as many as for the shipped ones.")
@click.option("--minutes", type=float, default=math.inf, help="Most minutes a model.")
@click.option("--threads", default=1, show_default=True, help="Number of torch threads.")
def train(*, which: str, seed: int, out: Path, tokens: int | None, minutes: float, threads: int) -> None:
    """Train the demo models on problems made on the spot, and save them as Hugging Face folders.

    The generator and the reward model both start from the trunk, and the large generator from the reward model. To
    train one of them alone, OUT must hold the model that it starts from.
    """
    torch.set_num_threads(threads)
    tokenizer = train_tokenizer(tokenizer_corpus(seed))
    for name, shipped in RECIPES.items():
        if which in (name, "all"):
            recipe = replace(shipped, tokens=tokens or shipped.tokens, minutes=minutes)
            corpus = Corpus(tokenizer, f"{seed}/{name}", recipe.batch_tokens)
            save = partial(save_folder, tokenizer=tokenizer, folder=out / name)
            train_model(_begin(recipe, tokenizer, seed, out), recipe, corpus, save, partial(_log, name))


def _begin(recipe: Recipe, tokenizer: Tokenizer, seed: int, out: Path) -> Llama:
    if recipe.parent is None:
        torch.manual_seed(seed)
        return Llama(replace(SHAPE, vocab_size=tokenizer.get_vocab_size()))
    folder = out / recipe.parent
    if not (folder / "model.safetensors").exists():
        raise click.UsageError(f"{folder} holds no model to start from: run `train --model {recipe.parent}` first")
    model = load_model(folder)
    return (deepened(model, recipe.num_layers) if recipe.num_layers else model).train()


def _log(name: str, line: str) -> None:
    click.echo(f"{name}  {line}")


if __name__ == "__main__":
    train()
