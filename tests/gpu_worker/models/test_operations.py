"""The operations between matrix products as fused kernels, against torch's operators."""

import pytest
import torch

from ponder_worker.models.checkpoint.family import Activation
from ponder_worker.models.kv_pages import FP8, Pages
from ponder_worker.models.operations import ForwardContext, FusedOperations, TorchOperations


@pytest.mark.parametrize("activation", ["silu", "gelu"])
@pytest.mark.parametrize("kv_dtype", [torch.float32, FP8])
@pytest.mark.parametrize("normed", [False, True])
def test_fused_operations_are_those_of_torch(normed: bool, kv_dtype: torch.dtype, activation: Activation) -> None:
    torch.manual_seed(1)
    context = ForwardContext(
        torch.tensor([3, 0, 7, 7]), torch.tensor([5, -1, 17, 30]), torch.rand(8, 8), torch.rand(8, 8), epsilon=1e-6
    )
    rows, norms = torch.randn(4, 6 * 16), (torch.rand(16), torch.rand(16)) if normed else (None, None)
    found = []
    for operations in (TorchOperations(activation), FusedOperations(activation)):
        pages, qkv = Pages.zeros((2, 2, 1, 16, 16), kv_dtype, rows.device), rows.clone()
        queries = operations.rotate_and_write(qkv, pages, context, norms)
        hidden = rows.clone()
        normalised = operations.add_and_normalise(hidden, rows.flip(0), torch.arange(96.0), 1e-6)
        first = operations.add_and_normalise(rows, None, torch.arange(96.0), 1e-6)
        found.append((queries, *pages.parts, hidden, normalised, first, operations.gate(rows)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert bool(found[0][1].any())


def test_norms_of_heads_and_rows_may_be_in_float32_beside_bfloat16() -> None:
    """Gemma's are 1 + weight, which bfloat16 would round."""
    rows, weight = torch.randn(4, 96), 1 + torch.rand(96) / 100
    found = TorchOperations().add_and_normalise(rows.bfloat16(), None, weight, 1e-6)
    assert found.dtype == torch.bfloat16
    exact = torch.nn.functional.rms_norm(rows.bfloat16().float(), (96,), weight, 1e-6)
    torch.testing.assert_close(found, exact.bfloat16(), atol=0, rtol=0)
