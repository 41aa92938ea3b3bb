"""Resources of the compiled kernels: registers, stack and shared memory, by dtype and head size. No GPU is needed.

    python benchmarks/kernel_resources.py

It writes benchmarks/results/kernel_resources.json and prints what spills. A kernel that spills has a stack. `programs`
is the number of programs of a kernel that an SM holds at once, by registers, threads and shared memory. Attention is
compiled with narrow and wide tiles for every dtype and head size. A page of 32 and a soft cap, which change little, are
compiled once for each of these pairs. All of it takes ten minutes on two processors. tests/kernels/test_compile.py
compiles a part, `covering()`.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
from circumstances import circumstances
from triton.backends.compiler import GPUTarget

from ponder_kernels import copy_pages, expert_product, rms_norm, sample, swiglu, write_kv, write_qkv
from ponder_kernels.attention import fold, paged_attention, tiles

CAPABILITIES = (80, 90, 100)
HEAD_DIMS = (64, 80, 96, 128, 256)
KINDS = ("bf16", "bf16 fp8", "fp16", "fp16 fp8", "fp32")
SHARED_BYTES = {80: 164 << 10, 90: 228 << 10, 100: 228 << 10}  # of one SM
RECORD = Path(__file__).parent / "results" / "kernel_resources.json"


@dataclass(frozen=True)
class Build:
    name: str
    kernel: Any
    pointers: dict[str, str]
    constants: dict[str, Any]
    floats: tuple[str, ...] = ()
    options: dict[str, int] = field(default_factory=dict)

    def compile(self, capability: int) -> dict[str, int]:
        """Compile for one GPU. Strides and pointers are multiples of 16, like those of real tensors."""
        names = self.kernel.arg_names
        kinds = self.pointers | dict.fromkeys(self.constants, "constexpr") | dict.fromkeys(self.floats, "fp32")
        signature = {name: kinds.get(name, "i32") for name in names}
        constants = {(names.index(name),): value for name, value in self.constants.items()}
        round_ = ("_stride", "_token", "_head", "_in")
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
        registers, stack, shared = int(found[1]), int(found[2]), built.metadata.shared
        threads = 32 * built.metadata.num_warps
        limits = (65536 // (-(-registers // 8) * 8 * threads), 2048 // threads)
        programs = min(*limits, 32, SHARED_BYTES[capability] // (shared + 1024))
        return {"registers": registers, "stack_bytes": stack, "shared_bytes": shared, "programs": programs}


def attention(kind: str, head_dim: int, page_size: int, wide: bool, capped: bool, groups: int = 4) -> Build:
    dtype, _, fp8 = kind.partition(" ")
    block_dim = triton.next_power_of_2(head_dim)
    element = 4 if dtype == "fp32" else 2
    queries = tiles.queries_per_tile(groups, head_dim, 4 if kind == "fp32" else 2)
    rows = tiles.wide_rows(groups, queries) if wide else tiles.narrow_rows(groups)
    pointers = dict.fromkeys(("q", "out"), f"*{dtype}") | {"pages": "*u8" if fp8 else f"*{dtype}"}
    pointers |= dict.fromkeys(("partials", "masses", "scales"), "*fp32")
    pointers |= dict.fromkeys(("items", "tokens", "positions", "page_table"), "*i32")
    constants = {
        "NUM_KV_HEADS": 8, "NUM_GROUPS": groups, "HEAD_DIM": head_dim, "SOFT_CAP": capped, "FP8": bool(fp8),
        "PAGE_SIZE": page_size, "BLOCK_DIM": block_dim, "BLOCK_ROWS": rows, "LEAF": 64, "LEAVES": 8,
    }  # fmt: skip
    name = f"attention {kind}, head {head_dim}, page {page_size}{', capped' if capped else ''}"
    name += ", wide" if wide else ", narrow"
    options = tiles.launch_options(rows, block_dim, element, fp8=bool(fp8))
    return Build(name, paged_attention.kernel, pointers, constants, ("scale", "soft_cap"), options)


def others(kind: str, head_dim: int) -> Iterator[Build]:
    """Kernels whose programs have the size of a head."""
    dtype, _, fp8 = kind.partition(" ")
    element, half = f"*{dtype}", triton.next_power_of_2(head_dim // 2)
    page = {"pages": "*u8" if fp8 else element, "slots": "*i64", "scales": "*fp32"}
    heads = {"heads": element, "cosine": "*fp32", "sine": "*fp32", "positions": "*i64"}
    norms = dict.fromkeys(("query_norm", "key_norm"), element)
    one, constants = {"num_warps": 1}, {"FP8": bool(fp8), "BLOCK": half}
    name = f"{kind}, head {head_dim}"
    yield Build(f"write_kv {name}", write_kv.kernel, page | {"kv": element}, constants, (), one)
    for norm in (False, True):
        options = (constants | {"NORM": norm}, ("epsilon",), one)
        yield Build(f"write_qkv {name}{', normed' if norm else ''}", write_qkv.kernel, heads | norms | page, *options)
    if not fp8:
        parts = {"out": element} | dict.fromkeys(("partials", "masses"), "*fp32")
        parts |= dict.fromkeys(("fold_queries", "fold_starts", "entries", "tokens"), "*i32")
        folded = {"BLOCK_HEADS": 4, "BLOCK_DIM": triton.next_power_of_2(head_dim)}
        yield Build(f"fold {name}", fold.kernel, parts, folded, (), one)


def rows(dtype: str) -> Iterator[Build]:
    """Kernels whose programs have the size of a row."""
    element = f"*{dtype}"
    norm = dict.fromkeys(("x", "weight", "out", "residual"), element)
    for add in (False, True):
        constants = {"ADD": add, "BLOCK": 4096}
        yield Build(f"rms_norm {dtype}{', added' if add else ''}", rms_norm.kernel, norm, constants, ("epsilon",))
    for gelu in (False, True):
        constants, name = {"GELU": gelu, "BLOCK": swiglu.BLOCK}, f"{'geglu' if gelu else 'swiglu'} {dtype}"
        yield Build(name, swiglu.kernel, {"gate_up": element, "out": element}, constants)
    product = dict.fromkeys(("x", "weight", "out"), element)
    product |= dict.fromkeys(("order", "starts", "tile_experts", "tile_starts"), "*i32")
    for tile_rows in (expert_product.NARROW, expert_product.WIDE):
        block_out, block_in, options = expert_product.launch_options(tile_rows, 4 if dtype == "fp32" else 2)
        constants = {"BLOCK_ROWS": tile_rows, "BLOCK_OUT": block_out, "BLOCK_IN": block_in}
        name = f"expert_product {dtype}, {'wide' if tile_rows == expert_product.WIDE else 'narrow'}"
        yield Build(name, expert_product.kernel, product, constants, (), options)


def single() -> Iterator[Build]:
    """Kernels that exist for one dtype only."""
    copy = {"source": "*i32", "target": "*i32", "sources": "*i64", "targets": "*i64"}
    yield Build("copy_pages", copy_pages.kernel, copy, {"BLOCK": copy_pages.BLOCK})
    numbers = ("logits", "logprobs", "temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty")
    choice = dict.fromkeys(numbers, "*fp32") | {"top_k": "*i32", "counts": "*i32"}
    choice |= dict.fromkeys(("tokens", "seeds", "positions"), "*i64")
    for counts in (False, True):
        constants = {"COUNTS": counts, "BLOCK": sample.BLOCK}
        name = f"sample{', penalties' if counts else ''}"
        yield Build(name, sample.kernel, choice, constants, (), {"num_warps": 8})


def every() -> dict[str, Build]:
    plain = [attention(*shape, 16, wide, False) for shape in product(KINDS, HEAD_DIMS) for wide in (False, True)]
    return _named(plain, variants(), rest())


def covering() -> dict[str, Build]:
    """Every kernel, and attention once for each dtype and head size."""
    plain = [attention(*shape, 16, bool(number % 2), False) for number, shape in enumerate(product(KINDS, HEAD_DIMS))]
    return _named(plain[::2], list(variants())[1::2], rest())


def variants() -> Iterator[Build]:
    """Attention with pages of 32, a soft cap, or both, with narrow and wide tiles in turn."""
    for number, shape in enumerate(product(KINDS, HEAD_DIMS)):
        page_size, capped = ((32, False), (16, True), (32, True))[number % 3]
        yield attention(*shape, page_size, number % 4 < 2, capped)


def rest() -> Iterator[Build]:
    for kind, head_dim in product(KINDS, HEAD_DIMS):
        yield from others(kind, head_dim)
    for dtype in ("bf16", "fp16", "fp32"):
        yield from rows(dtype)
    yield from single()


def _named(*builds: Iterable[Build]) -> dict[str, Build]:
    return {build.name: build for some in builds for build in some}


def compile_build(name: str, capability: int) -> dict[str, int]:
    return EVERY[name].compile(capability)


EVERY = every()

if __name__ == "__main__":
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        jobs = {name: {f"sm_{c}": pool.submit(compile_build, name, c) for c in CAPABILITIES} for name in EVERY}
        table = {name: {c: job.result() for c, job in row.items()} for name, row in jobs.items()}
    lines = [f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in table.items()]
    kernels = ",\n".join(lines)
    run = circumstances("registers, stack and shared memory of the compiled kernels", "triton", "torch")
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in run.items())
    RECORD.write_text(f'{{\n{head} "triton": "{triton.__version__}",\n "kernels": {{\n{kernels}\n }}\n}}\n')
    for name, row in table.items():
        if any(found["stack_bytes"] for found in row.values()):
            stacks = {capability: found["stack_bytes"] for capability, found in row.items()}
            sys.stdout.write(f"{name:55} stack {stacks}\n")
