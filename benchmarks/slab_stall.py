"""Duration of a plan that takes a slab from another model with long chains.

    python benchmarks/slab_stall.py --out benchmarks/results/slab_stall.json

No model computes. In one scheduler 190 chains of 18,000 tokens hold nearly all of 215,040 pages of 16 tokens. In
another one 14 requests of 20,000 tokens arrive, for which it takes slab after slab. In `apart` the pages of each chain
are contiguous. In `mixed` the chains grew together, so a slab has pages of all of them, and the pages that stay are
moved. Times are medians of the processor time of plans that took a slab, including the pages of the new request.
"""

import random
import statistics
import time
from pathlib import Path
from typing import Any

import click
from circumstances import circumstances, publish

from ponder_worker.engine import SamplingParams, Sequence
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.kv.slab_allocator import SlabAllocator
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.step_plan import StepPlan, StepResult

PAGE, PAGES = 16, 215_040
CHAINS, TOKENS, NEWCOMERS = 190, 18_000, 14


@click.command()
@click.option("--slab-pages", default=1024, show_default=True, help="Pages per slab.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write the JSON here.")
def main(slab_pages: int, out: Path | None) -> None:
    """Measure what it costs the host to take a slab."""
    firsts = {"apart": TOKENS, "mixed": 200}
    results = {name: measure(PAGES // slab_pages, slab_pages, first) for name, first in firsts.items()}
    what = f"a plan that takes a slab from {CHAINS} chains of {TOKENS} tokens: milliseconds of processor time"
    report = circumstances(what, "torch") | {"pages": PAGES, "slab_pages": slab_pages, "results": results}
    publish(report, out)


def measure(num_slabs: int, slab_pages: int, first: int) -> dict[str, Any]:
    """Measures the plans. first: the number of tokens that a chain has when it arrives."""
    budget, chance = SlabAllocator(num_slabs), random.Random(0)
    donor, taker = (
        Scheduler(
            PagePool(num_slabs * slab_pages, PAGE, slab_pages=slab_pages),
            max_step_tokens=1 << 22,
            max_sequences=256,
            slabs=budget,
        )
        for _ in range(2)
    )
    chains = [Sequence(tokens(chance, first), first, SamplingParams(2 * TOKENS)) for _ in range(CHAINS)]
    for chain in chains:
        donor.add(chain)
    run(donor)
    while len(chains[0].tokens) < TOKENS:  # only pages matter here, so fifteen tokens come at once
        for chain in chains:
            chain.tokens += [0] * (PAGE - 1)
        run(donor)
    taking, others = [], []
    for _ in range(NEWCOMERS):
        taker.add(Sequence(tokens(chance, 20_000), 15_000, None))
        before, began_s = len(taker.pool.slabs), time.process_time()
        taker.plan()
        (taking if len(taker.pool.slabs) > before else others).append(1e3 * (time.process_time() - began_s))
    return {
        "plans_that_took": len(taking),
        "slabs_taken": len(taker.pool.slabs),
        "preempted": donor.counters.num_preemptions,
        "median_ms": round(statistics.median(taking), 1),
        "most_ms": round(max(taking), 1),
        "without_a_slab_ms": round(statistics.median(others), 1) if others else None,
    }


def tokens(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(32_000) for _ in range(count)]


def run(scheduler: Scheduler) -> None:
    plan: StepPlan = scheduler.plan()
    sampled = [0 if chunk.samples else None for chunk in plan.chunks]
    values = [[-1.0] if chunk.samples else [] for chunk in plan.chunks]
    scheduler.commit(plan, StepResult(sampled, values, [0.0] * len(sampled)))


if __name__ == "__main__":
    main()
