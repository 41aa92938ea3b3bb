from pathlib import Path

import pytest
import torch

from ponder_worker.engine.step import peak_memory
from ponder_worker.engine.step.peak_memory import largest_step, room_for_kv
from ponder_worker.models.transformer import Transformer


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> Transformer:
    return Transformer.load(tiny_llama, dtype=torch.float32, device=torch.device("cpu"))


def test_the_largest_step_computes_all_tokens_and_draws_all_rows(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda tokens, *rest: rows.append(len(tokens)) or forward(tokens, *rest))
    tokens, logprobs = largest_step(model, step_tokens=100, num_sequences=130, page_size=16)
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
    monkeypatch.setattr(peak_memory, "largest_step", lambda model, **_: ran.append(model))
    assert room_for_kv([model, model], step_tokens=100, num_sequences=8, page_size=16) == 10_000 - 220
    assert ran == [model, model]
