"""Public traces of spot machines that come and go, read into one form.

Bamboo (Thorpe et al., NSDI 2023): the nodes that groups of g4dn and p3 instances gained and lost, and the sizes of
groups of K80, V100 and A100 instances. SpotServe (Miao et al., ASPLOS 2024): three recorded scenarios, one after the
other. DIME: probes of eight kinds of AWS instances, each of which counts as one node.
"""

import csv
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

_SCENARIOS = ("trace_0203.txt", "trace_0304.txt", "trace_0506.txt")
_CREATED = re.compile(r"Created instance (\S+) with (\d+) GPU\(s\) of type (\w+) in zone (\S+)")
_GONE = re.compile(r"Instance (\S+) not running")
_GROUP_GROWS_S = 900.0
"""Groups that are empty at first are complete by then."""


@dataclass(frozen=True, slots=True)
class Change:
    """A node that becomes available, or that is taken away."""

    at_s: float
    node: str
    is_added: bool


@dataclass(frozen=True, slots=True)
class SpotTrace:
    """The nodes at the beginning, the changes after it in order, and the length, after which it begins again."""

    nodes: tuple[str, ...]
    changes: tuple[Change, ...]
    length_s: float

    @classmethod
    def of(cls, changes: Iterable[Change], begin_s: float = 0.0, end_s: float | None = None) -> "SpotTrace":
        """Makes what happened until `begin_s` the beginning."""
        ordered = sorted(changes, key=lambda change: change.at_s)
        end_s = ordered[-1].at_s if end_s is None else end_s
        nodes = _nodes(change for change in ordered if change.at_s <= begin_s)
        later = (change for change in ordered if change.at_s > begin_s)
        moved = tuple(Change(change.at_s - begin_s, change.node, change.is_added) for change in later)
        return cls(nodes, moved, end_s - begin_s)

    @property
    def mean_nodes(self) -> float:
        number, before_s, area = len(self.nodes), 0.0, 0.0
        for change in self.changes:
            area += number * (change.at_s - before_s)
            number, before_s = number + (1 if change.is_added else -1), change.at_s
        return (area + number * (self.length_s - before_s)) / self.length_s

    @property
    def removals_per_node_hour(self) -> float:
        removals = sum(not change.is_added for change in self.changes)
        return removals / (self.mean_nodes * self.length_s / 3_600)

    def thinned(self, num_nodes: float, chance: random.Random) -> "SpotTrace":
        """Returns the trace of a random part of the nodes, about `num_nodes` at a time."""
        share = num_nodes / self.mean_nodes
        names = sorted({*self.nodes, *(change.node for change in self.changes)})
        kept = {name for name in names if share >= 1 or chance.random() < share}
        changes = tuple(change for change in self.changes if change.node in kept)
        return SpotTrace(tuple(name for name in self.nodes if name in kept), changes, self.length_s)

    def replayed(self, offset_s: float) -> Iterator[Change]:
        """Yields the changes from a moment of the trace on, without end. The nodes of that moment are added at 0.

        Where the trace begins again, only the difference in numbers makes changes.
        """
        numbers = count()
        start_s = -offset_s
        begun = [Change(0.0, node, is_added=True) for node in self.nodes]
        begun += [change for change in self.changes if change.at_s <= offset_s]
        names = {node: f"node {next(numbers)}" for node in _nodes(begun)}
        yield from (Change(0.0, name, is_added=True) for name in names.values())
        while True:
            for change in self.changes:
                if (at_s := start_s + change.at_s) <= 0:
                    continue
                if change.is_added:
                    names[change.node] = f"node {next(numbers)}"
                yield Change(at_s, names[change.node] if change.is_added else names.pop(change.node), change.is_added)
            start_s += self.length_s
            left = list(names.values())
            names = {}
            for node in self.nodes:
                if left:
                    names[node] = left.pop()
                else:
                    names[node] = f"node {next(numbers)}"
                    yield Change(start_s, names[node], is_added=True)
            yield from (Change(start_s, name, is_added=False) for name in left)


def bamboo_nodes(path: Path, begin_s: float = 0.0) -> SpotTrace:
    """Reads lines of milliseconds, `add` or `remove`, and a node."""
    with path.open(newline="") as file:
        changes = [Change(int(ms) / 1000, node, what == "add") for ms, what, node in csv.reader(file)]
    return SpotTrace.of(changes, begin_s)


def g4dn(path: Path) -> SpotTrace:
    return bamboo_nodes(path, _GROUP_GROWS_S)


def group_sizes(path: Path) -> SpotTrace:
    """Reads lines of a date, a time and a number of instances. Of lines about the same moment the last one counts."""
    with path.open(newline="") as file:
        rows = [(datetime.fromisoformat(f"{day} {at.strip()}"), int(size)) for day, at, size in csv.reader(file)]
    start = min(at for at, _ in rows)
    return _sized([((at - start).total_seconds(), size) for at, size in rows])


def hourly_sizes(path: Path) -> SpotTrace:
    """Reads lines of hours and a number of instances, those before and after each change."""
    with path.open(newline="") as file:
        return _sized([(float(hours) * 3_600, int(size)) for hours, size in csv.reader(file)], _GROUP_GROWS_S)


def probes(path: Path) -> SpotTrace:
    """Reads the log of a program that kept asking for one instance of each kind."""
    changes, kinds = [], dict[str, str]()
    lines = [line for line in path.read_text().splitlines() if line.startswith("[")]
    times = [datetime.fromisoformat(line[1:20]) for line in lines]
    for at, line in zip(times, lines, strict=True):
        at_s = (at - times[0]).total_seconds()
        if created := _CREATED.search(line):
            kinds[created[1]] = " ".join(created.groups()[1:])
            changes.append(Change(at_s, kinds[created[1]], is_added=True))
        elif (gone := _GONE.search(line)) and gone[1] in kinds:
            changes.append(Change(at_s, kinds.pop(gone[1]), is_added=False))
    return SpotTrace.of(changes, begin_s=240.0, end_s=(times[-1] - times[0]).total_seconds())


def scenarios(folder: Path) -> SpotTrace:
    """Reads the scenarios: lines of milliseconds, `add`, `remove` or the end, and nodes."""
    changes: list[Change] = []
    alive: list[str] = []
    start_s = 0.0
    for name in _SCENARIOS:
        rows = [json.loads(line) for line in (folder / name).read_text().splitlines() if line.strip()]
        names: dict[str, str] = {}
        for ms, what, value in rows:
            at_s = start_s + ms / 1000
            for node in value["nodes"] if what in ("add", "remove") else ():
                if what == "add" and alive and ms == 0:
                    names[node] = alive.pop()
                elif what == "add":
                    names[node] = f"{name} {node}"
                    changes.append(Change(at_s, names[node], is_added=True))
                else:
                    changes.append(Change(at_s, names.pop(node), is_added=False))
            if ms == 0:
                changes += [Change(at_s, node, is_added=False) for node in alive]
        alive = list(names.values())
        start_s += rows[-1][0] / 1000
    return SpotTrace.of(changes, end_s=start_s)


def _sized(rows: Sequence[tuple[float, int]], begin_s: float = 0.0) -> SpotTrace:
    """Makes nodes of the sizes of a group. Which of them leaves when it shrinks is drawn at random, alike each time."""
    sizes = dict(sorted(rows, key=lambda row: row[0]))
    chance, numbers = random.Random(0), count()
    alive: list[str] = []
    changes = []
    for at_s, size in sizes.items():
        while len(alive) > size:
            changes.append(Change(at_s, alive.pop(chance.randrange(len(alive))), is_added=False))
        while len(alive) < size:
            alive.append(f"node {next(numbers)}")
            changes.append(Change(at_s, alive[-1], is_added=True))
    return SpotTrace.of(changes, begin_s, max(sizes))


def _nodes(changes: Iterable[Change]) -> tuple[str, ...]:
    """Returns the nodes that are there after the changes."""
    nodes: dict[str, None] = {}
    for change in changes:
        if change.is_added:
            nodes[change.node] = None
        else:
            nodes.pop(change.node, None)
    return tuple(nodes)


READERS: dict[str, tuple[str, Callable[[Path], SpotTrace]]] = {
    "g4dn": ("bamboo/g4dn-trace.csv", g4dn),
    "p3": ("bamboo/p3-trace.csv", bamboo_nodes),
    "a100": ("bamboo/a100x1-east1b.txt", group_sizes),
    "v100": ("bamboo/v100x1-east1c.txt", group_sizes),
    "p2": ("bamboo/aws-spot-instances-p2-xlarge-2020-11-20-to-2020-11-23.csv", hourly_sizes),
    "dime": ("dime/aws_availability_persistent_2020-03-15.out", probes),
    "spotserve": ("spotserve/elastic-switch/trace/trace_seg", scenarios),
}
"""The file or folder of each trace below the folder of spot traces, and its reader."""
