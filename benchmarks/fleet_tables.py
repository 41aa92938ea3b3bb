"""Prints what benchmarks/fleet.py measured as the tables of docs/fleet.md.

    python benchmarks/fleet_tables.py benchmarks/results/fleet.json

Figures are medians over the seeds, with their range where it is not a point.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TRACES = {
    "g4dn": "Bamboo, g4dn (AWS)",
    "p3": "Bamboo, p3 (AWS)",
    "a100": "Bamboo, A100 (Google Cloud)",
    "v100": "Bamboo, V100 (Google Cloud)",
    "p2": "Bamboo, p2 (AWS)",
    "dime": "DIME, probes of AWS",
    "spotserve": "SpotServe, g4dn.12xlarge",
}
"""The names of traces in the docs."""
Figure = Mapping[str, float]


def main(source: Path) -> None:
    report = json.loads(source.read_text())
    print(table(CASE_COLUMNS, [case_row(name, case) for name, case in report["cases"].items()]))
    print()
    print(table(ARM_COLUMNS, [arm_row(name, arm) for name, arm in report["all"].items()]))
    print()
    print(summary(report["cases"]))


CASE_COLUMNS = (
    "trace, load", "a node is taken in an hour", "recomputed or lost", "with loading", "dollars to on-demand only",
    "jobs", "late", "late on demand", "late here alone", "late on demand alone",
)  # fmt: skip
ARM_COLUMNS = (
    "arm", "recomputed or lost", "with loading", "dollars to on-demand only", "late, and in time on demand"
)  # fmt: skip


def case_row(name: str, case: Mapping[str, Any]) -> list[str]:
    trace, load = name.split()
    mix, on_demand = case["arms"]["ponder"], case["arms"]["on-demand only"]
    return [
        f"{TRACES[trace]}, {load}", f"{case['removals_per_node_hour']:.2f}",
        spread(mix["waste"], percent), spread(mix["waste_and_loading"], percent),
        spread(mix["dollars_to_on_demand"], ratio), spread(mix["jobs"], whole), spread(mix["missed"], whole),
        spread(on_demand["missed"], whole), spread(mix["missed_by_it_alone"], whole),
        spread(mix["missed_by_on_demand_alone"], whole),
    ]  # fmt: skip


def arm_row(name: str, arm: Mapping[str, Figure]) -> list[str]:
    shown = {"waste": percent, "waste_and_loading": percent, "dollars_to_on_demand": ratio, "missed_by_it_alone": whole}
    return [name, *(spread(arm[figure], show) for figure, show in shown.items())]


def summary(cases: Mapping[str, Any]) -> str:
    """Returns a sentence about the jobs that were late here or there alone, in all cases together."""
    mix = [case["arms"]["ponder"] for case in cases.values()]
    here, there, jobs = (
        sum(arm[name]["median"] for arm in mix) for name in ("missed_by_it_alone", "missed_by_on_demand_alone", "jobs")
    )
    return f"late here alone {here:,g}, late on demand alone {there:,g}, of {jobs:,.0f} jobs"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    head, *lines = (f"| {' | '.join(row)} |" for row in (columns, *rows))
    return "\n".join([head, "|---" * len(columns) + "|", *lines])


def spread(figure: Figure, show: Callable[[float], str]) -> str:
    """Returns a median, and the range unless it looks the same."""
    median, low, high = (show(figure[name]) for name in ("median", "low", "high"))
    return median if low == high else f"{median} ({low} to {high})"


def percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %")


def ratio(value: float) -> str:
    return f"{value:.2f}"


def whole(number: float) -> str:
    return f"{number:g}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
