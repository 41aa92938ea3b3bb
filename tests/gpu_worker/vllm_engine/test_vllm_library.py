"""vLLM's engine arguments by their own names, read by vLLM itself."""

from typing import Any

import pytest
from vllm_build import NEEDS_VLLM

from ponder_worker.engine.engine_error import InvalidSetting

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300), NEEDS_VLLM]


@pytest.fixture(scope="module", autouse=True)
def prepared() -> None:
    from ponder_worker.vllm_engine import vllm_library

    vllm_library.prepare("auto")


def test_values_are_read_as_vllm_reads_them() -> None:
    from ponder_worker.vllm_engine.vllm_library import parse_args

    values: dict[str, Any] = parse_args(
        [
            "tensor_parallel_size=8",
            "quantization=gptq",
            "kv-cache-dtype=fp8",
            "max_model_len=4k",
            "enforce_eager=true",
            "enable_expert_parallel=false",
            'hf_overrides={"rope_theta": 10000.0}',
            "distributed_executor_backend=ray",
        ]
    )
    assert values == {
        "tensor_parallel_size": 8,
        "quantization": "gptq",
        "kv_cache_dtype": "fp8",
        "max_model_len": 4000,
        "enforce_eager": True,
        "enable_expert_parallel": False,
        "hf_overrides": {"rope_theta": 10000.0},
        "distributed_executor_backend": "ray",
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tensor_paralel_size=8", "did you mean tensor_parallel_size"),
        ("tensor_parallel_size=many", "invalid int value"),
        ("tensor_parallel_size", "NAME=VALUE"),
        ("kv_cache_dtype=int3", "invalid choice"),
        ("scheduling_policy=fcfs", "not to be changed"),
        ("model=other", "--model"),
        ("zzz=1", "no engine argument of this name"),
    ],
)
def test_what_vllm_does_not_know_is_refused_with_a_hint(given: str, said: str) -> None:
    from ponder_worker.vllm_engine.vllm_library import parse_args

    with pytest.raises(InvalidSetting, match=said):
        parse_args([given])
