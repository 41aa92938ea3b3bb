"""The jobs of a simulated fleet: they wait in queues, are held by workers, and their samples grow there.

A worker grows `slots` samples at a time, each at the same speed. It takes shards: interactive ones whenever a slot is
free, others once it has nothing left to begin. A job of which the product says so runs alone.
"""

from collections import deque
from collections.abc import Callable, Sequence

from fleet_arm import Account, Arm, Kept
from fleet_clock import Clock
from fleet_machines import Speed
from fleet_work import Queue, Sample, Task, Worker


class Growth:
    """The queues, the samples that grow on workers, and the account of GPU seconds.

    num_workers: called for the number of workers that take work.
    on_idle: called with a worker that has no work left, and may have to leave.
    """

    def __init__(
        self, arm: Arm, speed: Speed, tasks: Sequence[Task], shard_tokens: int, clock: Clock,
        num_workers: Callable[[], int], on_idle: Callable[[Worker], None],
    ) -> None:  # fmt: skip
        self._arm, self._speed, self._clock, self._on_idle = arm, speed, clock, on_idle
        self._interactive, self._batch = (Queue(shard_tokens, num_workers) for _ in range(2))
        self._queues = {"interactive": self._interactive, "batch": self._batch}
        self._hungry: dict[Worker, None] = {}
        self.account = Account()
        self.num_unsettled = len(tasks)
        self.backlog: dict[tuple[str, float], int] = {}
        """The estimated tokens of unsettled jobs by lane and due time."""
        for found in by_batch(tasks):
            clock.at(found[0].job.arrives_s, self._arrive, found)
            clock.at(found[0].job.due_s, self._expire, found)

    def _arrive(self, tasks: Sequence[Task]) -> None:
        job = tasks[0].job
        key = (job.lane, job.due_s)
        self.backlog[key] = self.backlog.get(key, 0) + sum(task.job.estimated_tokens for task in tasks)
        self._queues[job.lane].submit(tasks)
        self._feed()

    def _expire(self, tasks: Sequence[Task]) -> None:
        freed: dict[Worker, None] = {}
        for task in tasks:
            if not task.is_open:
                continue
            task.is_expired = True
            worker = task.worker
            if worker is not None and worker.ended_s is None:
                for sample in [sample for sample in task.samples if sample in worker.running]:
                    self.stop(sample, self._clock.now_s)
                freed[worker] = None
            self.account.useful_s -= task.useful_s
            self.account.expired_s += task.useful_s
            self._settle(task)
        for worker in freed:
            self.fill(worker)

    def _settle(self, task: Task) -> None:
        self.num_unsettled -= 1
        key = (task.job.lane, task.job.due_s)
        self.backlog[key] -= task.job.estimated_tokens
        if not self.backlog[key]:
            del self.backlog[key]
        if task.worker is not None:
            del task.worker.tasks[task]
            task.worker = None

    # Workers

    def ignore(self, worker: Worker) -> None:
        """Gives a worker no more work."""
        self._hungry.pop(worker, None)

    def put_back(self, worker: Worker) -> None:
        """Puts what a worker has not begun, or has given up, back into the queue."""
        tasks = [task for task in worker.tasks if not any(sample in worker.running for sample in task.samples)]
        worker.urgent.clear()
        worker.waiting.clear()
        left = [] if worker.suspect is None else [worker.suspect]
        worker.suspect = None
        for task in tasks:
            del worker.tasks[task]
            task.worker = None
            if task.is_open:
                self._restart(task)
                left.append(task)
        for found in by_batch(left):
            self._queues[found[0].job.lane].hand_back(found)
        self._feed()

    def _restart(self, task: Task) -> None:
        """Takes from a job what the arm does not keep."""
        if self._arm.kept is Kept.NOTHING and task.useful_s:
            self.account.useful_s -= task.useful_s
            self.account.lost_s += task.useful_s
            task.useful_s, task.is_read = 0.0, False
            task.num_open = len(task.samples)
            for sample in task.samples:
                sample.is_done = False

    def _feed(self) -> None:
        """Gives work to workers with free slots, those with most of them first."""
        while self._hungry and (self._interactive or self._batch):
            worker = max(self._hungry, key=lambda worker: (worker.free, -worker.number))
            del self._hungry[worker]
            self.fill(worker)
            if worker in self._hungry:
                return

    def fill(self, worker: Worker) -> None:
        """Lets a worker begin what it holds, and take more while it has free slots."""
        while worker.free:
            if worker.urgent:
                self._begin(worker, worker.urgent.popleft())
            elif self._may_take(worker) and self._interactive:
                self._hold(worker, self._interactive.take(), worker.urgent)
            elif worker.waiting:
                self._begin(worker, worker.waiting.popleft())
            elif self._may_take(worker) and self._batch:
                self._hold(worker, self._batch.take(), worker.waiting)
            elif worker.suspect is not None and not worker.tasks:
                suspect, worker.suspect = worker.suspect, None
                self._hold(worker, [suspect], worker.waiting)
            else:
                break
        if self._may_take(worker) and worker.free:
            self._hungry[worker] = None
        else:
            self._hungry.pop(worker, None)
            self._on_idle(worker)

    def _may_take(self, worker: Worker) -> bool:
        """Returns whether a worker takes shards: not while it holds, or is about to hold, a job that runs alone."""
        is_free = worker.suspect is None and not any(task.runs_alone for task in worker.tasks)
        return worker.takes_work and is_free

    def _hold(self, worker: Worker, tasks: Sequence[Task], held: deque[Sample]) -> None:
        if worker.tasks and any(task.runs_alone for task in tasks):
            (worker.suspect,) = tasks  # once the worker has finished the others
            return
        for task in tasks:
            task.worker = worker
            worker.tasks[task] = None
            if task.recovery is not None:
                task.recovery.resumed_s = self._clock.now_s
                task.recovery = None
            held.extend(sample for sample in task.samples if not sample.is_done)

    def _begin(self, worker: Worker, sample: Sample) -> None:
        """Lets a sample grow, unless its job has expired while it waited."""
        if sample.task.is_open:
            self._grow(worker, sample)

    # Samples

    def _grow(self, worker: Worker, sample: Sample) -> None:
        task = sample.task
        sample.reads = task.home != worker.number
        prompt = task.job.prompt_tokens if sample.reads else 0
        task.home = worker.number
        again = sample.kept + (prompt if task.is_read else 0)
        sample.prefill_s = (sample.kept + prompt) / self._speed.prefill_tokens_per_s
        sample.again_s = again / self._speed.prefill_tokens_per_s
        sample.started_s = self._clock.now_s
        sample.pace = self._speed.alone_factor if task.runs_alone else 1.0
        worker.free -= 1
        worker.running[sample] = None
        needed_s = sample.prefill_s + (sample.length - sample.kept) / self._speed.decode_tokens_per_s
        self._clock.at(sample.started_s + needed_s / sample.pace, self._finish, worker, sample, sample.run)

    def _finish(self, worker: Worker, sample: Sample, run: int) -> None:
        if sample.run != run:
            return
        task = sample.task
        self._book(sample, self._clock.now_s)
        self._free(worker, sample)
        sample.is_done, sample.kept = True, 0.0
        task.num_open -= 1
        if not task.num_open:
            task.ended_s = self._clock.now_s
            self._settle(task)
        self.fill(worker)

    def stop(self, sample: Sample, kept_until_s: float) -> None:
        """Stops a sample that grows. It keeps the tokens that it had at a moment, if the arm keeps any."""
        worker, now_s = sample.task.worker, self._clock.now_s
        assert worker is not None
        grown_s = (kept_until_s - sample.started_s) * sample.pace - sample.prefill_s
        if self._arm.kept is Kept.TOKENS and grown_s > 0:
            self._book(sample, kept_until_s)
            self.account.lost_s += (now_s - kept_until_s) * sample.pace / self._speed.slots
            sample.kept += grown_s * self._speed.decode_tokens_per_s
        else:
            self.account.lost_s += (now_s - sample.started_s) * sample.pace / self._speed.slots
        self._free(worker, sample)

    def _book(self, sample: Sample, until_s: float) -> None:
        """Books the time of a sample whose tokens are kept."""
        again_s = sample.again_s / self._speed.slots
        useful_s = (until_s - sample.started_s) * sample.pace / self._speed.slots - again_s
        sample.task.is_read |= sample.reads
        sample.task.useful_s += useful_s
        self.account.useful_s += useful_s
        self.account.recomputed_s += again_s

    def _free(self, worker: Worker, sample: Sample) -> None:
        sample.run += 1
        del worker.running[sample]
        worker.free += 1


def by_batch(tasks: Sequence[Task]) -> list[list[Task]]:
    """Returns the jobs of each batch, in the order of their first jobs."""
    batches: dict[str, list[Task]] = {}
    for task in tasks:
        batches.setdefault(task.job.batch, []).append(task)
    return list(batches.values())
