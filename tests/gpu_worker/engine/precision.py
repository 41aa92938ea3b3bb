"""The precisions an engine may compute in. What its users rely on holds in all of them."""

from typing import Any

import pytest
import torch

from ponder_worker.models.int8 import can_multiply
from ponder_worker.models.kv_pages import FP8

INT8 = pytest.mark.skipif(not can_multiply(), reason="torch has no exact int8 operators here")
PRECISIONS: list[Any] = [
    pytest.param({}, id="float32"),
    pytest.param({"kv_dtype": FP8}, id="fp8"),
    pytest.param({"dtype": torch.int8}, id="int8", marks=INT8),
]
"""Keyword arguments of `Engine.load`."""
