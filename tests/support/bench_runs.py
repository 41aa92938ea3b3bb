"""Documents of bench runs as `ponder bench` writes them, made up."""

from __future__ import annotations

import json
from typing import Any

from bench_records import record

from ponder.bench.bench_run import BenchRun, Bill, CellFigures
from ponder.bench.figures.accuracy import accuracy_of
from ponder.bench.figures.grades import Grades
from ponder.bench.figures.interval_estimate import Estimate
from ponder.bench.figures.throughput import Point, service_of
from ponder.bench.figures.user_times import user_times_of
from ponder.bench.grid import CellKey
from ponder.bench.suite import DataSet, Suite

_NANODOLLARS_A_TOKEN = 40


def cell(
    strategy: str, accuracy: float, *, num: int = 40, model: str = "demo", tokens: int = 300, budget: int | None = None
) -> CellFigures:
    """A cell whose first problems are solved, of three levels."""
    records = [
        record(
            f"p{number}",
            passed=number < accuracy * num,
            level=str(1 + number * 3 // num),
            completion_tokens=tokens + number,
            direct_nanodollars=(tokens + number) * _NANODOLLARS_A_TOKEN,
            submitted_at=1_790_000_000.0,
            first_token_at=1_790_000_001.0 + number / 50,
            first_visible_token_at=1_790_000_002.0 + number / 50,
            ended_at=1_790_000_004.0 + number / 5,
            settled_at=1_790_000_005.0 + number / 5,
        )
        for number in range(num)
    ]
    direct = sum(one.direct_nanodollars for one in records)
    num_passed = sum(one.has_passed for one in records) or 1
    per_success = direct / num_passed
    key = CellKey(
        data="arithmetic",
        model=model,
        worker=None,
        strategy=strategy,
        budget_tokens=budget,
        concurrency=None,
        arrivals="at once",
    )
    return CellFigures(
        key=key,
        domain="mathematics",
        began_at=1_790_000_000.0,
        batch_ids=("batch_0123456789abcdef01234567",),
        accuracy=accuracy_of(records, strategy, Grades(records, {}, None)),
        service=service_of(records, []),
        user=user_times_of(records),
        bill=Bill(
            direct=direct,
            loaded=direct * 2,
            direct_per_task=direct / num,
            loaded_per_task=direct * 2 / num,
            direct_per_success=Estimate(value=per_success, low=per_success * 0.8, high=per_success * 1.3),
            loaded_per_success=direct * 2 / num_passed,
        ),
        points=tuple(
            Point(at_s=at_s, kv_usage=0.1 + at_s % 7 / 10, num_running=8, num_waiting=30 - at_s, tokens_per_s=900.0)
            for at_s in range(30)
        ),
    )


def run(*cells: CellFigures, name: str = "demo", description: str = "Strategies on arithmetic.") -> Any:
    """The document of a run."""
    data = DataSet(name="arithmetic", path="arithmetic.jsonl", prompt="problem", answer="answer")
    suite = Suite(name=name, description=description, models=("demo",), data=(data,))
    made = BenchRun(ponder="0.1.0", suite=suite, began_at=1_790_000_000.0, ended_at=1_790_000_100.0, cells=cells)
    return json.loads(made.model_dump_json())
