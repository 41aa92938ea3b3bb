"""The memory for keys and values: on the device, and on the host for those of preempted sequences."""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass

from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine.step import peak_memory
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.host_memory import available_bytes
from ponder_worker.models.transformer import Transformer

_CPU_KV_BYTES = 1 << 30
_SPARE_BYTES = 2 << 30
"""Kept free on a GPU for what a step needs beside weights, keys and values, and for what captured steps keep."""
_PARKED_SHARE, _LEAST_PARKED_BYTES, _MOST_PARKED_BYTES = 4, 256 << 20, 4 << 30
"""The fraction of the host's free memory for pages of sequences that a GPU preempted, and bounds per model.

It is pinned, and taken at the start. Below the lower bound none is taken.
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of all models' memory.

    shared_bytes: memory that the models trade; None if each has a fixed part. num_pages: per model, the pages of its
    fixed part, or 0. num_parked: per model, the pages in host memory.
    """

    shared_bytes: int | None
    num_pages: list[int]
    num_parked: list[int]


def sizes(models: Series[Transformer], options: EngineOptions) -> Sizes:
    """Lets two models trade one memory, unless options fix the parts. Call it once the weights are loaded.

    Raises InvalidSetting if they leave no page for each model.
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
    """Returns the device's bytes for keys and values of all models. Raises InvalidSetting as `sizes` does."""
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
    """Returns the host's bytes for parked pages, per model."""
    if models[0].device.type == "cpu":  # its memory is the host's already
        return 0
    room = min(_MOST_PARKED_BYTES, available_bytes() // _PARKED_SHARE // len(models))
    if room < _LEAST_PARKED_BYTES:
        return 0
    return 1 << room.bit_length() - 1  # torch rounds pinned memory up to a power of two, maybe twice the share


def _most_pages(model: Transformer, options: EngineOptions) -> int:
    """Returns twice the pages that all sequences could fill: more would only be a cache of old prefixes."""
    return 2 * options.max_sequences * -(-model.config.context_tokens // options.page_size)
