"""Shows the progress of batches until they are settled: a live bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from ponder.cli.console import duration, err
from ponder.client import Client
from ponder.domain.budget import BudgetName
from ponder.domain.money import dollars
from ponder.wire import Json

SETTLED = ("completed", "failed", "expired", "cancelled")
_POLL_S = 0.5
_PAUSE_FACTOR = 4
"""Pauses per time spent asking, so that a slow API is asked less often: asking takes a fifth of the time."""
_LINE_EVERY_S = 10.0
_SHORT_S = 15.0
_LONG_S = 60.0
_STILL_S = 4.0
_STEP_S = 3.0
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All watched batches together, at one moment. `share` is the done part of the expected work, from 0 to 1."""

    at_s: float
    num_done: int
    num_failed: int
    num_jobs: int
    share: float
    tokens: int
    nanodollars: int
    word: str
    waiting: str
    is_late: bool = False
    projection: Json | None = None
    """The projection of the only batch, as the API makes it."""


@dataclass(slots=True)
class Pace:
    """The recent pace: tokens per second over 15 seconds, and the remaining time by the last minute."""

    snapshots: deque[Snapshot] = field(default_factory=deque)

    def add(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        while snapshot.at_s - self.snapshots[0].at_s > _LONG_S:
            self.snapshots.popleft()

    def is_still(self) -> bool:
        """Returns whether nothing was settled for a while."""
        first = self._since(_STILL_S)
        return self.snapshots[-1].at_s - first.at_s >= _STILL_S / 2 and self.snapshots[-1].num_done == first.num_done

    def tokens_per_s(self) -> float:
        return self._rate(lambda snapshot: snapshot.tokens, self._since(_SHORT_S))

    def sparkline(self) -> str:
        """Draws the tokens per second of the last minute, in steps of three seconds; nothing before the second step."""
        ends = [self.snapshots[-1].at_s - step * _STEP_S for step in range(int(_LONG_S / _STEP_S), -1, -1)]
        known = [end for end in ends if end >= self.snapshots[0].at_s]
        if len(known) < 3:
            return ""
        totals = [self._tokens_at(end) for end in known]
        rates = [max(0.0, later - earlier) for earlier, later in pairwise(totals)]
        most = max(rates) or 1.0
        return "".join(_BARS[round(rate / most * (len(_BARS) - 1))] for rate in rates)

    def _tokens_at(self, at_s: float) -> float:
        """Returns the tokens at a moment between two snapshots, as if they had come evenly."""
        after = next(index for index, one in enumerate(self.snapshots) if one.at_s >= at_s)
        later, earlier = self.snapshots[after], self.snapshots[max(0, after - 1)]
        passed = (at_s - earlier.at_s) / (later.at_s - earlier.at_s) if later.at_s > earlier.at_s else 1.0
        return earlier.tokens + passed * (later.tokens - earlier.tokens)

    def left_s(self) -> float | None:
        """Returns the seconds that are left, or None until a job is done."""
        # Counted from the first finished job, because the time before it was spent on starting.
        first = next((one for one in self.snapshots if one.share > 0), self.snapshots[-1])
        rate = self._rate(lambda snapshot: snapshot.share, first)
        return (1 - self.snapshots[-1].share) / rate if rate > 0 else None

    def _since(self, seconds: float) -> Snapshot:
        """Returns the oldest snapshot of the last so many seconds."""
        return next(one for one in self.snapshots if self.snapshots[-1].at_s - one.at_s <= seconds)

    def _rate(self, amount: Callable[[Snapshot], float], first: Snapshot) -> float:
        last = self.snapshots[-1]
        passed_s = last.at_s - first.at_s
        return (amount(last) - amount(first)) / passed_s if passed_s > 0 else 0.0


def is_over(batch: Json) -> bool:
    """Returns whether a batch is settled, or waits for a larger budget or for a yes to its pilot."""
    return batch["status"] in SETTLED or is_exhausted(batch) or is_pilot_waiting(batch)


def follow(
    client: Client,
    weights: Mapping[str, float],
    *,
    title: str = "jobs",
    each_round: Callable[[], None] | None = None,
    until: Callable[[Json], bool] = is_over,
) -> dict[str, Json]:
    """Shows the progress of these batches until all are over, or as far as `until` says. Returns them.

    `weights` are the relative amounts of work per job of each batch, for estimating the remaining time. `each_round` is
    called between two looks.
    """
    batches: dict[str, Json] = {}
    pace = Pace()
    with _display(title) as show:
        while True:
            asked_at_s = time.monotonic()
            for batch_id in weights:
                if batches.get(batch_id, {}).get("status") not in SETTLED:
                    batches[batch_id] = client.batch(batch_id)
            asking_s = time.monotonic() - asked_at_s
            snapshot = _snapshot(batches, weights)
            pace.add(snapshot)
            is_last = all(until(batch) for batch in batches.values())
            show(snapshot, pace, is_last)
            if is_last:
                return batches
            if each_round is not None:
                each_round()
            time.sleep(max(_POLL_S, _PAUSE_FACTOR * asking_s))


def is_exhausted(batch: Json) -> bool:
    """Returns whether a batch waits for a larger budget, or for its key's or tenant's next day or month."""
    return bool(_waiting_for(batch).get("is_exhausted"))


def is_pilot_waiting(batch: Json) -> bool:
    """Returns whether the pilot of a batch is settled and the rest waits for an answer."""
    pilot = (batch.get("ponder") or {}).get("pilot") or {}
    return _waiting_for(batch).get("reason") == "pilot" and pilot.get("state") == "waiting"


def _waiting_for(batch: Json) -> Json:
    """Returns why a batch waits, as the API says it; empty if it does not."""
    waiting = (batch.get("ponder") or {}).get("waiting")
    return waiting if isinstance(waiting, dict) else {}


def _snapshot(batches: Mapping[str, Json], weights: Mapping[str, float]) -> Snapshot:
    done = {
        name: batch["request_counts"]["completed"] + batch["request_counts"]["failed"]
        for name, batch in batches.items()
    }
    work = sum(batch["request_counts"]["total"] * weights[name] for name, batch in batches.items())
    open_batches = [batch for batch in batches.values() if batch["status"] not in SETTLED]
    return Snapshot(
        at_s=time.monotonic(),
        num_done=sum(done.values()),
        num_failed=sum(batch["request_counts"]["failed"] for batch in batches.values()),
        num_jobs=sum(batch["request_counts"]["total"] for batch in batches.values()),
        share=sum(done[name] * weights[name] for name in batches) / work if work else 0.0,
        tokens=sum(_own(batch, "tokens_generated") for batch in batches.values()),
        nanodollars=sum(_own(batch, "direct_nanodollars") for batch in batches.values()),
        word=_word(open_batches, batches),
        waiting=next((text for batch in open_batches if (text := _waiting(batch))), ""),
        is_late=any(_waiting_for(batch).get("reason") == "late" for batch in open_batches),
        projection=(open_batches[0].get("ponder") or {}).get("projection")
        if len(batches) == len(open_batches) == 1
        else None,
    )


def _word(open_batches: list[Json], batches: Mapping[str, Json]) -> str:
    """Returns the state of the least advanced batch."""
    states = [batch["status"] for batch in open_batches or batches.values()]
    known = ("validating", "in_progress", "cancelling")
    return str(min(states, key=lambda state: known.index(state) if state in known else len(known))).replace("_", " ")


def _own(batch: Json, name: str) -> int:
    return int((batch.get("ponder") or {}).get(name) or 0)


def _waiting(batch: Json) -> str:
    waiting = (batch.get("ponder") or {}).get("waiting")
    if not isinstance(waiting, dict):
        return ""
    is_next = waiting.get("reason") in ("queued", "window") and not waiting.get("tokens_ahead")
    return "it is next" if is_next else str(waiting.get("message") or "")


_Show = Callable[[Snapshot, Pace, bool], None]


@contextmanager
def _display(title: str) -> Iterator[_Show]:
    console = err()
    if not console.is_terminal:
        yield _Lines(console, title).show
        return
    bar = Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[jobs]}"),
        TextColumn("{task.fields[figures]}", style="cyan"),
        console=console,
        expand=True,
    )
    task = bar.add_task(title, total=1.0, jobs="", figures="")
    with Live(bar, console=console, refresh_per_second=8) as live:

        def show(snapshot: Snapshot, pace: Pace, is_over: bool) -> None:
            line: Json = {"jobs": _jobs(snapshot), "figures": _figures(snapshot, pace, is_over)}
            bar.update(task, completed=1.0 if is_over else min(snapshot.share, 0.999), **line)
            told = [pace.sparkline(), outlook(snapshot.projection)] if not is_over else []
            below = [Text(f"  {'  '.join(filter(None, told))}", style="cyan")] if any(told) else []
            if snapshot.waiting and not is_over and (snapshot.is_late or pace.is_still()):
                below.append(Text(f"  waiting: {snapshot.waiting}", style="yellow"))
            live.update(Group(bar, *below))

        yield show


@dataclass(slots=True)
class _Lines:
    """Progress as lines, for logs and pipes."""

    console: Console
    title: str
    last: str = ""
    last_s: float = float("-inf")

    def show(self, snapshot: Snapshot, pace: Pace, is_over: bool) -> None:
        """Prints a line when the state changes, and every ten seconds."""
        word = snapshot.word + snapshot.waiting
        if word != self.last or snapshot.at_s - self.last_s >= _LINE_EVERY_S or is_over:
            self.last, self.last_s = word, snapshot.at_s
            waiting = f", waiting: {snapshot.waiting}" if snapshot.waiting and not is_over else ""
            figures = _figures(snapshot, pace, is_over)
            told = outlook(snapshot.projection)
            more = f", {told}" if told and not is_over else ""
            self.console.print(f"{self.title}: {_jobs(snapshot)}, {figures}{more}{waiting}", soft_wrap=True)


def _jobs(snapshot: Snapshot) -> str:
    failed = f" ({snapshot.num_failed:,} failed)" if snapshot.num_failed else ""
    return f"{snapshot.num_done:,}/{snapshot.num_jobs:,} jobs{failed}"


def _figures(snapshot: Snapshot, pace: Pace, is_over: bool) -> str:
    spent = f"{dollars(snapshot.nanodollars)} spent"
    if is_over:
        return f"{snapshot.tokens:,} tokens, {spent}"
    if snapshot.word != "in progress":
        return f"{snapshot.word}, {spent}"
    left_s = ((snapshot.projection or {}).get("seconds_left") or {}).get("estimate")
    left_s = pace.left_s() if left_s is None else left_s
    left = f"{duration(left_s)} left" if left_s is not None else "time left unknown"
    return f"{pace.tokens_per_s():,.0f} tokens/s, {spent}, {left}"


def outlook(projection: Json | None) -> str:
    """Says what a batch is projected to cost, when it ends, and whether its budget lasts; nothing if nobody knows."""
    if projection is None or projection["total_nanodollars"]["estimate"] is None:
        return ""
    said = [f"{between(projection['total_nanodollars'], dollars)} in the end"]
    if projection["seconds_left"]["estimate"] is not None:
        said.append(f"done in {between(projection['seconds_left'], duration)}")
    budget = projection["budget"]
    if budget is not None:
        which = BudgetName(budget["budget"]).words.replace("budget", f"budget of {budget['measure']}")
        words = {"no": "the budget lasts", "maybe": f"{which} may run out", "yes": f"{which} runs out"}
        is_timed = budget["seconds"]["estimate"] is not None
        when = f" in {between(budget['seconds'], duration)}" if is_timed else ""
        said.append(words[budget["runs_out"]] + when)
    return ", ".join(said)


def between(total: Json, written: Callable[[float], str]) -> str:
    """Writes an estimate with its interval."""
    return f"{written(total['estimate'])} ({written(total['low'])} to {written(total['high'])})"
