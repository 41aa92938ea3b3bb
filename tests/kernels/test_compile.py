"""Kernels compile for the GPUs they are meant for, on a machine that has none, and the hot ones spill no register.

What a GPU's assembler makes of each is kept in benchmarks/results/kernel_resources.json; written anew by
`python tests/kernels/test_compile.py`.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402

from ponder_kernels import (  # noqa: E402
    copy_pages,
    matmul,
    paged_attention,
    rms_norm,
    rope,
    sample,
    step_score,
    swiglu,
    write_kv,
    write_qkv,
)

CAPABILITIES = [80, 90, 100]
SHARED_BYTES = 163 << 10  # an A100's program has so much at most
# A spill is stack. On sm_100 wide attention of heads above 64 is held to 128 registers and keeps 16 bytes there.
STACK_BYTES = {80: 0, 90: 0, 100: 16}
RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "kernel_resources.json"


@dataclass(frozen=True)
class Build:
    """hot: what runs in every layer of a step, and must not spill."""

    name: str
    kernel: Any
    pointers: dict[str, str]
    constants: dict[str, Any]
    floats: tuple[str, ...] = ()
    options: dict[str, int] = field(default_factory=dict)
    hot: bool = True

    def compile(self, capability: int) -> dict[str, int]:
        """Strides and pointers are multiples of 16, as those of real tensors are."""
        names = self.kernel.arg_names
        signature = {
            name: self.pointers.get(
                name, "constexpr" if name in self.constants else "fp32" if name in self.floats else "i32"
            )
            for name in names
        }
        constants = {(names.index(name),): value for name, value in self.constants.items()}
        round_ = ("_stride", "_token", "_head")
        aligned = [index for index, name in enumerate(names) if name in self.pointers or name.endswith(round_)]
        attributes = {(index,): [["tt.divisibility", 16]] for index in aligned}
        source = triton.compiler.ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=self.options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(built.asm["cubin"])
            file.flush()
            tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
            said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
        found = re.search(r"REG:(\d+) STACK:(\d+)", said.stdout + said.stderr)
        assert found, said
        return {"registers": int(found[1]), "stack_bytes": int(found[2]), "shared_bytes": built.metadata.shared}


def attention(
    dtype: str,
    head_dim: int,
    *,
    wide: bool,
    direct: bool,
    fp8: bool = False,
    page_size: int = 16,
    soft_cap: bool = False,
) -> Build:
    block_dim = triton.next_power_of_2(head_dim)
    rows = (64 if head_dim <= 128 else 32) if wide else 16
    pointers = dict.fromkeys(("q", "out"), f"*{dtype}") | {"pages": "*u8" if fp8 else f"*{dtype}"}
    pointers |= dict.fromkeys(("partials", "masses", "scales"), "*fp32")
    pointers |= dict.fromkeys(("items", "tokens", "positions", "page_table"), "*i32")
    constants = {
        "NUM_KV_HEADS": 8, "NUM_GROUPS": 4, "HEAD_DIM": head_dim, "SOFT_CAP": soft_cap, "FP8": fp8, "DIRECT": direct,
        "PAGE_SIZE": page_size, "BLOCK_DIM": block_dim, "BLOCK_ROWS": rows, "LEAF": 64, "LEAVES": 8,
    }  # fmt: skip
    name = (
        f"attention {dtype}{' fp8' if fp8 else ''}, head {head_dim}, page {page_size}{', capped' if soft_cap else ''}"
    )
    name += f", {'wide' if wide else 'narrow'}{', direct' if direct else ''}"
    hot = dtype != "fp32" and head_dim <= 128 and not direct
    options = paged_attention.options(rows, block_dim)
    return Build(name, paged_attention.kernel, pointers, constants, ("scale", "soft_cap"), options, hot)


def builds() -> list[Build]:
    out = [
        attention("bf16", head_dim, wide=wide, direct=direct)
        for head_dim in (64, 80, 96, 128, 256)
        for wide, direct in ((False, False), (True, False), (True, True))
    ]
    out += [attention(dtype, 64, wide=wide, direct=False) for dtype in ("fp16", "fp32") for wide in (False, True)]
    out += [attention(dtype, 256, wide=False, direct=False) for dtype in ("fp16", "fp32")]
    out += [attention("fp16", 128, wide=True, direct=direct) for direct in (False, True)]
    out += [attention("fp32", 128, wide=False, direct=False)]
    out += [attention("bf16", 128, wide=wide, direct=False, fp8=True) for wide in (False, True)]
    out += [attention("bf16", head_dim, wide=False, direct=False, fp8=True) for head_dim in (64, 80, 96, 256)]
    out += [attention("bf16", 128, wide=False, direct=True)]
    out += [attention("bf16", 128, wide=False, direct=False, page_size=32)]
    out += [attention("bf16", 128, wide=False, direct=False, soft_cap=True)]
    fold = dict.fromkeys(("partials", "masses"), "*fp32")
    fold |= dict.fromkeys(("fold_queries", "fold_starts", "entries", "tokens"), "*i32")
    for dtype in ("bf16", "fp16", "fp32"):
        element = f"*{dtype}"
        pages = {"kv": element, "pages": element, "slots": "*i64"}
        norm = dict.fromkeys(("x", "weight", "out", "residual"), element)
        heads = {"heads": element, "cosine": "*fp32", "sine": "*fp32", "positions": "*i64"}
        qkv = heads | {"pages": element, "slots": "*i64", "scales": "*fp32"}
        qkv |= dict.fromkeys(("query_norm", "key_norm"), element)
        score = {"hidden": element, "unembedding": element, "rows": "*i64", "labels": "*i64", "out": "*fp32"}
        product = dict.fromkeys(("x", "weight", "bias", "out"), element)
        tile = {"BIAS": False, "ROWS": 64, "COLUMNS": 64, "K": 64}
        one = {"num_warps": 1}
        folded = {"BLOCK_HEADS": 4, "BLOCK_DIM": 128}
        out += [
            Build(f"fold {dtype}", paged_attention.fold_kernel, fold | {"out": element}, folded, (), one),
            Build(f"write_kv {dtype}", write_kv.kernel, pages, {"BLOCK": 128}),
            Build(f"rms_norm {dtype}", rms_norm.kernel, norm, {"ADD": True, "BLOCK": 4096}, ("epsilon",)),
            Build(f"swiglu {dtype}", swiglu.kernel, {"gate_up": element, "out": element}, {"BLOCK": 1024}),
            Build(f"rope {dtype}", rope.kernel, heads, {"BLOCK": 64}, (), one),
            Build(
                f"write_qkv {dtype}",
                write_qkv.kernel,
                qkv,
                {"NORM": True, "FP8": False, "BLOCK": 64},
                ("epsilon",),
                one,
            ),
            Build(f"step_score {dtype}", step_score.kernel, score, {"LABELS": 2, "BLOCK": 1024}),
            Build(f"matmul {dtype}", matmul.kernel, product, tile, (), {"num_stages": 3}, dtype != "fp32"),
        ]
    qkv["pages"] = "*u8"
    out.append(
        Build("write_qkv fp8", write_qkv.kernel, qkv, {"NORM": True, "FP8": True, "BLOCK": 64}, ("epsilon",), one)
    )
    copy = {"source": "*i32", "target": "*i32", "sources": "*i64", "targets": "*i64"}
    out.append(Build("copy_pages", copy_pages.kernel, copy, {"BLOCK": 4096}))
    choice = dict.fromkeys(
        ("logits", "logprobs", "temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"), "*fp32"
    )
    choice |= {"tokens": "*i64", "top_k": "*i32", "seeds": "*i64", "positions": "*i64", "counts": "*i32"}
    for counts in (False, True):
        constants = {"COUNTS": counts, "BLOCK": sample.BLOCK}
        name = f"sample{' with penalties' if counts else ''}"
        out.append(Build(name, sample.kernel, choice, constants, (), {"num_warps": 8}))
    return out


BUILDS = {build.name: build for build in builds()}


def compile_build(name: str, capability: int) -> dict[str, int]:
    return BUILDS[name].compile(capability)


@pytest.fixture(scope="module")
def compiled() -> Iterator[dict[tuple[str, int], Future[dict[str, int]]]]:
    """Two at a time; in processes, since starting the assembler from threads was seen to fail."""
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        yield {(name, c): pool.submit(compile_build, name, c) for name in BUILDS for c in CAPABILITIES}


@pytest.mark.parametrize("name", BUILDS)
def test_it_compiles_and_what_is_hot_does_not_spill(
    name: str, compiled: dict[tuple[str, int], Future[dict[str, int]]]
) -> None:
    recorded = json.loads(RECORD.read_text())
    for capability in CAPABILITIES:
        found = compiled[name, capability].result()
        assert found["shared_bytes"] <= SHARED_BYTES
        if BUILDS[name].hot:
            assert found["stack_bytes"] <= STACK_BYTES[capability], (capability, found)
        if recorded["triton"] == triton.__version__:
            assert recorded["kernels"][name][f"sm_{capability}"] == found, capability


if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        jobs = {name: {f"sm_{c}": pool.submit(compile_build, name, c) for c in CAPABILITIES} for name in BUILDS}
        table = {name: {c: job.result() for c, job in row.items()} for name, row in jobs.items()}
    RECORD.write_text(json.dumps({"triton": triton.__version__, "kernels": table}, indent=1) + "\n")
    for name, row in table.items():
        sys.stdout.write(f"{name:55} {row}\n")
