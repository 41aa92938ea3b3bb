import pytest
import torch
import torch.nn.functional as F

from ponder_worker.models import linear as module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7, 64, 300])
def test_a_product_with_weights_laid_out_once_is_the_public_one(dtype: torch.dtype, rows: int) -> None:
    chance = torch.Generator().manual_seed(rows)
    weight = torch.randn(96, 64, generator=chance).to(dtype)
    bias = torch.randn(96, generator=chance).to(dtype)
    x = torch.randn(rows, 64, generator=chance).to(dtype)
    with torch.inference_mode():
        for given in (bias, None):
            found = module.linear(weight, given)(x)
            torch.testing.assert_close(found, F.linear(x, weight, given), atol=0.02, rtol=0.02)


def test_without_the_private_operators_the_public_one_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_prepack", lambda: False)
    weight, x = torch.randn(8, 4).bfloat16(), torch.randn(3, 4).bfloat16()
    assert torch.equal(module.linear(weight, None)(x), F.linear(x, weight))
