"""Sampling and scoring in one padded batch, for measuring the demo models without pages or a scheduler.

It is independent of the engine, so figures measured here also check the engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ponder_worker.demo.training.llama import Attention, Llama, linear, rotate, rotation

_NEVER = -1e9
"""The bias of keys that may not be seen. It is finite, so that a row of padding alone does not become NaN."""


@dataclass(slots=True)
class Cache:
    """Keys and values of every layer, `[batch, kv_heads, tokens, head_dim]`.

    seen: `[batch, tokens]`, false for padding.
    """

    seen: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds tokens to a layer and returns all of its keys and values."""
        if layer == len(self.keys):
            self.keys.append(keys)
            self.values.append(values)
        else:
            self.keys[layer] = torch.cat((self.keys[layer], keys), dim=2)
            self.values[layer] = torch.cat((self.values[layer], values), dim=2)
        return self.keys[layer], self.values[layer]

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order. A row may occur more than once."""
        self.seen = self.seen[rows]
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]


@torch.inference_mode()
def sample(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
    end: int,
    random: torch.Generator,
) -> list[list[list[int]]]:
    """Samples `num_samples` continuations of each prompt, without the end token. Temperature 0 is greedy."""
    width = max(map(len, prompts))
    ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    cache = Cache(torch.tensor([[False] * (width - len(prompt)) + [True] * len(prompt) for prompt in prompts]))
    logits = _forward(model, ids, cache)[:, -1]
    owners = torch.arange(len(prompts)).repeat_interleave(num_samples)
    cache.select(owners)
    logits = logits[owners]
    outputs: list[list[int]] = [[] for _ in owners]
    alive = torch.arange(len(owners))
    for _ in range(max_new_tokens):
        tokens = _choose(logits, temperature, random)
        going = tokens != end
        alive, tokens = alive[going], tokens[going]
        if not len(alive):
            break
        if not going.all():
            cache.select(going.nonzero().flatten())
        for row, token in zip(alive.tolist(), tokens.tolist(), strict=True):
            outputs[row].append(token)
        cache.seen = F.pad(cache.seen, (0, 1), value=True)
        logits = _forward(model, tokens[:, None], cache)[:, -1]
    return [outputs[at : at + num_samples] for at in range(0, len(outputs), num_samples)]


@torch.inference_mode()
def log_probabilities(model: Llama, sequences: Sequence[Sequence[int]], batch_size: int = 256) -> list[list[float]]:
    """The log-probability of every token but the first of each sequence, given those before it."""
    results: list[list[float]] = [[] for _ in sequences]
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    for at in range(0, len(order), batch_size):
        rows = order[at : at + batch_size]
        width = max(len(sequences[row]) for row in rows)
        ids = torch.tensor([list(sequences[row]) + [0] * (width - len(sequences[row])) for row in rows])
        logits = model.logits(model(ids[:, :-1]))
        chosen = torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None])[..., 0]
        for row, values in zip(rows, chosen.tolist(), strict=True):
            results[row] = values[: len(sequences[row]) - 1]
    return results


def _choose(logits: Tensor, temperature: float, random: torch.Generator) -> Tensor:
    """Chooses one token a row: `[batch]`, from logits `[batch, vocab]`."""
    if temperature == 0.0:
        return logits.argmax(-1)
    return torch.multinomial(torch.softmax(logits / temperature, dim=-1), 1, generator=random)[:, 0]


def _forward(model: Llama, ids: Tensor, cache: Cache) -> Tensor:
    """Logits `[batch, new, vocab]` of ids `[batch, new]`, which are the last columns of `cache.seen`."""
    new, total = ids.shape[1], cache.seen.shape[1]
    positions = (cache.seen.cumsum(1) - 1).clamp(min=0)[:, total - new :]
    cos, sin = (table[positions][:, None] for table in rotation(total, model.shape.head_dim, model.shape.rope_theta))
    causal = torch.arange(total) <= torch.arange(total - new, total)[:, None]
    bias = torch.where(cache.seen[:, None] & causal, 0.0, _NEVER).to(torch.bfloat16)
    x = F.embedding(ids, model.embed_tokens.weight).to(torch.bfloat16)
    for index, layer in enumerate(model.blocks()):
        x = x + _attend(layer.self_attn, index, layer.input_layernorm(x), (cos, sin), bias, cache)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return model.logits(model.norm(x))


def _attend(  # noqa: PLR0917
    attention: Attention, index: int, x: Tensor, rotations: tuple[Tensor, Tensor], bias: Tensor, cache: Cache
) -> Tensor:
    """Attends from x `[batch, new, hidden]` to all keys of the cache, to which the new ones are added.

    rotations: cos and sin, `[batch, 1, new, head_dim]`. bias: `[batch, new, total]`.
    """
    cos, sin = rotations
    batch, new, _ = x.shape
    heads, kv_heads, head_dim = attention.heads, attention.kv_heads, attention.head_dim
    q = linear(x, attention.q_proj).view(batch, new, heads, head_dim).transpose(1, 2)
    k = linear(x, attention.k_proj).view(batch, new, kv_heads, head_dim).transpose(1, 2)
    v = linear(x, attention.v_proj).view(batch, new, kv_heads, head_dim).transpose(1, 2)
    scale = head_dim**-0.5
    keys, values = cache.extend(index, rotate(k, cos, sin), v)
    q = rotate(q, cos * scale, sin * scale).reshape(batch, kv_heads, -1, head_dim)
    scores = (q @ keys.mT).view(batch, kv_heads, heads // kv_heads, new, -1) + bias[:, None, None]
    weights = torch.softmax(scores, dim=-1).view(batch, kv_heads, -1, keys.shape[2])
    out = (weights @ values).view(batch, heads, new, head_dim).transpose(1, 2)
    return linear(out.reshape(batch, new, -1), attention.o_proj)
