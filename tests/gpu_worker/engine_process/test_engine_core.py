"""Progress, as the lease understands it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.loading.engines import Engines


def test_a_step_in_which_nothing_was_computed_is_no_progress() -> None:
    """An engine that cannot admit what waits must not keep its lease for ever."""
    outputs: list[Any] = []
    generator = SimpleNamespace(has_work=True, step=lambda: outputs, flops_per_token=1)
    core = EngineCore(
        cast("Engines", SimpleNamespace(generator=generator, reward=None, flops_per_byte=1.0)), lambda: None
    )
    core.step()
    assert core.num_steps == 0
    outputs.append(SimpleNamespace(sequence=None, computed_tokens=1))
    core.step()
    assert core.num_steps == 1
