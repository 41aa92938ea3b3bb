"""Draws how a batch went: its throughput, tokens, dollars and verdicts over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from ponder.console.figures import short
from ponder.console.plot import Axis, Scale, Series, clock, line_plot
from ponder.domain.money import dollars
from ponder.domain.storable import JsonObject

_ENDED = ("completed", "failed", "expired", "cancelled")
_VERDICTS = (("passed", "series-good"), ("failed", "series-bad"), ("unverified", "series-unknown"))


@dataclass(frozen=True, slots=True)
class _Stretches:
    """All stretches of a batch's time, also those in which nothing happened. `ends_at` and `seconds` are of each.

    `is_cut`: the last one is too short for a rate of its own, or not over yet.
    """

    ends_at: Sequence[float]
    seconds: Sequence[float]
    gains: Sequence[Mapping[str, Any]]
    is_cut: bool = False
    is_open: bool = False

    @classmethod
    def of(cls, history: JsonObject, *, is_open: bool) -> _Stretches:
        length, begin, end = history["seconds"], history["begin_at"], history["end_at"]
        by_begin = {stretch["at"]: stretch for stretch in history["data"]}
        if not by_begin:
            return cls((), (), ())
        first = begin // length * length
        last = max(end, *by_begin)
        starts = [first + length * number for number in range(int((last - first) // length) + 1)]
        ends = [min(start + length, max(end, start + 1)) for start in starts]
        seconds = [max(stop - max(start, begin), 1.0) for start, stop in zip(starts, ends, strict=True)]
        gains = [by_begin.get(start, {}) for start in starts]
        is_cut = end - starts[-1] < (length if is_open else length / 2)
        return cls(ends, seconds, gains, is_cut=is_cut, is_open=is_open)

    def rates(self, gain: Callable[[Mapping[str, Any]], float], per_s: float) -> list[tuple[float, float]]:
        """Returns the rate of each stretch. A cut one counts with the one before, or not yet if the batch is open."""
        amounts = [gain(found) if found else 0.0 for found in self.gains]
        rows = list(zip(self.ends_at, self.seconds, amounts, strict=True))
        if self.is_cut and len(rows) > 1:
            end, seconds, amount = rows.pop()
            if not self.is_open:
                _, earlier_seconds, earlier = rows.pop()
                rows.append((end, earlier_seconds + seconds, earlier + amount))
        return [(end, amount / seconds * per_s) for end, seconds, amount in rows]

    def sums(self, gain: Callable[[Mapping[str, Any]], float], before: float = 0.0) -> list[tuple[float, float]]:
        totals = accumulate((gain(found) if found else 0.0 for found in self.gains), initial=before)
        return list(zip(self.ends_at, list(totals)[1:], strict=True))


def batch_plots(batch: JsonObject, history: JsonObject) -> list[Markup]:
    """Returns the plots of a batch object and its history."""
    found = _Stretches.of(history, is_open=batch["status"] not in _ENDED)
    time, spending = _time_axis(found), _spending(batch, found)
    return [
        line_plot(
            "Throughput",
            [Series("settled", found.rates(lambda one: one["completed"] + one["failed"], 60.0))],
            time,
            Axis("jobs per minute", lambda value: f"{value:,.3g}"),
            is_filled=True,
        ),
        line_plot(
            "Generated tokens",
            [Series("generated", found.rates(lambda one: one["generated_tokens"], 1.0), "series-3")],
            time,
            Axis("tokens per second", short),
            is_filled=True,
        ),
        line_plot("Dollars", spending, time, Axis("dollars", dollars), is_filled=len(spending) == 1),
        line_plot("Verdicts", _verdicts(batch, found), time, Axis("jobs", short)),
    ]


def _spending(batch: JsonObject, found: _Stretches) -> list[Series]:
    """Returns what was spent, and the limit if it is near enough for the same scale."""
    own = batch["ponder"]
    recorded = sum(one.get("direct_nanodollars", 0) for one in found.gains)
    spent = found.sums(lambda one: one["direct_nanodollars"], max(0, own["direct_nanodollars"] - recorded))
    series = [Series("spent", spent, "series-2")]
    limit = (own["budget"] or {}).get("limit_nanodollars")
    if limit is not None and spent and limit < 4 * max(spent[-1][1], 1):
        series.append(Series("budget", [(spent[0][0], limit), (spent[-1][0], limit)], "series-bad"))
    return series


def _verdicts(batch: JsonObject, found: _Stretches) -> list[Series]:
    series = []
    for name, style in _VERDICTS:
        recorded = sum(one["verdicts"][name] for one in found.gains if one)
        before = max(0, batch["ponder"]["verdicts"][name] - recorded)
        points = found.sums(lambda one, name=name: one["verdicts"][name], before)  # type: ignore[misc]
        if points and points[-1][1]:
            series.append(Series(name, points, style))
    return series


def _time_axis(found: _Stretches) -> Axis:
    low, high = (found.ends_at[0], found.ends_at[-1]) if found.ends_at else (0.0, 1.0)
    scale = Scale(low, high, 0.0, 1.0)
    return Axis("time (UTC)", lambda value: clock(value, scale), is_time=True)
