"""How much memory keys and values get."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ponder_worker.engine import InvalidSetting
from ponder_worker.engine.step import peak_memory
from ponder_worker.engine_process.loading import memory_sizes
from ponder_worker.engine_process.loading.engine_options import EngineOptions

ON_GPU: Any = SimpleNamespace(device=torch.device("cuda"), kv_bytes_per_token=1000)


@pytest.mark.parametrize("gigabytes", [0, 1, 2])
def test_a_gpu_that_the_weights_fill_is_refused_with_its_sizes(monkeypatch: pytest.MonkeyPatch, gigabytes: int) -> None:
    monkeypatch.setattr(peak_memory, "room_for_kv", lambda *_, **__: gigabytes << 30)
    with pytest.raises(InvalidSetting, match=f"has {gigabytes << 30} bytes .* at least {2 * 16 * 1000} more"):
        memory_sizes.kv_bytes([ON_GPU, ON_GPU], EngineOptions(model=""))


def test_what_a_step_needs_beside_the_weights_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "room_for_kv", lambda *_, **__: 3 << 30)
    assert memory_sizes.kv_bytes([ON_GPU], EngineOptions(model="")) == 1 << 30


@pytest.mark.parametrize(
    ("free", "num_models", "parked"),
    [(64 << 30, 1, 4 << 30), (8 << 30, 1, 2 << 30), (8 << 30, 2, 1 << 30), (1 << 29, 1, 0), (0, 1, 0)],
)
def test_preempted_pages_take_a_part_of_what_the_host_has_free(
    monkeypatch: pytest.MonkeyPatch, free: int, num_models: int, parked: int
) -> None:
    monkeypatch.setattr(memory_sizes, "available_bytes", lambda: free)
    assert memory_sizes.parked_bytes([ON_GPU] * num_models) == parked


@pytest.mark.parametrize(("free", "num_models"), [(15 << 30, 1), ((8 << 30) - 1, 1), (5 << 30, 2)])
def test_what_torch_pins_for_preempted_pages_is_within_their_part(
    monkeypatch: pytest.MonkeyPatch, free: int, num_models: int
) -> None:
    """It rounds up to a power of two."""
    monkeypatch.setattr(memory_sizes, "available_bytes", lambda: free)
    room = memory_sizes.parked_bytes([ON_GPU] * num_models)
    pinned = 1 << (room - 1).bit_length()
    assert free / 8 < num_models * pinned <= free / 4
