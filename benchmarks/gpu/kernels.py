"""The kernels on a GPU: errors against float64, and times compared with the rates of memory and matrix units.

    PYTHONPATH=kernels python benchmarks/gpu/kernels.py --out benchmarks/results/kernels.json --plot docs/roofline.svg

It needs only torch, triton and numpy, and no installed ponder. A time is the median of CUDA events. Each round takes
another copy of its inputs, so that none is found in the L2 cache. Bandwidth counts the bytes that must move once.
`--quick`, or no GPU, takes small sizes and Triton's interpreter. That shows that the file runs and that errors are
small; the times mean nothing. No new part begins after `--seconds`. The last line of standard output is one JSON
object.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

if "--quick" in sys.argv or not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

from clock import DEVICE, DTYPE, ON_GPU, copies_of, measured, timed
from errors import errors
from family import Family, rotary_table
from roofline import draw

from ponder_kernels import copy_pages, rms_norm, sample, swiglu, write_qkv
from ponder_kernels.attention import paged_attention


def decode(limit: dict[str, float]) -> list[dict[str, Any]]:
    shapes = (
        [(64, 2048, 128, 8), (256, 2048, 128, 8), (256, 4096, 128, 8), (256, 4096, 64, 8), (16, 16384, 128, 8)]
        if ON_GPU
        else [(2, 100, 64, 2)]
    )
    out = []
    for num, context, head_dim, kv_heads in shapes:
        for page in (16, 32):
            family = Family(num, 1, 0, context, heads=4 * kv_heads, kv_heads=kv_heads, head_dim=head_dim, page=page)
            seconds = family.time()
            out.append({
                "name": f"decode {num}x{context}, head {head_dim}", "bytes": family.kv_bytes,
                "flops": 4 * num * context * family.q.shape[1] * head_dim,
                "sequences": num, "context": context, "head_dim": head_dim, "page": page,
                "kv_bytes": family.kv_bytes, "seconds": seconds,
                "of_copy": family.kv_bytes / seconds / limit["copy_bytes_s"], "error": family.error(),
            })  # fmt: skip
    return out


def prefill(limit: dict[str, float]) -> list[dict[str, Any]]:
    shapes = [(4, 512, 512), (1, 2048, 2048), (1, 2048, 16384), (8, 256, 4096)] if ON_GPU else [(1, 20, 70)]
    out = []
    for num, queries, context in shapes:
        sizes = {} if ON_GPU else {"heads": 4, "kv_heads": 2, "head_dim": 64}
        family = Family(num, 1, 0, context, queries, **sizes)
        seconds = family.time()
        keys = queries * context - queries * (queries - 1) // 2
        flops = 4 * num * keys * family.q.shape[1] * family.q.shape[2]
        out.append({
            "name": f"prefill {num}x{queries} of {context}", "flops": flops,
            "bytes": family.kv_bytes + 2 * family.q.nbytes,
            "sequences": num, "queries": queries, "context": context, "seconds": seconds,
            "of_matrix_rate": flops / seconds / limit["matrix_flops"], "error": family.error(),
        })  # fmt: skip
    return out


def sharing(_: dict[str, float]) -> list[dict[str, Any]]:
    """Times of 256 sequences in families. The private time is that of the same pages and tables without sharing."""
    sizes, prefixes, num, own = (2, 8, 64, 256), (128, 512, 2048, 16384), 256, 512
    if not ON_GPU:
        sizes, prefixes, num, own = (2,), (128,), 2, 20
    out = []
    for size in sizes:
        for prefix in prefixes:
            shape = {"kv_heads": 8, "heads": 32} if ON_GPU else {"kv_heads": 1, "heads": 2, "head_dim": 32}
            family = Family(num // size, size, prefix, own, **shape)
            row: dict[str, Any] = {"family": size, "prefix": prefix, "own": own, "error": family.error()}
            row["private_seconds"] = family.time(share=False)
            for leaf, blocks in ((32, 16), (64, 8), (128, 4)) if ON_GPU else ((64, 8),):
                row[f"shared_seconds_leaf_{leaf}"] = family.time(leaf_tokens=leaf, leaves_per_block=blocks)
            row["gain"] = row["private_seconds"] / row["shared_seconds_leaf_64"]
            out.append(row)
    for size in sizes:
        pays = [row["prefix"] for row in out if row["family"] == size and row["gain"] > 1]
        out.append({"family": size, "pays_from_prefix": min(pays, default=None)})
    return out


def peer(_: dict[str, float]) -> list[dict[str, Any]]:
    """Decodes by torch.nn.attention.varlen over pages, if this torch has it. It needs pages of at least 256."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return [{"skipped": "this torch has no torch.nn.attention.varlen"}]
    if not ON_GPU:
        return [{"skipped": "no GPU"}]
    num, page = 64, 256
    family = Family(num, 1, 0, 4096, page=page)
    keys = [p[:, 0].transpose(1, 2).contiguous() for p in family.pages]
    values = [p[:, 1].transpose(1, 2).contiguous() for p in family.pages]
    starts = torch.arange(num + 1, dtype=torch.int32, device=DEVICE)
    used = family.contexts.to(DEVICE, torch.int32)
    table = family.table.to(DEVICE, torch.int32)
    try:
        seconds = timed(
            lambda i: varlen_attn(
                family.q, keys[i], values[i], starts, None, 1, int(family.contexts.max()),
                seqused_k=used, block_table=table, enable_gqa=True, scale=family.scale, window_size=(-1, 0),
            ),
            copies=len(keys),
        )  # fmt: skip
    except (TypeError, RuntimeError, NotImplementedError) as error:
        return [{"skipped": f"varlen_attn takes no pages here: {str(error)[:200]}"}]
    ours = Family(64, 1, 0, 4096).time()
    return [{"page": page, "sequences": num, "context": 4096, "seconds": seconds, "ours_seconds_page_16": ours}]


def others(limit: dict[str, float]) -> list[dict[str, Any]]:
    """The kernels that work row by row, and sampling."""
    rows, hidden, vocabulary = (2048, 4096, 128256) if ON_GPU else (4, 64, 100)
    out: list[dict[str, Any]] = []

    def bound(name: str, num_bytes: int, run: Callable[[int], object], copies: int) -> None:
        seconds = timed(run, copies=copies)
        out.append({"kernel": name, "seconds": seconds, "of_copy": num_bytes / seconds / limit["copy_bytes_s"]})

    copies = copies_of(rows * hidden * 2)
    x = [torch.randn(rows, hidden, device=DEVICE, dtype=DTYPE) for _ in range(copies)]
    weight = torch.randn(hidden, device=DEVICE, dtype=DTYPE)
    bound("rms_norm", 2 * x[0].nbytes, lambda i: rms_norm.op_triton(x[i], weight, 1e-5), copies)
    wide = [torch.randn(rows, 4 * hidden, device=DEVICE, dtype=DTYPE) for _ in range(copies)]
    bound("swiglu", wide[0].nbytes * 3 // 2, lambda i: swiglu.op_triton(wide[i]), copies)
    residuals = [torch.randn_like(part) for part in x]
    bound("rms_norm, residual", 4 * x[0].nbytes, lambda i: rms_norm.op_triton(x[i], weight, 1e-5, residuals[i]), copies)
    head_dim = 128 if ON_GPU else 16
    tables = rotary_table(rows, head_dim, 10000.0)
    index = torch.arange(rows, device=DEVICE)
    heads = [part.view(rows, hidden // head_dim, head_dim) for part in x]
    kv_heads = hidden // head_dim // 4
    pages = torch.zeros(-(-rows // 16), 2, kv_heads, 16, head_dim, device=DEVICE, dtype=DTYPE)
    rotation = write_qkv.Rotation(index, *tables)
    bound("write_qkv", 2 * x[0].nbytes, lambda i: write_qkv.op_triton(heads[i], rotation, pages, index), copies)
    many = torch.randn(4, rows // 2, 2, kv_heads, 16, head_dim, device=DEVICE, dtype=DTYPE)
    half = torch.arange(rows // 4, device=DEVICE)
    moved = 2 * 4 * len(half) * many[0, 0].nbytes
    bound("copy_pages", moved, lambda _: copy_pages.op_triton(many, many, half, half + len(half)), 1)
    num = 256 if ON_GPU else 2
    logits = torch.randn(num, vocabulary, device=DEVICE) * 3
    for name, k, p in (("plain", 0, 1.0), ("top_k 50", 50, 1.0), ("top_p 0.95", 0, 0.95), ("both", 50, 0.95)):
        full = torch.full((num,), 1.0, device=DEVICE)
        index = torch.arange(num, device=DEVICE)
        choice = sample.SamplingTensors(full, (full * k).int(), full * p, full * 0, index, index, full * 0, full * 0)
        seconds = timed(lambda _, choice=choice: sample.op_triton(logits, choice))
        same = (sample.op_triton(logits, choice)[0] == sample.op_reference(logits, choice)[0]).float().mean()
        reference = timed(lambda _, choice=choice: sample.op_reference(logits, choice))
        out.append({"kernel": f"sample {name}", "seconds": seconds, "reference_seconds": reference,
                    "same_tokens": float(same)})  # fmt: skip
    return out


def invariance(_: dict[str, float]) -> list[dict[str, Any]]:
    """Whether attention has the same bits on this device when pages are shared and when they are not."""
    family = Family(4, 8, 1024, 100) if ON_GPU else Family(1, 2, 64, 20, heads=2, kv_heads=1, head_dim=32)
    one, two = (
        paged_attention.op_triton(family.q, family.pages[0], family.layout(share=share), family.scale)
        for share in (True, False)
    )
    return [{"same_bits": torch.equal(one, two)}]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the kernels on this machine's GPU.")
    parser.add_argument("--out", type=Path, help="Also write the JSON here.")
    parser.add_argument("--plot", type=Path, help="Write a roofline here, as SVG.")
    parser.add_argument("--seconds", type=float, default=300.0, help="Seconds after which no new part begins.")
    parser.add_argument("--quick", action="store_true", help="Small sizes in the interpreter.")
    options = parser.parse_args()
    if not ON_GPU:
        print("no GPU: small sizes in Triton's interpreter; the times say nothing", file=sys.stderr)
    parts = [errors, invariance, decode, sharing, prefill, others, peer]
    report = measured("kernels of ponder", parts, options.seconds, options.out)
    if options.plot is not None:
        points = [
            (row["name"], row["flops"] / row["bytes"], row["flops"] / row["seconds"])
            for part in ("decode", "prefill", "others")
            for row in report[part]
            if row.get("flops")
        ]
        limit = report["limits"]
        draw(options.plot, points, limit["copy_bytes_s"], limit["matrix_flops"], report["machine"])


if __name__ == "__main__":
    main()
