"""The tables of docs/benchmarks/strategies.md, from what benchmarks/search.py measured.

python benchmarks/search_tables.py benchmarks/results/search.json
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEVELS = ("1", "2", "3", "4", "5")


def main(source: Path) -> None:
    report = json.loads(source.read_text())
    for table in (settings(report), reached(report), stopping(report)):
        print("\n".join(table), end="\n\n")


def settings(report: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each setting; ‡ marks those that had fewer problems."""
    rows = {name: one["levels"] for name, one in report["settings"].items()}
    most = max(levels["mixed"]["problems"] for levels in rows.values())
    yield "| setting | 1 | 2 | 3 | 4 | 5 | all (95 %) | tokens | scored | µ$ per job | µ$ per success (95 %) |"
    yield "|---" * 11 + "|"
    for name, levels in rows.items():
        cell = levels["mixed"]
        mark = "" if cell["problems"] == most else " ‡"
        accuracies = [f"{levels[level]['accuracy']:.2f}" if level in levels else "–" for level in LEVELS]
        price = cell["dollars_per_success"]
        interval = cell["dollars_per_success_95"]
        success = "–" if price is None else money(price) + (f" ({span(interval, money)})" if interval else "")
        yield line(
            name + mark,
            *accuracies,
            f"{cell['accuracy']:.3f} ({span(cell['accuracy_95'], '{:.2f}'.format)})",
            f"{cell['tokens']:.0f}",
            f"{cell['reward_tokens']:.0f}",
            money(cell["dollars"]),
            success,
        )


def reached(report: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each level of accuracy and strategy that reaches it, with the share of its cost."""
    yield "| among | fixed setting | its accuracy | reached by | gain (95 %) | share of its cost per success (95 %) |"
    yield "|---" * 6 + "|"
    for pool, levels in report["reached"].items():
        for level in levels:
            found = {name: level[name] for name in ("adaptive", "cascade") if name in level}
            if not found:
                yield line(pool, level["fixed"], f"{level['accuracy']:.3f}", "none", "–", "–")
            for one in found.values():
                low, high = one["cost_per_success_ratio_95"]
                share = f"{1 / one['cost_per_success_ratio']:.2f} ({1 / high:.2f}–{1 / low:.2f})"
                gain = f"{one['accuracy_gain']:+.3f} ({span(one['accuracy_gain_95'], '{:+.3f}'.format)})"
                yield line(pool, level["fixed"], f"{level['accuracy']:.3f}", one["setting"], gain, share)


def stopping(report: dict[str, Any]) -> Iterator[str]:
    """Yields a line for each rule: how much it saves against all samples, and how many verdicts it changed."""
    yield "| setting | problems | tokens saved (95 %) | cost per success saved (95 %) | verdicts won | lost |"
    yield "|---" * 6 + "|"
    for one in report["early_stopping"]:
        tokens, cost = saved(one, "tokens_ratio"), saved(one, "cost_per_success_ratio")
        yield line(
            one["setting"], str(one["problems"]), tokens, cost, str(one["verdicts_won"]), str(one["verdicts_lost"])
        )


def saved(one: dict[str, Any], ratio: str) -> str:
    low, high = one[f"{ratio}_95"]
    return f"{1 - 1 / one[ratio]:.0%} ({1 - 1 / low:.0%}–{1 - 1 / high:.0%})"


def money(dollars: float) -> str:
    """Returns micro-dollars to three places."""
    return f"{dollars * 1e6:.3g}"


def span(interval: list[float], form: Any) -> str:
    return "–".join(map(form, interval))


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
