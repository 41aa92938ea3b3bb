"""Shows the progress of batches until they are settled: a live bar in a terminal, occasional lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from ponder.cli.console import duration, err
from ponder.client import Client
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


def follow(
    client: Client, weights: Mapping[str, float], *, title: str = "jobs", each_round: Callable[[], None] | None = None
) -> dict[str, Json]:
    """Shows the progress of these batches until all are settled or have exhausted their budgets. Returns them.

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
            is_over = all(batch["status"] in SETTLED or is_exhausted(batch) for batch in batches.values())
            show(snapshot, pace, is_over)
            if is_over:
                return batches
            if each_round is not None:
                each_round()
            time.sleep(max(_POLL_S, _PAUSE_FACTOR * asking_s))


def is_exhausted(batch: Json) -> bool:
    """Returns whether a batch waits for a larger budget, or for its key's or tenant's next day or month."""
    waiting = (batch.get("ponder") or {}).get("waiting")
    return isinstance(waiting, dict) and bool(waiting.get("is_exhausted"))


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
            is_stuck = snapshot.waiting and not is_over and pace.is_still()
            live.update(Group(bar, Text(f"  waiting: {snapshot.waiting}", style="yellow")) if is_stuck else bar)

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
            self.console.print(f"{self.title}: {_jobs(snapshot)}, {figures}{waiting}", soft_wrap=True)


def _jobs(snapshot: Snapshot) -> str:
    failed = f" ({snapshot.num_failed:,} failed)" if snapshot.num_failed else ""
    return f"{snapshot.num_done:,}/{snapshot.num_jobs:,} jobs{failed}"


def _figures(snapshot: Snapshot, pace: Pace, is_over: bool) -> str:
    spent = f"{dollars(snapshot.nanodollars)} spent"
    if is_over:
        return f"{snapshot.tokens:,} tokens, {spent}"
    if snapshot.word != "in progress":
        return f"{snapshot.word}, {spent}"
    left_s = pace.left_s()
    left = f"{duration(left_s)} left" if left_s is not None else "time left unknown"
    return f"{pace.tokens_per_s():,.0f} tokens/s, {spent}, {left}"
