import pytest
import torch
import torch.nn.functional as F

from ponder_worker.models import linear as module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 7, 16, 31, 33, 64, 300])
@pytest.mark.parametrize("sizes", [(96, 64), (48, 160), (40, 24), (1200, 960)])
def test_a_product_with_weights_laid_out_once_is_the_public_one(
    dtype: torch.dtype, rows: int, sizes: tuple[int, int]
) -> None:
    chance = torch.Generator().manual_seed(rows)
    weight = torch.randn(*sizes, generator=chance).to(dtype)
    bias = torch.randn(sizes[0], generator=chance).to(dtype)
    x = (torch.randn(rows, sizes[1], generator=chance) / 8).to(dtype)
    with torch.inference_mode():
        for given in (bias, None):
            found = module.linear(weight, given)(x)
            torch.testing.assert_close(found, F.linear(x, weight, given), atol=0.03, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_floats_that_no_c_multiplies_are_laid_out_for_onednn(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not module.can_prepack(dtype):
        pytest.skip("torch has no operators that lay weights out")
    monkeypatch.setattr(module, "product", lambda weight, bias, *, as_float32: None)
    assert not isinstance(module.linear(torch.zeros(48, 64, dtype=dtype), None), module.Plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_the_private_operators_the_public_one_computes(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "can_prepack", lambda dtype: False)
    monkeypatch.setattr(module, "product", lambda weight, bias, *, as_float32: None)
    weight, x = torch.randn(8, 4).to(dtype), torch.randn(3, 4).to(dtype)
    assert torch.equal(module.linear(weight, None)(x), F.linear(x, weight))
