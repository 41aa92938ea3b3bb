"""The kinds of rotary positions (https://arxiv.org/abs/2104.09864), by the names and formulas of transformers.

The arithmetic is that of transformers' `modeling_rope_utils`, in float32 and in its order, so that the frequencies are
equal to the last bit: an error of one bit is a visible angle at position 100,000.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ponder_worker.models.model_error import UnsupportedModel


@dataclass(frozen=True, slots=True)
class Rotation:
    """How positions rotate queries and keys.

    frequencies: `[num_rotated_pairs]`, radians a position, each exact in float32; fewer than half the dimensions of a
    head where the rest of it is not rotated. attention_factor: multiplies cosines and sines. context_tokens: the
    longest sequence that is rotated so.
    """

    frequencies: tuple[float, ...]
    attention_factor: float
    context_tokens: int

    @classmethod
    def none(cls, context_tokens: int) -> "Rotation":
        """The rotation of a layer that has none: every position leaves queries and keys as they are."""
        return cls((), 1.0, context_tokens)

    @classmethod
    def of(
        cls, rope: Mapping[str, Any], head_dim: int, context_tokens: int, where: str, *, in_part: bool = False
    ) -> "Rotation":
        """The rotation of the fields of `rope_parameters`. Raises UnsupportedModel, which names the kind.

        Also raises KeyError, TypeError and ValueError for fields that are missing or wrong. context_tokens: the
        config's own limit. where: the path of the config. in_part: a part of each head may be rotated alone.
        """
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if any(isinstance(value, Mapping) for value in rope.values()):
            raise UnsupportedModel(f"{where}: rope_parameters that differ by the type of layer are not supported")
        if kind not in _KINDS:
            supported = ", ".join(map(repr, _KINDS))
            raise UnsupportedModel(f"{where}: rope type {kind!r} is not supported; supported: {supported}")
        part = float(rope.get("partial_rotary_factor") or 1.0)
        if part != 1.0 and kind != "proportional":
            if not in_part:
                raise UnsupportedModel(
                    f"{where}: rope type {kind!r} with partial_rotary_factor {part} is not supported; supported: 1.0"
                )
            head_dim = int(head_dim * part)
        inputs = _Inputs(rope, float(rope.get("rope_theta") or 10000.0), head_dim, context_tokens, part)
        frequencies, attention_factor = _KINDS[kind](inputs)
        if len(frequencies) != head_dim // 2:
            raise ValueError(f"rope type {kind!r} has {len(frequencies)} factors for {head_dim // 2} pairs")
        return cls(
            tuple(frequencies.tolist()),
            attention_factor,
            min(context_tokens, inputs.original_tokens) if kind == "longrope" else context_tokens,
        )

    def table(self, num_pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines, each float32 `[context_tokens, num_pairs]`; 1 and 0 where nothing is rotated."""
        cosine, sine = torch.ones(self.context_tokens, num_pairs), torch.zeros(self.context_tokens, num_pairs)
        positions = torch.arange(self.context_tokens, dtype=torch.float32)
        angle = torch.outer(positions, torch.tensor(self.frequencies, dtype=torch.float32))
        cosine[:, : len(self.frequencies)] = angle.cos().mul_(self.attention_factor)
        sine[:, : len(self.frequencies)] = angle.sin().mul_(self.attention_factor)
        return cosine, sine


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of the formulas. part: the rotated part of each head."""

    rope: Mapping[str, Any]
    theta: float
    head_dim: int
    context_tokens: int
    part: float

    @property
    def original_tokens(self) -> int:
        """The longest sequence that the model was trained for before it was extended."""
        return int(self.rope.get("original_max_position_embeddings") or self.context_tokens)

    @property
    def powers(self) -> torch.Tensor:
        """The powers of theta: the inverses of the frequencies, without any scaling."""
        return self.theta ** (torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)

    def number(self, name: str, default: float | None = None) -> float:
        """A field. Raises KeyError if it is missing or null, and there is no default."""
        value = self.rope.get(name)
        if value is None:
            value = default
        if value is None:
            raise KeyError(name)
        return float(value)


_Scaled = tuple[torch.Tensor, float]
"""Frequencies and attention factor."""


def _default(inputs: _Inputs) -> _Scaled:
    return 1.0 / inputs.powers, 1.0


def _linear(inputs: _Inputs) -> _Scaled:
    return 1.0 / inputs.powers / inputs.number("factor"), 1.0


def _dynamic(inputs: _Inputs) -> _Scaled:
    """Without effect up to the config's limit, which no sequence passes here."""
    inputs.number("factor")
    return _default(inputs)


def _proportional(inputs: _Inputs) -> _Scaled:
    """Rotates the first part of the pairs only (https://ai.google.dev/gemma)."""
    frequencies = 1.0 / inputs.powers
    frequencies[int(inputs.part * inputs.head_dim // 2) :] = 0
    return frequencies / inputs.number("factor", 1.0), 1.0


def _llama3(inputs: _Inputs) -> _Scaled:
    """Divide low frequencies, keep high ones, blend those between (https://arxiv.org/abs/2407.21783, 3.4.3)."""
    factor, original = inputs.number("factor"), inputs.original_tokens
    low, high = inputs.number("low_freq_factor"), inputs.number("high_freq_factor")
    frequencies = 1.0 / inputs.powers
    wavelengths = 2 * math.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    blended = (1 - smooth) * frequencies / factor + smooth * frequencies
    scaled = torch.where(wavelengths > original / low, frequencies / factor, frequencies)
    is_between = (wavelengths >= original / high) & (wavelengths <= original / low)
    return torch.where(is_between, blended, scaled), 1.0


def _yarn(inputs: _Inputs) -> _Scaled:
    """Divide slow rotations, keep fast ones, ramp between (https://arxiv.org/abs/2309.00071)."""
    original, dim = inputs.original_tokens, inputs.head_dim
    factor = inputs.number("factor", inputs.context_tokens / original)
    ends = [
        dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(inputs.theta))
        for turns in (inputs.rope.get("beta_fast") or 32, inputs.rope.get("beta_slow") or 1)
    ]
    if inputs.rope.get("truncate", True):
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], dim - 1)
    if first == last:
        last += 0.001
    keep = 1 - ((torch.arange(dim // 2, dtype=torch.float32) - first) / (last - first)).clamp(0, 1)
    powers = inputs.powers
    return 1.0 / (factor * powers) * (1 - keep) + 1.0 / powers * keep, _yarn_attention_factor(inputs, factor)


def _yarn_attention_factor(inputs: _Inputs, factor: float) -> float:
    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    given, weights = inputs.rope.get("attention_factor"), [inputs.rope.get(n) for n in ("mscale", "mscale_all_dim")]
    if given is not None:
        return float(given)
    return scale(weights[0]) / scale(weights[1]) if weights[0] and weights[1] else scale(1.0)


def _longrope(inputs: _Inputs) -> _Scaled:
    """A factor for every pair of dimensions (https://arxiv.org/abs/2402.13753): the short ones.

    The long ones hold for sequences beyond the original length, and for all tokens of them: once a sequence grows
    beyond it, all its keys would have to be computed anew. So sequences end there.
    """
    original = inputs.original_tokens
    factor = inputs.number("factor", inputs.context_tokens / original)
    natural = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    short = torch.tensor(inputs.rope["short_factor"], dtype=torch.float32)
    if len(short) != inputs.head_dim // 2:
        return short, 1.0  # of a wrong length, which the caller refuses
    return 1.0 / (short * inputs.powers), inputs.number("attention_factor", natural)


_KINDS: Mapping[str, Callable[[_Inputs], _Scaled]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
    "proportional": _proportional,
}
