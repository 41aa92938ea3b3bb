"""Matrix products in C."""

import pytest
import torch
import torch.nn.functional as F

from ponder_worker.models.native.products import product


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("sizes", [(1200, 960), (64, 9728)])
def test_a_row_of_a_large_product_has_the_bits_it_has_alone(sizes: tuple[int, int], num_threads: int) -> None:
    chance = torch.Generator().manual_seed(0)
    weight = torch.randn(*sizes, generator=chance).bfloat16()
    multiply = product(weight, None)
    if multiply is None:
        pytest.skip("no AMX and no AVX512-BF16")
    x = (torch.randn(1100, sizes[1], generator=chance) / 8).bfloat16()
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        found = multiply(x)
        for first, end in ((0, 1), (31, 48), (500, 700), (1099, 1100)):
            assert torch.equal(multiply(x[first:end]), found[first:end])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found, F.linear(x, weight), atol=0.03, rtol=0.02)


def test_float32_outputs_are_the_rounded_ones() -> None:
    chance = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(*size, generator=chance).bfloat16() for size in ((80, 64), (80,)))
    narrow, wide = (product(weight, bias, as_float32=as_float32) for as_float32 in (False, True))
    if narrow is None or wide is None:
        pytest.skip("no AMX and no AVX512-BF16")
    x = torch.randn(45, 64, generator=chance).bfloat16()
    assert wide(x).dtype == torch.float32
    assert torch.equal(wide(x), narrow(x).float())
