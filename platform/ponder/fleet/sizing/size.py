"""Sizes a model on GPUs: what fits, and how fast it can be by the roofline of the GPU.

The roofline (https://doi.org/10.1145/1498765.1498785) is a bound that nothing exceeds: a step takes at least as long as
its operations at the peak rate, and as its reads at the full bandwidth of the memory. Communication between GPUs and
everything a GPU does not do at once come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from ponder.errors import InvalidInput
from ponder.fleet.sizing.gpu import Gpu
from ponder.fleet.sizing.model_shape import ModelShape

BITS = {"bf16": 16, "fp8": 8, "int4": 4}
USABLE = Fraction(9, 10)
"""The share of a GPU's memory for weights, keys and values. The rest is for activations, CUDA's context and graphs."""
USEFUL_BATCH = 8
"""Fewer sequences than this share each read of the weights so badly that more GPUs are the better use of money."""
MAX_BATCH = 256
"""The most sequences that a worker computes at a time by default (`--max-sequences`)."""
_PARALLEL = (1, 2, 4, 8)
"""The GPUs of one machine: tensor parallelism across machines is too slow to be worth it."""
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Model:
    """A model in the precision that it is served in, and the context that its sequences are given."""

    shape: ModelShape
    weight_bits: int
    kv_bits: int
    context: int

    def __post_init__(self) -> None:
        if self.context < 1:
            raise InvalidInput(f"a context of {self.context} tokens is none", param="context")

    @property
    def weight_bytes(self) -> int:
        return _bytes(self.shape.weights.total * self.weight_bits)

    @property
    def kv_bytes_per_token(self) -> int:
        """The bytes of one token's keys and values in all layers, while no window is full."""
        return _bytes(self.shape.elements_per_token * self.kv_bits)

    @property
    def kv_bytes_per_sequence(self) -> int:
        return _bytes(self.shape.elements(self.context) * self.kv_bits)


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on `num_gpus` GPUs by tensor parallelism.

    num_sequences: how many of the model's context fit at a time. batch: how many of them are computed at a time. Rates
    are upper bounds, in tokens a second of all GPUs together, and 0 where nothing fits.
    """

    gpu: Gpu
    num_gpus: int
    num_sequences: int
    batch: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float

    @property
    def is_useful(self) -> bool:
        return self.num_sequences >= USEFUL_BATCH

    def nanodollars_per_million(self, nanodollars_per_hour: int, tokens_per_s: float) -> float:
        """Returns the price of a million tokens at a rate, if one GPU costs so much an hour."""
        return nanodollars_per_hour * self.num_gpus / _HOUR_S / tokens_per_s * 1e6


def fit(model: Model, gpu: Gpu, num_gpus: int, usable: Fraction = USABLE) -> Fit:
    """Returns what fits on so many GPUs, with `usable` of each one's memory, and how fast it can be."""
    room = int(gpu.memory_bytes * usable) - -(-model.weight_bytes // num_gpus)
    sequence_bytes = _sequence_bytes_per_gpu(model, num_gpus)
    num_sequences = max(0, room // sequence_bytes)
    batch = min(num_sequences, MAX_BATCH)
    if batch == 0:
        return Fit(gpu, num_gpus, 0, 0, 0.0, 0.0)
    flops = num_gpus * gpu.flops(model.weight_bits)
    read_bytes = model.shape.weights.used(batch) * model.weight_bits / 8 / num_gpus + batch * sequence_bytes
    step_s = max(read_bytes / gpu.bytes_per_s, batch * model.shape.decode_flops(model.context) / flops)
    return Fit(gpu, num_gpus, num_sequences, batch, batch / step_s, flops / model.shape.prefill_flops(model.context))


def fits(model: Model, gpu: Gpu) -> Iterator[Fit]:
    """Yields the fit on one GPU and on as many as can divide the heads."""
    heads, kv_heads = model.shape.num_heads, model.shape.num_kv_heads
    for num_gpus in _PARALLEL:
        if heads % num_gpus == 0 and (kv_heads % num_gpus == 0 or num_gpus % kv_heads == 0):
            yield fit(model, gpu, num_gpus)


def recommend(model: Model, gpu: Gpu) -> Fit | None:
    """Returns the smallest fit that has room for a useful batch, or else the roomiest. None if nothing fits."""
    candidates = list(fits(model, gpu))
    useful = next((candidate for candidate in candidates if candidate.is_useful), None)
    roomiest = useful or max(candidates, key=lambda candidate: candidate.num_sequences)
    return roomiest if roomiest.num_sequences else None


def _sequence_bytes_per_gpu(model: Model, num_gpus: int) -> int:
    """Returns one GPU's part of a sequence: whole heads, so that more GPUs than heads keep the same ones."""
    kv_heads = model.shape.num_kv_heads
    return -(-model.kv_bytes_per_sequence * -(-kv_heads // num_gpus) // kv_heads)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
