"""Tables of a run, for terminals and for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from ponder.bench.bench_run import BenchRun, CellFigures
from ponder.bench.figures.interval_estimate import Estimate
from ponder.bench.paired import Difference, Measure
from ponder.cli.amount import Unit
from ponder.cli.console import Column
from ponder.domain.storable import JsonObject

_MEASURE_NAMES = {
    "accuracy": "accuracy",
    "output_tokens": "output tokens a job",
    "thinking_tokens": "thinking tokens a job",
    "first_visible_token_s": "time to first visible token, s",
    "end_to_end_s": "end to end, s",
    "direct_nanodollars": "direct cost of a job, nano-dollars",
}

_FEW = 20
"""Problems below which equal accuracy shows nothing."""
_OF_THE_MACHINE = ("first_visible_token_s", "end_to_end_s", "direct_nanodollars")
"""Measures that all jobs of a cell share a part of: how busy the machine was. No resampling of problems shows that."""


def written(value: float | None, digits: int = 3) -> str:
    """Formats a number with so many significant digits, or a dash."""
    if value is None:
        return "–"
    whole = abs(value) >= 10 ** (digits - 1)
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def with_interval(estimate: Estimate, digits: int = 2) -> str:
    """Formats a share or difference with its interval: `0.75 (0.67–0.82)`."""
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.{digits}f}"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"


def percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.0f} %" if abs(value) >= 0.1 or not value else f"{100 * value:.2g} %"


def unit_of(run: BenchRun) -> Unit:
    return Unit.of([cell.bill.direct_per_success.value for cell in run.cells])


def cell_columns(run: BenchRun, unit: Unit) -> list[Column]:
    """Returns the columns of the table of cells; its rows are {"cell": CellFigures}."""
    labels = run.labels

    def number(title: str, read: Callable[[CellFigures], str]) -> Column:
        return Column(title, lambda row: read(row["cell"]), is_number=True)

    return [
        Column("cell", lambda row: labels[row["cell"].key], may_fold=True),
        number("pass@1 (95 %)", lambda cell: with_interval(cell.accuracy.pass_1)),
        *(number(name, read) for name, read in judge_columns(run).items()),
        number("tokens/s", lambda cell: written(cell.service.output_tokens_per_s)),
        number("KV p99", lambda cell: percent(cell.service.kv_p99)),
        number("TTFVT p50", lambda cell: written(cell.user.first_visible_token_s.p50)),
        number("E2E p50", lambda cell: written(cell.user.end_to_end_s.p50)),
        number("p99", lambda cell: written(cell.user.end_to_end_s.p99)),
        number("stragglers", lambda cell: percent(cell.user.stragglers)),
        number("per task", lambda cell: unit.written(cell.bill.direct_per_task)),
        number("per success", lambda cell: unit.written(cell.bill.direct_per_success.value)),
        number("loaded", lambda cell: unit.written(cell.bill.loaded_per_success)),
    ]


def judge_columns(run: BenchRun) -> Mapping[str, Callable[[CellFigures], str]]:
    """Returns the share of jobs whose verdict is a model's, and how often the reference says the same; nothing where no
    job is judged by a model.
    """
    if not any(cell.accuracy.judged for cell in run.cells):
        return {}
    return {"by judge": lambda cell: percent(cell.accuracy.judged), "agreement": _agreement}


def _agreement(cell: CellFigures) -> str:
    found = cell.accuracy
    return f"{percent(found.agreement)} of {found.num_compared:,}" if found.num_compared else "–"


def cell_rows(run: BenchRun) -> list[dict[str, CellFigures]]:
    return [{"cell": cell} for cell in run.cells]


def verdict_rows(run: BenchRun) -> list[Mapping[str, str]]:
    """Returns the table that a comparison of settings ends in: a row for each cell of each setting, by name of column.

    The first setting has no difference. `kept accuracy?` says no only where chance does not explain the loss.
    """
    differences = {one.b: one for one in run.differences}
    return [
        {
            "cell": run.labels[cell.key],
            "kept accuracy?": _kept(differences.get(cell.key)),
            "accuracy": with_interval(cell.accuracy.pass_1),
            "tokens/s": written(cell.service.output_tokens_per_s),
            "TTFVT p50, s": written(cell.user.first_visible_token_s.p50),
            "E2E p50, s": written(cell.user.end_to_end_s.p50),
            "memory, MB": written(cell.service.memory_bytes and cell.service.memory_bytes / 2**20),
            "KV most": percent(cell.service.kv_most),
        }
        for cell in run.cells
    ]


def _kept(difference: Difference | None) -> str:
    accuracy = difference.measure("accuracy") if difference is not None else None
    if difference is None or accuracy is None:
        return "baseline"
    change = accuracy.difference
    if change.low is None or change.high is None or difference.num_problems < _FEW:
        return "too few problems to tell"
    between = f"{change.value or 0.0:+.2f} ({change.low:+.2f} to {change.high:+.2f})"
    answer = {"lower": "no", "higher": "yes, higher", "may be chance": "no loss seen"}[accuracy.meaning]
    return f"{answer}: {between}"


def difference_rows(difference: Difference) -> list[Mapping[str, str]]:
    """Returns a row for each measure of a comparison, by name of column."""
    return [
        {
            "measure": _MEASURE_NAMES[one.name],
            "A": written(one.a),
            "B": written(one.b),
            "B - A (95 %)": _signed(one.difference),
            "so B is": _conclusion(one),
        }
        for one in difference.measures
    ]


def _conclusion(measure: Measure) -> str:
    change = measure.difference
    if change.value == change.low == change.high == 0:
        return "no different in these problems"
    if measure.meaning == "may be chance":
        return "perhaps no different: it may be chance"
    return f"{measure.meaning}, unless other load explains it" if measure.name in _OF_THE_MACHINE else measure.meaning


def _signed(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return written(estimate.value)
    return f"{estimate.value:+.3g} ({estimate.low:+.3g} to {estimate.high:+.3g})"


def columns_of(rows: Sequence[Mapping[str, str]]) -> list[Column]:
    """Returns columns for rows of text, in the order of the first one."""
    return [Column(name, itemgetter(name), may_fold=True) for name in (rows[0] if rows else ())]


def as_csv(run: BenchRun) -> str:
    """Writes a line for each cell with every figure, whose columns are its paths in the JSON."""
    rows = [_flat(cell.model_dump(mode="json", exclude={"points", "batch_ids"})) for cell in run.cells]
    fields = list(dict.fromkeys(name for row in rows for name in row))
    target = io.StringIO()
    writer = csv.DictWriter(target, fieldnames=fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue()


def _flat(document: Mapping[str, Any], prefix: str = "") -> JsonObject:
    flat: JsonObject = {}
    for name, value in document.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            for one in value:
                flat |= _flat(one, f"{prefix}{name}.{one.get('level')}.") if isinstance(one, dict) else {}
        else:
            flat[f"{prefix}{name}"] = value
    return flat
