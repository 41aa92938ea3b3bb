"""How much memory keys and values get: of the device, and of the host for those of preempted sequences."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass

from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.step import peak_memory
from ponder_worker.engine_process.host_memory import available_bytes
from ponder_worker.engine_process.options import EngineOptions
from ponder_worker.models.transformer import Transformer

_CPU_KV_BYTES = 1 << 30
_SPARE_BYTES = 2 << 30
"""Of a GPU's memory, for what a step needs beside weights, keys and values, and what captured steps keep."""
_PARKED_SHARE, _LEAST_PARKED_BYTES, _MOST_PARKED_BYTES = 4, 256 << 20, 4 << 30
"""One part in so many of what the host has free, for pages of sequences that a GPU preempted; less than the least is
none, and the most is a model's. It is pinned, and taken at the start."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """shared_bytes: that the models trade; None where each has its part for good. num_pages: of that part, 0 where
    there is none; num_parked: pages in host memory. Both a model each."""

    shared_bytes: int | None
    num_pages: list[int]
    num_parked: list[int]


def sizes(models: Series[Transformer], options: EngineOptions) -> Sizes:
    """Two models trade one memory, unless each has its part for good. To be asked for when the weights are there.

    Raises InvalidSetting where they leave no page for each.
    """
    room = options.kv_bytes or kv_bytes(models, options)
    page_bytes = [model.kv_bytes_per_token * options.page_size for model in models]
    most = [_most_pages(model, options) for model in models]
    parked = parked_bytes(models)
    num_parked = [parked // size for size in page_bytes]
    if len(models) > 1 and options.kv_split is None:
        useful = sum(pages * size for pages, size in zip(most, page_bytes, strict=True))
        return Sizes(min(room, useful), [0] * len(models), num_parked)
    share = options.kv_split or 1.0
    parts = (int(room * share), int(room * (1 - share)))
    num_pages = [max(1, min(part // size, pages)) for part, size, pages in zip(parts, page_bytes, most, strict=False)]
    return Sizes(None, num_pages, num_parked)


def kv_bytes(models: Series[Transformer], options: EngineOptions) -> int:
    """Of the device, for keys and values of all models. Raises InvalidSetting as `sizes` does."""
    if models[0].device.type == "cpu":
        return _CPU_KV_BYTES
    room = peak_memory.room_for_kv(
        models,
        step_tokens=options.max_step_tokens,
        num_sequences=options.max_sequences,
        page_size=options.page_size,
    )
    least = sum(model.kv_bytes_per_token for model in models) * options.page_size
    if room - _SPARE_BYTES < least:
        raise InvalidSetting(
            f"the GPU has {room} bytes beside weights and the largest step, of which {_SPARE_BYTES} are kept free; "
            f"keys and values need at least {least} more: max_step_tokens or max_sequences is too large, or the model"
        )
    return room - _SPARE_BYTES


def parked_bytes(models: Series[Transformer]) -> int:
    """Of the host, a model."""
    if models[0].device.type == "cpu":  # whose memory is the host's
        return 0
    room = min(_MOST_PARKED_BYTES, available_bytes() // _PARKED_SHARE // len(models))
    if room < _LEAST_PARKED_BYTES:
        return 0
    return 1 << room.bit_length() - 1  # torch rounds what it pins up to a power of two, which could be twice the share


def _most_pages(model: Transformer, options: EngineOptions) -> int:
    """That all sequences could fill, twice: what is over would only be a cache of old prefixes."""
    return 2 * options.max_sequences * -(-model.config.context_tokens // options.page_size)
