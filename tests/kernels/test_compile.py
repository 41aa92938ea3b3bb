"""Kernels compile for the GPUs they are meant for, on a machine that has none."""

from typing import Any

import pytest

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402

from ponder_kernels import paged_attention, rms_norm, write_kv  # noqa: E402

CAPABILITIES = [80, 90]
DTYPES = ["fp32", "fp16", "bf16"]


def built(kernel: Any, pointers: dict[str, str], constants: dict[str, int], capability: int, floats: set[str]) -> Any:
    """Compiled with every argument that is neither pointer, float nor constant as an int32."""
    signature = {
        name: pointers.get(name, "constexpr" if name in constants else "fp32" if name in floats else "i32")
        for name in kernel.arg_names
    }
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=places)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32))


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_dim", [32, 64, 128])
def test_paged_attention_compiles(capability: int, dtype: str, block_dim: int) -> None:
    pointers = dict.fromkeys(("q", "pages", "out"), f"*{dtype}")
    pointers |= dict.fromkeys(("query_starts", "context_lengths", "page_table"), "*i32")
    constants = {"PAGE_SIZE": 16, "BLOCK_DIM": block_dim, "BLOCK_ROWS": 16, "BLOCK_KEYS": 32}
    assert "cubin" in built(paged_attention.kernel, pointers, constants, capability, {"scale"}).asm


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_write_kv_compiles(capability: int, dtype: str) -> None:
    pointers = {"kv": f"*{dtype}", "pages": f"*{dtype}", "slots": "*i64"}
    assert "cubin" in built(write_kv.kernel, pointers, {"BLOCK": 128}, capability, set()).asm


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_compiles(capability: int, dtype: str) -> None:
    pointers = dict.fromkeys(("x", "weight", "out"), f"*{dtype}")
    assert "cubin" in built(rms_norm.kernel, pointers, {"BLOCK": 1024}, capability, {"epsilon"}).asm
