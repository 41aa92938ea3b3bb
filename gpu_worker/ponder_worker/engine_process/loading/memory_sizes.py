"""The memory for keys and values: on the device, and on the host for those of preempted sequences."""

from __future__ import annotations

import os
from collections.abc import Sequence as Series
from dataclasses import dataclass
from pathlib import Path

import torch

from ponder_kernels import sample
from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.models.transformer import Transformer

_HEADROOM = 1.1  # the allocator's blocks do not fit together without gaps
_CPU_KV_BYTES = 1 << 30
_SPARE_BYTES = 2 << 30
"""Kept free on a GPU for what a step needs beside weights, keys and values, and for what captured steps keep."""
_OFFLOAD_SHARE, _LEAST_OFFLOAD_BYTES, _MOST_OFFLOAD_BYTES = 4, 256 << 20, 4 << 30
"""The fraction of the host's free memory for pages of sequences that a GPU preempted, and bounds per model.

It is pinned, and taken at the start. Below the lower bound none is taken.
"""
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""For cgroups v2 and v1: a container's limit, its use, its statistics, and the field there of droppable file cache."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of all models' memory.

    shared_bytes: memory that the models trade; None if each has a fixed part. num_pages: per model, the pages of its
    fixed part, or 0. num_offload_pages: per model, the pages in host memory.
    """

    shared_bytes: int | None
    num_pages: list[int]
    num_offload_pages: list[int]


def sizes(models: Series[Transformer], options: EngineOptions) -> Sizes:
    """Lets two models trade one memory, unless options fix the parts. Call it once the weights are loaded.

    Raises InvalidSetting if they leave no page for each model.
    """
    room = options.kv_bytes or kv_bytes(models, options)
    page_bytes = [model.page_bytes_per_token * options.page_size for model in models]
    most = [_most_pages(model, options) for model in models]
    on_host = offload_bytes(models)
    num_offload_pages = [on_host // size for size in page_bytes]
    if len(models) > 1 and options.kv_split is None:
        useful = sum(pages * size for pages, size in zip(most, page_bytes, strict=True))
        return Sizes(min(room, useful), [0] * len(models), num_offload_pages)
    share = options.kv_split or 1.0
    parts = (int(room * share), int(room * (1 - share)))
    num_pages = [max(1, min(part // size, pages)) for part, size, pages in zip(parts, page_bytes, most, strict=False)]
    return Sizes(None, num_pages, num_offload_pages)


def kv_bytes(models: Series[Transformer], options: EngineOptions) -> int:
    """Returns the device's bytes for keys and values of all models. Raises InvalidSetting as `sizes` does."""
    if models[0].device.type == "cpu":
        return _CPU_KV_BYTES
    room = room_for_kv(
        models,
        step_tokens=options.max_step_tokens,
        num_sequences=options.max_sequences,
        page_size=options.page_size,
    )
    least = sum(model.page_bytes_per_token for model in models) * options.page_size
    if room - _SPARE_BYTES < least:
        raise InvalidSetting(
            f"the GPU has {room} bytes beside weights and the largest step, of which {_SPARE_BYTES} are kept free; "
            f"keys and values need at least {least} more: max_step_tokens or max_sequences is too large, or the model"
        )
    return room - _SPARE_BYTES


def offload_bytes(models: Series[Transformer]) -> int:
    """Returns the host's bytes for offloaded pages, per model."""
    if models[0].device.type == "cpu":  # its memory is the host's already
        return 0
    room = min(_MOST_OFFLOAD_BYTES, available_bytes() // _OFFLOAD_SHARE // len(models))
    if room < _LEAST_OFFLOAD_BYTES:
        return 0
    return 1 << room.bit_length() - 1  # torch rounds pinned memory up to a power of two, maybe twice the share


def _most_pages(model: Transformer, options: EngineOptions) -> int:
    """Returns twice the pages that all sequences could fill: more would only be a cache of old prefixes."""
    return 2 * options.max_sequences * -(-model.config.context_tokens // options.page_size)


def room_for_kv(models: Series[Transformer], *, step_tokens: int, num_sequences: int, page_size: int) -> int:
    """Returns the bytes that are free once the weights are loaded, less what the largest step of any model takes."""
    device = models[0].device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for model in models:
        largest_step(model, step_tokens=step_tokens, num_sequences=num_sequences, page_size=page_size)
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    torch.cuda.empty_cache()
    return max(0, torch.cuda.mem_get_info(device)[0] - int(_HEADROOM * peak))


@torch.inference_mode()
def largest_step(
    model: Transformer, *, step_tokens: int, num_sequences: int, page_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes a prefill of step_tokens, and samples num_sequences rows. Returns ids and log-probabilities.

    It writes no keys or values, and reads those of one page of zeros.
    """
    step_tokens = min(step_tokens, model.config.context_tokens)
    pages = model.new_pages(1, page_size)
    length = torch.tensor([step_tokens])
    table = torch.zeros((1, -(-step_tokens // page_size)), dtype=torch.int64)
    layouts = model.layouts(length, length, table, pages)
    positions = torch.arange(step_tokens, device=model.device)
    hidden = model.forward(torch.zeros_like(positions), positions, torch.full_like(positions, -1), layouts, pages)
    logits = model.logits(hidden[torch.arange(num_sequences, device=model.device) % step_tokens])
    zero = torch.zeros(num_sequences, device=model.device)
    integer_zero = zero.long()
    return sample.op(
        logits,
        sample.SamplingTensors(zero, integer_zero, zero + 1, zero, integer_zero, integer_zero, zero, zero),
    )


def available_bytes(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns what can be taken without swapping and within a container's limit; 0 if the system does not say.

    Caches that the kernel would give up count as free.
    """
    left = [_field(proc / "meminfo", "MemAvailable:") << 10]
    for limit, used, told, cached in _GROUPS:
        most, taken = _number(groups / limit), _number(groups / used)
        if most is not None and taken is not None:
            left.append(most - taken + _field(groups / told, cached))  # weights just read from files are in that cache
    return max(0, min(left))


def held_bytes(*, proc: Path = Path("/proc")) -> int:
    """Returns what this process has allocated on GPUs, or where it uses none, what of it is resident."""
    if torch.cuda.is_available():
        return sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count())))
    statm = proc / "self/statm"
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0


def _field(path: Path, name: str) -> int:
    """Returns the number behind a name at the start of a line; 0 if there is no such line."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _number(path: Path) -> int | None:
    """Returns the number in a file; None if there is none, as in "max"."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None
