"""The work of a simulated fleet: samples that grow on workers, and jobs that wait in queues."""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from fleet_arm import Recovery
from fleet_load import Job
from fleet_scaling import moment

from ponder.fleet.worker_state import Phase
from ponder.jobs.dispatching.dispatch import Window
from ponder.jobs.dispatching.order import Source, next_cut, num_taken, precedence
from ponder.jobs.recut import LOSSES_TO_BE_ALONE
from ponder.jobs.shard import MAX_JOBS


@dataclass(slots=True, eq=False)
class Sample:
    """A sample that grows, and has grown to `kept` tokens as far as anybody would know after its worker's death."""

    task: "Task"
    length: int
    kept: float = 0.0
    is_done: bool = False
    started_s: float = 0.0
    pace: float = 1.0
    """How many times as fast as usual it grows and reads."""
    prefill_s: float = 0.0
    reads: bool = False
    """Whether it reads the job's prompt, which samples on the same worker share."""
    again_s: float = 0.0
    """The part of the prefill that had been done before."""
    run: int = 0


@dataclass(slots=True, eq=False)
class Task:
    """A job in the simulation. Its samples share the prompt of the worker that `home` names."""

    job: Job
    number: int
    samples: list[Sample] = field(default_factory=list)
    num_open: int = 0
    worker: "Worker | None" = None
    home: int | None = None
    is_read: bool = False
    """Whether its prompt's first prefill counted as useful."""
    useful_s: float = 0.0
    is_expired: bool = False
    ended_s: float | None = None
    num_lost: int = 0
    """How many workers have died while they held it."""
    recovery: Recovery | None = None
    """That of the last worker that was taken away with it, until another one goes on with it."""

    @classmethod
    def of(cls, job: Job, number: int) -> "Task":
        task = cls(job, number, num_open=len(job.lengths))
        task.samples = [Sample(task, length) for length in job.lengths]
        return task

    @property
    def is_open(self) -> bool:
        return self.num_open > 0 and not self.is_expired

    @property
    def runs_alone(self) -> bool:
        """Whether its workers may have died of it."""
        return self.num_lost >= LOSSES_TO_BE_ALONE


@dataclass(slots=True, eq=False)
class Worker:
    number: int
    market: str
    node: str | None
    ordered_s: float
    free: int
    phase: Phase = Phase.STARTING
    ready_s: float | None = None
    leave_by_s: float | None = None
    is_doomed: bool = False
    """Whether it has had a notice."""
    ended_s: float | None = None
    running: dict[Sample, None] = field(default_factory=dict)
    urgent: deque[Sample] = field(default_factory=deque)
    waiting: deque[Sample] = field(default_factory=deque)
    """What it holds and has not begun, in the order in which it will. Urgent samples are those of people who wait."""
    tasks: dict[Task, None] = field(default_factory=dict)
    suspect: Task | None = None
    """A job that runs alone, which the worker has taken and holds once it has finished all others."""

    @property
    def takes_work(self) -> bool:
        return self.phase is Phase.READY and not self.is_doomed and self.ended_s is None

    @property
    def works(self) -> bool:
        return self.ended_s is None and self.phase in (Phase.READY, Phase.DRAINING)


@dataclass(slots=True)
class Portion:
    """The jobs of a batch, in the order of their lines, which shards are cut from. The first line is 1."""

    tasks: Sequence[Task]
    shard_tokens: int
    cut_until: int = 0

    def cut(self) -> Sequence[Task]:
        begin = self.cut_until
        near = [(begin + 1 + place, task.job.estimated_tokens)
                for place, task in enumerate(self.tasks[begin : begin + MAX_JOBS + 1])]  # fmt: skip
        number, self.cut_until = next_cut(near, begin, len(self.tasks), self.shard_tokens)
        return self.tasks[begin : begin + number]


class Queue:
    """The waiting work of a lane, in the product's order: shards that were handed back, and batches to cut from.

    As in the product, a window of shards is published, and taken in the order in which that was done.
    """

    def __init__(self, shard_tokens: int, num_workers: Callable[[], int]) -> None:
        self._shard_tokens, self._num_workers = shard_tokens, num_workers
        self._entries: list[tuple[object, Source, Portion | Sequence[Task]]] = []
        self._published: deque[Sequence[Task]] = deque()
        self._numbers = count(1)

    def __bool__(self) -> bool:
        return bool(self._entries or self._published)

    def submit(self, tasks: Sequence[Task]) -> None:
        self._put(tasks[0].job, None, Portion(tasks, self._shard_tokens))

    def hand_back(self, tasks: Sequence[Task]) -> None:
        """Cuts anew the jobs of one batch. Those that run alone get a shard each."""
        for task in tasks:
            if task.runs_alone:
                self._put(task.job, next(self._numbers), [task])
        tasks = [task for task in tasks if not task.runs_alone]
        while tasks:
            number = num_taken((task.job.estimated_tokens for task in tasks), self._shard_tokens)
            self._put(tasks[0].job, next(self._numbers), tasks[:number])
            tasks = tasks[number:]

    def take(self) -> Sequence[Task]:
        """Takes the next shard: its open jobs, of which there may be none."""
        window = Window(self._num_workers(), num_shards=len(self._published))
        while self._entries and window.is_open:
            self._published.append(self._next())
            window.num_shards += 1
        return [task for task in self._published.popleft() if task.is_open]

    def _next(self) -> Sequence[Task]:
        tasks = self._entries[0][2]
        if isinstance(tasks, Portion):
            portion, tasks = tasks, tasks.cut()
            if portion.cut_until < len(portion.tasks):
                return tasks
        heapq.heappop(self._entries)
        return tasks

    def _put(self, job: Job, shard_id: int | None, tasks: Portion | Sequence[Task]) -> None:
        source = Source(
            "tenant", "model", "", job.lane, shard_id, job.batch, False, moment(job.due_s), moment(job.arrives_s)
        )  # fmt: skip
        heapq.heappush(self._entries, (precedence(source), source, tasks))
