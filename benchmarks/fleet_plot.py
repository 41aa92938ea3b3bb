"""Plots of what benchmarks/fleet.py measured: workers and backlog over time, and dollars and waste by arm.

python benchmarks/fleet_plot.py benchmarks/results/fleet.json docs/images
"""

import json
import sys
from pathlib import Path
from typing import Any

from ponder.bench.report.svg_plot import Dot, Series, plot

STYLE = "<style>text{font:11px sans-serif;fill:#333}.axis{stroke:#333}.grid{stroke:#ddd}svg{background:#fff}</style>"
Moment = dict[str, float]
SHORT = {"ponder without notices": "no notices", "ponder without token checkpoints": "no token checkpoints"}
"""Names of arms that are too long for the legend."""


def main(source: Path, folder: Path) -> None:
    report = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in {
        "fleet-workers": workers(report["plotted"]["moments"]),
        "fleet-backlog": backlog(report["plotted"]["moments"]),
        "fleet-arms": arms(report["all"]),
    }.items():
        head, end, rest = drawn.partition(">")
        (folder / f"{name}.svg").write_text(f"{head}{end}{STYLE}{rest}\n")


def workers(moments: list[Moment]) -> str:
    names = {"num_nodes": "spot machines", "num_spot": "spot workers", "num_on_demand": "on-demand workers"}
    return plot([over_time(moments, shown, name) for name, shown in names.items()], x="hours", y="machines")


def backlog(moments: list[Moment]) -> str:
    return plot([over_time(moments, "backlog", "backlog_tokens", 10**6)], x="hours", y="million tokens")


def arms(found: dict[str, Any]) -> str:
    """Draws each arm's dollars and waste: the medians of the cases' medians, and the range of waste."""
    series = []
    for name, figures in found.items():
        dollars, waste = figures["dollars_to_on_demand"], figures["waste"]
        ends = {"low": 100 * waste["low"], "high": 100 * waste["high"]}
        series.append(Series(SHORT.get(name, name), [Dot(dollars["median"], 100 * waste["median"], **ends)]))
    return plot(series, x="dollars, as a share of those of on-demand machines only", y="% recomputed or lost")


def over_time(moments: list[Moment], shown: str, name: str, unit: float = 1) -> Series:
    return Series(shown, [Dot(moment["at_s"] / 3_600, moment[name] / unit) for moment in moments], has_marks=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
