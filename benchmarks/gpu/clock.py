"""Timing on a GPU by events, and the rates of its memory and matrix units in the same run."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from circumstances import circumstances, publish

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
DTYPE = torch.bfloat16 if ON_GPU else torch.float16  # the interpreter computes bfloat16 wrongly
L2_BYTES = 128 << 20  # more than any GPU has so far
ROUNDS = 15


def timed(run: Callable[[int], object], *, copies: int = 1) -> float:
    """Median seconds of run(i), where i cycles through the copies of the inputs."""
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
    """Number of copies of the inputs with which none is still in the L2 cache when its turn comes again."""
    return max(1, min(16, -(-2 * L2_BYTES // num_bytes))) if ON_GPU else 1


def limits() -> dict[str, float]:
    """The rates of this GPU per second: bytes of a copy (read and written), and operations of a matrix product."""
    size = (1 << 30) if ON_GPU else (1 << 16)
    source, target = (torch.empty(size, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    copy_s = timed(lambda _: target.copy_(source))
    n = 8192 if ON_GPU else 64
    a, b = (torch.randn(n, n, device=DEVICE).to(DTYPE) for _ in range(2))
    return {"copy_bytes_s": 2 * size / copy_s, "matrix_flops": 2 * n**3 / timed(lambda _: a @ b)}


def measured(
    what: str, parts: list[Callable[[dict[str, float]], list[dict[str, Any]]]], seconds: float, out: Path | None
) -> dict[str, Any]:
    """Runs the parts and reports, to `out` and as JSON to standard output. No part begins after the given seconds."""
    torch.manual_seed(time.time_ns() & 0xFFFFFFFF)
    begin = time.monotonic()
    limit = limits()
    report: dict[str, Any] = {
        **circumstances(what, "torch", "triton"),
        **({"machine": torch.cuda.get_device_name()} if ON_GPU else {"note": "no GPU: the times say nothing"}),
        "limits": limit,
    }
    for part in parts:
        if time.monotonic() - begin > seconds:
            report[part.__name__] = [{"skipped": "out of time"}]
            continue
        try:
            report[part.__name__] = part(limit)
        except Exception as error:  # the other parts are still worth having
            report[part.__name__] = [{"failed": repr(error)[:500]}]
        print(f"{part.__name__}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
        if ON_GPU:
            torch.cuda.empty_cache()
    report["seconds"] = round(time.monotonic() - begin, 1)
    publish(report, out)
    return report
