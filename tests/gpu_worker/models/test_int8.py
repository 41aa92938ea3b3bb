"""Products of int8 weights and activations."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ponder_worker.engine import Engine, SamplingParams
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import load
from ponder_worker.models import int8
from ponder_worker.models.linear import linear
from ponder_worker.models.model_error import UnsupportedPrecision

needed = pytest.mark.skipif(not int8.can_multiply(), reason="torch has no exact int8 operators here")
SIZES = [(96, 64), (40, 24), (1200, 960)]


@pytest.fixture(params=["C", "torch"])
def quantiser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantiser of the rows: without a compiler it is torch."""
    if request.param == "torch":
        monkeypatch.setattr(int8, "row_quantiser", lambda *widths: None)


@pytest.fixture
def without_operators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(weight: torch.Tensor, scales: torch.Tensor) -> None:
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qlinear_prepack'")

    monkeypatch.setattr(int8, "_prepare", missing)
    int8.can_multiply.cache_clear()
    yield
    int8.can_multiply.cache_clear()


PRODUCT = """
import torch
from ponder_worker.models import int8
for rows in (2, 64, 100):
    int8.linear(torch.randn(128, 96).bfloat16(), None)(torch.randn(rows, 96).bfloat16())
"""


@needed
def test_no_product_falls_back_to_the_reference_of_onednn() -> None:
    """It takes a thousand times as long, and gives the same."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCT],
        check=True,
        env=os.environ | {"ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    products = [line.split(",")[6] for line in done.stdout.splitlines() if ",exec,cpu,matmul," in line]
    assert len(products) == 3
    assert not [name for name in products if name.startswith("ref")]


@needed
@pytest.mark.usefixtures("quantiser")
@pytest.mark.parametrize("rows", [0, 1, 7, 64, 300])
@pytest.mark.parametrize("sizes", SIZES)
def test_a_product_in_int8_is_near_the_exact_one(rows: int, sizes: tuple[int, int]) -> None:
    weight, bias, x = numbers(rows, sizes)
    for given in (bias, None):
        found = linear(weight, given, as_int8=True)(x).float()
        exact = F.linear(x.double(), weight.double(), None if given is None else given.double()).float()
        assert found.shape == exact.shape
        if rows:
            assert (found - exact).norm() < 0.02 * exact.norm()


@needed
@pytest.mark.usefixtures("quantiser")
@pytest.mark.parametrize("sizes", SIZES)
def test_the_bits_of_a_row_do_not_depend_on_the_rows_beside_it(sizes: tuple[int, int]) -> None:
    weight, bias, x = numbers(130, sizes)
    x[1::2] *= 1000
    product = linear(weight, bias, as_int8=True)
    together = product(x)
    for start, end in ((0, 1), (2, 3), (0, 16), (6, 39), (64, 128)):
        assert torch.equal(product(x[start:end]), together[start:end])


@needed
@pytest.mark.usefixtures("quantiser")
def test_rows_of_zeros_are_the_bias_and_large_rows_stay_finite() -> None:
    weight, bias, x = numbers(4, (48, 32))
    x[0], x[1], x[2] = 0, 1e-38, 1e30
    found = linear(weight, bias, as_int8=True)(x)
    assert torch.equal(found[0], bias)
    assert torch.equal(found[1], bias)
    assert found.isfinite().all()


@needed
def test_c_and_torch_make_the_same_numbers_of_a_row() -> None:
    found = int8.row_quantiser(64)
    if found is None:
        pytest.skip("there is no C compiler")
    x = torch.randn(50, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    ours, scales = found.quantise(x)
    theirs, same = int8._TorchQuantiser().quantise(x)
    torch.testing.assert_close(scales, same)
    assert (ours.int() - theirs.int()).abs().max() <= 1
    assert (ours != theirs).float().mean() < 0.01


@needed
def test_a_model_in_int8_says_nearly_what_it_says_in_bfloat16(tiny_llama: Path) -> None:
    tokens = list(range(5, 45))
    said = {}
    for dtype in (torch.bfloat16, torch.int8):
        engine = Engine.load(tiny_llama, dtype=dtype, num_pages=64)
        sequence = engine.score(tokens, start=1)
        while engine.has_work:
            engine.step()
        said[dtype] = torch.tensor(sequence.logprobs)
    assert 0 < (said[torch.int8] - said[torch.bfloat16]).abs().max() < 0.3


@needed
def test_a_worker_that_is_asked_for_int8_generates(tiny_llama: Path) -> None:
    engine = load(EngineOptions(model=str(tiny_llama), dtype="int8", device="cpu", kv_bytes=1 << 20)).generator
    sequence = engine.generate([5, 6, 7], prompt_length=3, sampling=SamplingParams(8, seed=1, stop_at_end=False))
    while engine.has_work:
        engine.step()
    assert len(sequence.generated) == 8
    assert engine.model.dtype == torch.bfloat16  # the dtype of embeddings, keys and values


@pytest.mark.usefixtures("without_operators")
def test_int8_is_refused_where_torch_has_no_operators_for_it(tiny_llama: Path) -> None:
    with pytest.raises(UnsupportedPrecision, match=r"qlinear_prepack.*choose another dtype"):
        load(EngineOptions(model=str(tiny_llama), dtype="int8", device="cpu", kv_bytes=1 << 20))


def _halved(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return _exact(weight, x) / 2


def _slow(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    time.sleep(0.008)  # what two rows took in oneDNN's reference
    return _exact(weight, x)


def _slow_for_two_rows(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return _slow(weight, x) if len(x) == 2 else _exact(weight, x)


def _exact(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (x.float() @ weight.float().t()).bfloat16()


@pytest.mark.parametrize("multiply", [_halved, _slow, _slow_for_two_rows])
def test_int8_is_refused_where_the_operators_are_inexact_or_slow(
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "_prepare", lambda weight, scales: partial(multiply, weight))
    int8.can_multiply.cache_clear()
    try:
        with pytest.raises(UnsupportedPrecision):
            load(EngineOptions(model=str(tiny_llama), dtype="int8", device="cpu", kv_bytes=1 << 20))
        monkeypatch.setattr(int8, "_prepare", lambda weight, scales: partial(_exact, weight))
        int8.can_multiply.cache_clear()
        assert int8.can_multiply()
    finally:
        int8.can_multiply.cache_clear()


def test_int8_is_refused_on_a_gpu() -> None:
    with pytest.raises(UnsupportedPrecision, match="on a CPU only; the device is cuda"):
        int8.check(torch.device("cuda"))


def numbers(rows: int, sizes: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(rows)
    weight, bias = torch.randn(*sizes, generator=chance), torch.randn(sizes[0], generator=chance)
    x = torch.randn(rows, sizes[1], generator=chance) / 8
    return weight.bfloat16(), bias.bfloat16(), x.bfloat16()
