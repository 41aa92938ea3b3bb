"""Matrix products in C on AMX or AVX512-BF16, compared with oneDNN's on packed weights.

    python benchmarks/products.py --threads 1 --out benchmarks/results/products.json

The dtype is bfloat16. There are as many copies of every weight as a model has layers, so that a product finds its
weight in memory and not in a cache. The two variants take turns. Times are medians of processor time with one thread,
and of wall-clock time with more. The last line of standard output is one JSON object.
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import click
import torch
from circumstances import circumstances, publish

from ponder_worker.models.native.products import product

SIZES = {  # out, in, copies
    "query, key and value": (1152, 896, 24),
    "output": (896, 896, 24),
    "gate and up": (9728, 896, 12),
    "down": (896, 4864, 16),
    "logits of 32,000": (32000, 896, 3),
    "logits of 151,936": (151936, 896, 1),
    "small: query, key and value": (320, 192, 6),
    "small: gate and up": (1024, 192, 6),
    "small: down": (192, 512, 6),
}
Multiply = Callable[[torch.Tensor], torch.Tensor]


@click.command()
@click.option("--rows", "all_rows", multiple=True, type=int, default=(1, 16, 64, 128, 256, 2048), show_default=True)
@click.option("--size", "wanted", default="", help="Only sizes whose name contains this.")
@click.option("--threads", "all_threads", multiple=True, type=int, default=(1, 2), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(all_rows: tuple[int, ...], wanted: str, all_threads: tuple[int, ...], out: Path | None) -> None:
    """Time the products."""
    results = []
    for name, (num_out, num_in, copies) in SIZES.items():
        if wanted not in name:
            continue
        weights = [torch.randn(num_out, num_in).bfloat16() for _ in range(copies)]
        peers = [[theirs(weight) for weight in weights], [mine(weight) for weight in weights]]
        for threads in all_threads:
            for rows in all_rows:
                if rows * num_out > 1 << 26:  # logits have few rows
                    continue
                line = {
                    "what": name,
                    "threads": threads,
                    "rows": rows,
                    **compare(peers, rows, num_in, num_out, threads),
                }
                click.echo(line, err=True)
                results.append(line)
    report = {
        **circumstances("bfloat16 products, weights in memory; ms, medians", "torch"),
        "results": results,
    }
    publish(report, out)


def mine(weight: torch.Tensor) -> Multiply:
    found = product(weight, None)
    if found is None:
        raise click.ClickException("the C needs a compiler, and a processor with AMX or AVX512-BF16")
    return found


def theirs(weight: torch.Tensor) -> Multiply:
    packed, multiply = torch.ops.mkldnn._reorder_linear_weight(weight, 64), torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, None, "none", [], "")


def compare(peers: list[list[Multiply]], rows: int, num_in: int, num_out: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    x = torch.randn(rows, num_in).bfloat16()
    turns = max(12, 2 * len(peers[0]), min(400, int(4e9 / (rows * num_in * num_out))))
    found: list[list[float]] = [[], []]
    for turn in range(turns):
        for peer, times in zip(peers, found, strict=True):
            started = clock()
            peer[turn % len(peer)](x)
            times.append(1e3 * (clock() - started))
    without, with_it = map(statistics.median, found)
    ratio = statistics.median(a / b for a, b in zip(*found, strict=True))
    return {
        "oneDNN_ms": round(without, 3),
        "own_ms": round(with_it, 3),
        "ratio": round(ratio, 2),
        "own_gflop_per_s": round(2e-6 * rows * num_in * num_out / with_it),
        "own_gb_per_s": round(2e-6 * num_in * num_out / with_it, 1),
    }


if __name__ == "__main__":
    main()
