"""The kernels on a GPU: errors against float64, times beside what the memory and the matrix units of the same run do.

    PYTHONPATH=kernels python benchmarks/gpu/kernels.py --out benchmarks/results/kernels.json

Needs torch, triton and numpy only, and no installed ponder. A time is the median of CUDA events; each round takes
another copy of its inputs, so that none is found in the L2 cache. Bandwidth counts the bytes that must move once.
Without a GPU it takes small sizes and Triton's interpreter (set TRITON_INTERPRET=1): that shows that the file runs and
that errors are small, and its times say nothing. It begins no new part after `--seconds`. The last line of standard
output is one JSON object.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import triton

from ponder_kernels import matmul, paged_attention, rms_norm, sample, swiglu

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = torch.bfloat16 if ON_GPU else torch.float16
ROUNDS = 15 if ON_GPU else 1
L2_BYTES = 128 << 20  # more than any GPU's so far


def timed(run: Callable[[int], object], *, copies: int = 1) -> float:
    """-> median seconds of run(i), i counting the copies of the inputs round and round"""
    run(0)
    if not ON_GPU:
        begin = time.perf_counter()
        run(0)
        return time.perf_counter() - begin
    for index in range(3):
        run(index % copies)
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(ROUNDS)]
    for index, (begin_event, end_event) in enumerate(events):
        begin_event.record()
        run(index % copies)
        end_event.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1e3


def copies_of(num_bytes: int) -> int:
    return max(1, min(16, -(-2 * L2_BYTES // num_bytes))) if ON_GPU else 1


def limits() -> dict[str, float]:
    """What this GPU does: a copy's bytes a second (read and written), a matrix product's operations a second."""
    size = (1 << 30) if ON_GPU else (1 << 16)
    source, target = (torch.empty(size, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    copy_s = timed(lambda _: target.copy_(source))
    n = 8192 if ON_GPU else 64
    a, b = (torch.randn(n, n, device=DEVICE).to(DTYPE) for _ in range(2))
    return {"copy_bytes_s": 2 * size / copy_s, "matrix_flops": 2 * n**3 / timed(lambda _: a @ b)}


class Family:
    """Sequences of which each `size` neighbours share their first `prefix` tokens; pages of all stand shuffled."""

    def __init__(
        self, count: int, size: int, prefix: int, own: int, queries: int = 1, *,
        heads: int = 32, kv_heads: int = 8, head_dim: int = 128, page: int = 16, copies: int | None = None,
    ) -> None:  # fmt: skip
        num = count * size
        shared, private = prefix // page, -(-own // page)
        num_pages = count * shared + num * private + 1
        order = torch.randperm(num_pages - 1) + 1
        roots = order[: count * shared].view(count, 1, shared).expand(count, size, shared).reshape(num, shared)
        self.table = torch.cat([roots, order[count * shared :].view(num, private)], dim=1)
        self.contexts = torch.full((num,), shared * page + own, dtype=torch.int64)
        self.queries = torch.full((num,), queries, dtype=torch.int64)
        shape = (num_pages, 2, kv_heads, page, head_dim)
        self.page_bytes = 2 * kv_heads * page * head_dim * DTYPE.itemsize
        self.kv_bytes = (num_pages - 1) * self.page_bytes
        self.read_alone = num * (shared + private) * self.page_bytes
        copies = copies_of(self.kv_bytes) if copies is None else copies
        self.pages = [torch.randn(shape, device=DEVICE, dtype=DTYPE) for _ in range(copies)]
        self.q = torch.randn(num * queries, heads, head_dim, device=DEVICE, dtype=DTYPE)
        self.scale = head_dim**-0.5

    def layout(self, **options: Any) -> paged_attention.Layout:
        return paged_attention.layout(
            self.queries, self.contexts, self.table, pages=self.pages[0], num_heads=self.q.shape[1],
            for_kernel=True, **options,
        )  # fmt: skip

    def time(self, **options: Any) -> float:
        where = self.layout(**options)
        return timed(
            lambda i: paged_attention.op_triton(self.q, self.pages[i], where, self.scale), copies=len(self.pages)
        )

    def error(self, **options: Any) -> float:
        """Greatest difference to float64 of the first and the last sequence."""
        found = paged_attention.op_triton(self.q, self.pages[0], self.layout(**options), self.scale).double()
        groups, worst = self.q.shape[1] // self.pages[0].shape[2], 0.0
        for row in (0, len(self.table) - 1):
            count, context = int(self.queries[row]), int(self.contexts[row])
            kv = torch.cat(list(self.pages[0][self.table[row].to(DEVICE)].double()), dim=2)[:, :, :context]
            kv = kv.repeat_interleave(groups, 1)
            rows = slice(row * count, (row + 1) * count)
            score = self.q[rows].double().transpose(0, 1) @ kv[0].transpose(1, 2) * self.scale
            hidden = torch.arange(context) > torch.arange(context - count, context)[:, None]
            expected = score.masked_fill(hidden.to(DEVICE), float("-inf")).softmax(-1) @ kv[1]
            worst = max(worst, float((found[rows].transpose(0, 1) - expected).abs().max()))
        return worst


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
            seconds, fixed = family.time(), family.time(batch_invariant=True)
            out.append({
                "sequences": num, "context": context, "head_dim": head_dim, "page": page,
                "kv_bytes": family.kv_bytes, "seconds": seconds, "batch_invariant_seconds": fixed,
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
            "sequences": num, "queries": queries, "context": context, "seconds": seconds,
            "of_matrix_rate": flops / seconds / limit["matrix_flops"], "error": family.error(),
        })  # fmt: skip
    return out


def sharing(_: dict[str, float]) -> list[dict[str, Any]]:
    """256 sequences in families; the private time is of the same pages and tables."""
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
    return out


def peer(_: dict[str, float]) -> list[dict[str, Any]]:
    """torch.nn.attention.varlen over pages, if this torch has it: decode, page 256 at least, as it wants them."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return [{"skipped": "this torch has no torch.nn.attention.varlen"}]
    if not ON_GPU:
        return [{"skipped": "no GPU"}]
    family = Family(64, 1, 0, 4096, page=256)
    num, page = 64, 256
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
    """Row by row, sampling, and what batch invariance costs a matrix product."""
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
    num = 256 if ON_GPU else 2
    logits = torch.randn(num, vocabulary, device=DEVICE) * 3
    for name, k, p in (("plain", 0, 1.0), ("top_k 50", 50, 1.0), ("top_p 0.95", 0, 0.95), ("both", 50, 0.95)):
        full = torch.full((num,), 1.0, device=DEVICE)
        index = torch.arange(num, device=DEVICE)
        choice = sample.Choice(full, (full * k).int(), full * p, full * 0, index, index, full * 0, full * 0)
        seconds = timed(lambda _, choice=choice: sample.op_triton(logits, choice))
        same = (sample.op_triton(logits, choice)[0] == sample.op_reference(logits, choice)[0]).float().mean()
        reference = timed(lambda _, choice=choice: sample.op_reference(logits, choice))
        out.append({"kernel": f"sample {name}", "seconds": seconds, "reference_seconds": reference,
                    "same_tokens": float(same)})  # fmt: skip
    w = torch.randn(hidden, hidden, device=DEVICE, dtype=DTYPE)
    for count in (1, 64, 256, 2048) if ON_GPU else (3,):
        part = torch.randn(count, hidden, device=DEVICE, dtype=DTYPE)
        fixed, library = timed(lambda _, a=part: matmul.op_triton(a, w)), timed(lambda _, a=part: a @ w.T)
        alone = torch.equal(matmul.op_triton(part, w)[:1], matmul.op_triton(part[:1], w))
        out.append({"kernel": "matmul", "rows": count, "fixed_seconds": fixed, "library_seconds": library,
                    "a_row_is_the_same_alone": alone})  # fmt: skip
    return out


def invariance(_: dict[str, float]) -> list[dict[str, Any]]:
    """Are the bits of grouped and ungrouped attention the same on this device? By mode."""
    family = Family(4, 8, 1024, 100) if ON_GPU else Family(1, 2, 64, 20, heads=2, kv_heads=1, head_dim=32)
    out = []
    for fixed in (True, False):
        one, two = (
            paged_attention.op_triton(
                family.q, family.pages[0], family.layout(share=share, batch_invariant=fixed), family.scale
            )
            for share in (True, False)
        )
        out.append({"batch_invariant": fixed, "same_bits": torch.equal(one, two)})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the kernels on this machine's GPU.")
    parser.add_argument("--out", type=Path, help="Also write the JSON here.")
    parser.add_argument("--seconds", type=float, default=360.0, help="Begin no new part after so long.")
    options = parser.parse_args()
    torch.manual_seed(time.time_ns() & 0xFFFFFFFF)
    if not ON_GPU:
        print("no GPU: small sizes in Triton's interpreter; the times say nothing", file=sys.stderr)
    begin = time.monotonic()
    limit = limits()
    report: dict[str, Any] = {
        "what": "kernels of ponder",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": torch.cuda.get_device_name() if ON_GPU else f"{platform.machine()}, no GPU: times say nothing",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__},
        "command": " ".join(["python", "benchmarks/gpu/kernels.py", *sys.argv[1:]]),
        "load_average": round(os.getloadavg()[0], 1),
        "limits": limit,
    }
    for part in (invariance, decode, sharing, prefill, others, peer):
        if time.monotonic() - begin > options.seconds:
            report[part.__name__] = [{"skipped": "out of time"}]
            continue
        try:
            report[part.__name__] = part(limit)
        except Exception as error:  # the others are worth having
            report[part.__name__] = [{"failed": repr(error)[:500]}]
        print(f"{part.__name__}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
        if ON_GPU:
            torch.cuda.empty_cache()
    report["seconds"] = round(time.monotonic() - begin, 1)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
