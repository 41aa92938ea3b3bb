"""How much memory keys and values get."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ponder_worker.engine import InvalidSetting
from ponder_worker.engine_process.loading import memory_sizes
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.models.transformer import Transformer

MEMINFO = "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\n"
ON_GPU: Any = SimpleNamespace(device=torch.device("cuda"), page_bytes_per_token=1000)


@pytest.mark.parametrize("gigabytes", [0, 1, 2])
def test_a_gpu_that_the_weights_fill_is_refused_with_its_sizes(monkeypatch: pytest.MonkeyPatch, gigabytes: int) -> None:
    monkeypatch.setattr(memory_sizes, "room_for_kv", lambda *_, **__: gigabytes << 30)
    with pytest.raises(InvalidSetting, match=f"has {gigabytes << 30} bytes .* at least {2 * 16 * 1000} more"):
        memory_sizes.kv_bytes([ON_GPU, ON_GPU], EngineOptions(model=""))


def test_what_a_step_needs_beside_the_weights_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_sizes, "room_for_kv", lambda *_, **__: 3 << 30)
    assert memory_sizes.kv_bytes([ON_GPU], EngineOptions(model="")) == 1 << 30


@pytest.mark.parametrize(
    ("free", "num_models", "offloaded"),
    [(64 << 30, 1, 4 << 30), (8 << 30, 1, 2 << 30), (8 << 30, 2, 1 << 30), (1 << 29, 1, 0), (0, 1, 0)],
)
def test_preempted_pages_take_a_part_of_what_the_host_has_free(
    monkeypatch: pytest.MonkeyPatch, free: int, num_models: int, offloaded: int
) -> None:
    monkeypatch.setattr(memory_sizes, "available_bytes", lambda: free)
    assert memory_sizes.offload_bytes([ON_GPU] * num_models) == offloaded


@pytest.mark.parametrize(("free", "num_models"), [(15 << 30, 1), ((8 << 30) - 1, 1), (5 << 30, 2)])
def test_what_torch_pins_for_preempted_pages_is_within_their_part(
    monkeypatch: pytest.MonkeyPatch, free: int, num_models: int
) -> None:
    """It rounds up to a power of two."""
    monkeypatch.setattr(memory_sizes, "available_bytes", lambda: free)
    room = memory_sizes.offload_bytes([ON_GPU] * num_models)
    pinned = 1 << (room - 1).bit_length()
    assert free / 8 < num_models * pinned <= free / 4


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Transformer:
    return Transformer.load(tiny_llama, dtype=torch.float32, device=torch.device("cpu"))


def test_the_largest_step_computes_all_tokens_and_draws_all_rows(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda tokens, *rest: rows.append(len(tokens)) or forward(tokens, *rest))
    tokens, logprobs = memory_sizes.largest_step(model, step_tokens=100, num_sequences=130, page_size=16)
    assert rows == [100]
    assert len(tokens) == len(logprobs) == 130
    assert bool(logprobs.isfinite().all())


def test_keys_and_values_get_what_is_free_less_the_largest_step(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = {"memory_allocated": 500, "max_memory_allocated": 700, "mem_get_info": (10_000, 20_000)}
    for name, value in readings.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    for name in ("reset_peak_memory_stats", "synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    ran = []
    monkeypatch.setattr(memory_sizes, "largest_step", lambda model, **_: ran.append(model))
    assert memory_sizes.room_for_kv([model, model], step_tokens=100, num_sequences=8, page_size=16) == 10_000 - 220
    assert ran == [model, model]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "kibibytes"),
    [
        ({}, 8000),
        ({"memory.max": "max\n", "memory.current": "4096\n"}, 8000),
        ({"memory.max": "2048000\n", "memory.current": "1024000\n"}, 1000),
        ({"memory.max": "1024\n", "memory.current": "2048\n"}, 0),
        ({"memory/memory.limit_in_bytes": "2048000\n", "memory/memory.usage_in_bytes": "0\n"}, 2000),
    ],
)
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, files: dict[str, str], kibibytes: int) -> None:
    proc = write(tmp_path / "proc", {"meminfo": MEMINFO})
    groups = write(tmp_path / "groups", files)
    assert memory_sizes.available_bytes(proc=proc, groups=groups) == kibibytes << 10


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory.max": "2048000\n",
            "memory.current": "2048000\n",
            "memory.stat": "anon 512000\ninactive_file 1024000\nactive_file 512000\n",
        },
        {
            "memory/memory.limit_in_bytes": "2048000\n",
            "memory/memory.usage_in_bytes": "2048000\n",
            "memory/memory.stat": "inactive_file 7\ntotal_rss 512000\ntotal_inactive_file 1024000\n",
        },
    ],
)
def test_weights_just_read_from_files_leave_a_container_as_much_as_before(
    tmp_path: Path, files: dict[str, str]
) -> None:
    proc = write(tmp_path / "proc", {"meminfo": MEMINFO})
    assert memory_sizes.available_bytes(proc=proc, groups=write(tmp_path / "groups", files)) == 1000 << 10


def test_where_the_system_does_not_say_there_is_none(tmp_path: Path) -> None:
    assert memory_sizes.available_bytes(proc=tmp_path, groups=tmp_path) == 0
