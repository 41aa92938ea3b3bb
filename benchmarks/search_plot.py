"""Plot of what benchmarks/search.py measured: accuracy over tokens and dollars, by strategy and level.

    python benchmarks/search_plot.py benchmarks/results/search.json docs/images

It needs matplotlib, which ponder itself does not.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

COSTS = {"tokens": "generated tokens a job", "dollars": "dollars a job"}
SHOWN = {"tokens": "{x:g}", "dollars": "{x:.0e}"}
MARKERS = "osD^v<>PX*h"
OFF_SCALE = ("budget_forcing", "answer_probing")
"""So far below one sample that the curves above would be one line; their figures are in the JSON."""


def main(source: Path, folder: Path) -> None:
    mpl.rcParams.update({"font.size": 9})
    report = json.loads(source.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for cost in COSTS:
        draw(report, cost, folder / f"search-{cost}.png")


def draw(report: dict[str, Any], cost: str, target: Path) -> None:
    """Draws the panels. On each level a circle marks the setting with the lowest cost per successful task."""
    points = curves(report)
    levels = list(next(iter(report["settings"].values()))["levels"])
    figure, axes = plt.subplots(2, 3, figsize=(11, 8), sharey=False)
    for place, level in zip(axes.flat, levels, strict=True):
        for number, (name, settings) in enumerate(points.items()):
            cells = [one["levels"][level] for one in settings]
            place.plot(
                [cell[cost] for cell in cells],
                [cell["accuracy"] for cell in cells],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                label=name,
                **style(name),
            )
        name, cell = cheapest(report, level, cost)
        place.plot(cell[cost], cell["accuracy"], "o", markersize=14, fillstyle="none", color="crimson", zorder=6)
        where = "all levels" if level == "mixed" else f"level {level}"
        place.set_title(f"{where}; cheapest success:\n{name}", fontsize=8)
        place.set_xscale("log")
        place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        place.xaxis.set_major_formatter(SHOWN[cost])
        place.xaxis.set_minor_formatter(NullFormatter())
        low, high = place.get_ylim()
        place.set_ylim(max(0.0, low - 0.03), min(1.02, high + 0.03))
        place.set_xlabel(COSTS[cost])
        place.set_ylabel("accuracy")
        place.grid(alpha=0.3)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=7)
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.savefig(target, dpi=90, metadata={"Software": None})
    plt.close(figure)


def drawn(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures to draw. Settings with fewer problems than others are left out, as they would not be comparable."""
    most = max(setting["levels"]["mixed"]["problems"] for setting in report["settings"].values())
    return {
        name: setting for name, setting in report["settings"].items() if setting["levels"]["mixed"]["problems"] == most
    }


def style(name: str) -> dict[str, Any]:
    """`adaptive` stands out. The large model's curves are dashed, and those of cascades dotted."""
    dashes = "--" if name.startswith("large ") else ":" if name.startswith("cascade") else "-"
    bold = {"linewidth": 2.5, "color": "black", "zorder": 5} if name.endswith("adaptive") else {"linewidth": 1}
    return {"linestyle": dashes} | bold


def curves(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The settings of each strategy by n or threshold, without early stopping and outliers.

    Every curve of one model begins with one sample. A cascade of one threshold is one point.
    """
    settings = drawn(report)
    points: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for setting in settings.values():
        is_plain = setting["early_stopping"] is None and setting["worth"] is None
        if is_plain and setting["strategy"] not in OFF_SCALE:
            points[setting["curve"]].append(setting)
    made = {}
    for name, parts in points.items():
        first = settings.get("large direct n=1" if name.startswith("large ") else "direct n=1")
        begins = first is not None and first not in parts and not name.startswith("cascade")
        made[name] = ([first] if begins else []) + sorted(parts, key=lambda part: (part["n"], part["threshold"] or 0))
    return made


def cheapest(report: dict[str, Any], level: str, cost: str) -> tuple[str, dict[str, Any]]:
    per_success = f"{cost}_per_success"
    cells = {name: setting["levels"][level] for name, setting in drawn(report).items()}
    solved = {name: cell for name, cell in cells.items() if cell[per_success] is not None}
    name = min(solved, key=lambda one: solved[one][per_success])
    return name, solved[name]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
