"""A discrete-event simulation of a fleet: workers that load, work, are taken away or drained, and jobs in a queue.

A worker grows `slots` samples at a time, each at the same speed. It takes shards: interactive ones whenever a slot is
free, others once it has nothing left to begin. What it holds goes back to the queue when it leaves, and how much of it
is kept depends on the arm. All else is the product's: plan, decisions, and times of ticks, leases and departures.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import count

from fleet_arm import Account, Arm, Kept, Moment, Outcome
from fleet_load import HOUR_S, Load
from fleet_machines import Machine
from fleet_scaling import Due, Scaling, moment
from fleet_spot import Change
from fleet_work import Queue, Sample, Task, Worker

from ponder.fleet.decision import Action, Decision
from ponder.fleet.problem import Bounds, Running
from ponder.fleet.worker_state import Phase
from ponder.fleet.worker_state import Worker as Seen
from ponder.settings import Settings
from ponder_worker.parent.departure import GONE_WITHIN_S

_TICK_S = Settings.model_fields["tick_s"].default
_LEASE_S = Settings.model_fields["lease_s"].default
INTERVAL_S = 60.0
"""The time between two turns of the autoscaler. It is much shorter in reality, but the plan reckons with this one."""
COOL_DOWN_S = 60.0
DRAIN_S, DRAIN_GRACE_S = 120.0, 10.0


class Simulation:
    """One arm, one load, and one trace of spot machines."""

    def __init__(self, arm: Arm, machine: Machine, load: Load, spot: Iterator[Change], most_workers: int) -> None:
        self._arm, self._machine, self._speed = arm, machine, machine.speed
        self._spot = spot
        self._next_change = next(spot)
        self._tasks = [Task.of(job, number) for number, job in enumerate(load.jobs)]
        self._num_unsettled = len(self._tasks)
        self._scaling = Scaling(
            machine, arm.markets, throughput(load, machine), load.interactive_tokens_per_s, Bounds(0, most_workers),
            COOL_DOWN_S,
        )  # fmt: skip
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()
        self._numbers = count()
        self._nodes: dict[str, Worker | None] = {}
        """The nodes that may be had, or that a worker is on."""
        self._workers: dict[int, Worker] = {}
        self._hungry: dict[Worker, None] = {}
        self._interactive, self._batch = Queue(), Queue()
        self._queues = {"interactive": self._interactive, "batch": self._batch}
        self._work: dict[tuple[str, float], int] = {}
        self._account = Account()
        self._moments: list[Moment] = []
        self._counts = {"interruptions": 0, "failed": 0, "starts": 0, "drained": 0}

    def run(self) -> Outcome:
        batches: dict[str, list[Task]] = {}
        for task in self._tasks:
            batches.setdefault(task.job.batch, []).append(task)
        for tasks in batches.values():
            self._at(tasks[0].job.arrives_s, self._arrive, tasks)
            self._at(tasks[0].job.due_s, self._expire, tasks)
        self._foresee()
        self._at(0.0, self._turn)
        while self._num_unsettled:
            self._now, _, handle, arguments = heapq.heappop(self._events)
            handle(*arguments)
        for worker in list(self._workers.values()):
            self._leave(worker)
        self._check()
        missed = frozenset(task.number for task in self._tasks if task.is_expired)
        return Outcome(
            self._account, missed, len(self._tasks), self._counts["interruptions"], self._counts["failed"],
            self._counts["starts"], self._counts["drained"], tuple(self._moments),
        )  # fmt: skip

    def _at(self, at_s: float, handle: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), handle, arguments))

    # Spot machines

    def _foresee(self) -> None:
        """Schedules the changes of the next hour, and the notices before them."""
        until_s = self._now + HOUR_S
        while self._next_change.at_s <= until_s:
            change = self._next_change
            if not change.is_added and self._arm.hears_notices:
                self._at(max(change.at_s - self._machine.notice_s, self._now), self._notice, change.node)
            self._at(change.at_s, self._change, change)
            self._next_change = next(self._spot)
        self._at(until_s - self._machine.notice_s, self._foresee)

    def _change(self, change: Change) -> None:
        if change.is_added:
            self._nodes[change.node] = None
            return
        worker = self._nodes.pop(change.node, None)
        if worker is not None:
            self._interrupted(worker)
            self._die(worker)

    def _notice(self, node: str) -> None:
        """Tells a worker that its machine will be taken away. Nobody can have that machine any more."""
        if node not in self._nodes:
            return
        worker = self._nodes[node]
        if worker is None:
            del self._nodes[node]
        elif self._arm.hands_back or not worker.works:
            del self._nodes[node]
            self._interrupted(worker)
            self._leave(worker)
        else:
            worker.is_doomed = True
            self._hungry.pop(worker, None)
            self._put_back(worker)
            self._leave_if_idle(worker)

    def _interrupted(self, worker: Worker) -> None:
        self._counts["interruptions"] += 1
        self._scaling.spot.interruptions += 1
        if worker.ready_s is None:
            self._scaling.failed(worker.market, self._now)

    # Workers

    def _start(self, market: str) -> None:
        node = None
        if market == "spot":
            node = next((name for name, worker in self._nodes.items() if worker is None), None)
            if node is None:
                self._counts["failed"] += 1
                self._scaling.failed(market, self._now)
                return
        worker = Worker(next(self._numbers), market, node, self._now, self._speed.slots)
        self._workers[worker.number] = worker
        self._counts["starts"] += 1
        self._scaling.started(market, self._now)
        if node is not None:
            self._nodes[node] = worker
        self._at(self._now + self._speed.boot_s, self._register, worker)
        self._at(self._now + self._speed.boot_s + self._speed.loading_s, self._ready, worker)

    def _register(self, worker: Worker) -> None:
        if worker.phase is Phase.STARTING and worker.ended_s is None:
            worker.phase = Phase.LOADING

    def _ready(self, worker: Worker) -> None:
        if worker.phase is Phase.LOADING and worker.ended_s is None:
            worker.phase, worker.ready_s = Phase.READY, self._now
            self._scaling.succeeded(worker.market)
            self._fill(worker)

    def _drain(self, worker: Worker) -> None:
        self._counts["drained"] += 1
        self._hungry.pop(worker, None)
        if worker.phase is not Phase.READY:
            self._leave(worker)
            return
        worker.phase = Phase.DRAINING
        if self._arm.hands_back:
            worker.leave_by_s = self._now + DRAIN_S + DRAIN_GRACE_S
            self._at(self._now + DRAIN_S, self._leave, worker)
        elif self._arm.kept is Kept.SAMPLES:
            self._put_back(worker)
        self._leave_if_idle(worker)

    def _leave_if_idle(self, worker: Worker) -> None:
        if not (worker.running or worker.urgent or worker.waiting or worker.takes_work):
            self._leave(worker)

    def _leave(self, worker: Worker) -> None:
        """Has a worker hand back what it holds at once. Its machine is billed until it is gone."""
        if worker.ended_s is None:
            gone_s = self._now + (GONE_WITHIN_S if worker.works else 0.0)
            self._give_up(worker, kept_until_s=self._now)
            self._end(worker, gone_s)
            self._put_back(worker)

    def _die(self, worker: Worker) -> None:
        """Ends a worker without a word. Its lease runs out before anybody takes over what it held."""
        if worker.ended_s is not None:
            return
        ticked_s = self._now
        if worker.ready_s is not None:
            ticked_s = worker.ready_s + (self._now - worker.ready_s) // _TICK_S * _TICK_S
        self._give_up(worker, kept_until_s=ticked_s)
        self._end(worker, self._now)
        self._at(ticked_s + _LEASE_S, self._put_back, worker)

    def _end(self, worker: Worker, at_s: float) -> None:
        worker.ended_s = at_s
        del self._workers[worker.number]
        self._hungry.pop(worker, None)
        if worker.node in self._nodes:
            self._nodes[worker.node] = None
        billed_s = at_s - worker.ordered_s
        self._account.billed_s += billed_s
        self._account.loading_s += billed_s if worker.ready_s is None else worker.ready_s - worker.ordered_s
        self._account.nanodollars += billed_s / HOUR_S * self._machine.nanodollars_per_hour[worker.market]
        if worker.market == "spot":
            self._scaling.spot.hours += billed_s / HOUR_S

    def _give_up(self, worker: Worker, kept_until_s: float) -> None:
        for sample in list(worker.running):
            self._stop(sample, kept_until_s)

    def _put_back(self, worker: Worker) -> None:
        """Puts what a worker has not begun, or has given up, back into the queue."""
        tasks = [task for task in worker.tasks if not any(sample in worker.running for sample in task.samples)]
        worker.urgent.clear()
        worker.waiting.clear()
        batches: dict[str, list[Task]] = {}
        for task in tasks:
            del worker.tasks[task]
            task.worker = None
            if task.is_open:
                self._restart(task)
                batches.setdefault(task.job.batch, []).append(task)
        for found in batches.values():
            self._queues[found[0].job.lane].hand_back(found)
        self._feed()

    def _restart(self, task: Task) -> None:
        """Takes from a job what the arm does not keep."""
        if self._arm.kept is Kept.NOTHING and task.useful_s:
            self._account.useful_s -= task.useful_s
            self._account.lost_s += task.useful_s
            task.useful_s, task.is_read = 0.0, False
            task.num_open = len(task.samples)
            for sample in task.samples:
                sample.is_done = False

    # Jobs

    def _arrive(self, tasks: Sequence[Task]) -> None:
        job = tasks[0].job
        key = (job.lane, job.due_s)
        self._work[key] = self._work.get(key, 0) + sum(task.job.estimated_tokens for task in tasks)
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
                    self._stop(sample, self._now)
                freed[worker] = None
            self._account.useful_s -= task.useful_s
            self._account.expired_s += task.useful_s
            self._settle(task)
        for worker in freed:
            self._fill(worker)

    def _settle(self, task: Task) -> None:
        self._num_unsettled -= 1
        key = (task.job.lane, task.job.due_s)
        self._work[key] -= task.job.estimated_tokens
        if not self._work[key]:
            del self._work[key]
        if task.worker is not None:
            del task.worker.tasks[task]
            task.worker = None

    def _feed(self) -> None:
        """Gives work to workers with free slots, those with most of them first."""
        while self._hungry and (self._interactive or self._batch):
            worker = max(self._hungry, key=lambda worker: (worker.free, -worker.number))
            del self._hungry[worker]
            self._fill(worker)
            if worker in self._hungry:
                return

    def _fill(self, worker: Worker) -> None:
        while worker.free:
            if worker.urgent:
                self._begin(worker, worker.urgent.popleft())
            elif worker.takes_work and self._interactive:
                self._hold(worker, self._interactive.take(), worker.urgent)
            elif worker.waiting:
                self._begin(worker, worker.waiting.popleft())
            elif worker.takes_work and self._batch:
                self._hold(worker, self._batch.take(), worker.waiting)
            else:
                break
        if worker.takes_work and worker.free:
            self._hungry[worker] = None
        else:
            self._hungry.pop(worker, None)
            self._leave_if_idle(worker)

    def _hold(self, worker: Worker, tasks: Sequence[Task], held: deque[Sample]) -> None:
        for task in tasks:
            task.worker = worker
            worker.tasks[task] = None
            held.extend(sample for sample in task.samples if not sample.is_done)

    def _begin(self, worker: Worker, sample: Sample) -> None:
        """Lets a sample grow, unless its job has expired while it waited."""
        if sample.task.is_open:
            self._grow(worker, sample)

    def _grow(self, worker: Worker, sample: Sample) -> None:
        task = sample.task
        sample.reads = task.home != worker.number
        prompt = task.job.prompt_tokens if sample.reads else 0
        task.home = worker.number
        again = sample.kept + (prompt if task.is_read else 0)
        sample.prefill_s = (sample.kept + prompt) / self._speed.prefill_tokens_per_s
        sample.again_s = again / self._speed.prefill_tokens_per_s
        sample.started_s = self._now
        worker.free -= 1
        worker.running[sample] = None
        grows_s = (sample.length - sample.kept) / self._speed.decode_tokens_per_s
        self._at(self._now + sample.prefill_s + grows_s, self._finish, worker, sample, sample.run)

    def _finish(self, worker: Worker, sample: Sample, run: int) -> None:
        if sample.run != run:
            return
        task = sample.task
        self._book(sample, self._now)
        self._free(worker, sample)
        sample.is_done, sample.kept = True, 0.0
        task.num_open -= 1
        if not task.num_open:
            task.ended_s = self._now
            self._settle(task)
        self._fill(worker)

    def _stop(self, sample: Sample, kept_until_s: float) -> None:
        """Stops a sample that grows. It keeps the tokens that it had at a moment, if the arm keeps any."""
        worker = sample.task.worker
        assert worker is not None
        grown_s = kept_until_s - sample.started_s - sample.prefill_s
        if self._arm.kept is Kept.TOKENS and grown_s > 0:
            self._book(sample, kept_until_s)
            self._account.lost_s += (self._now - kept_until_s) / self._speed.slots
            sample.kept += grown_s * self._speed.decode_tokens_per_s
        else:
            self._account.lost_s += (self._now - sample.started_s) / self._speed.slots
        self._free(worker, sample)

    def _book(self, sample: Sample, until_s: float) -> None:
        """Books the time of a sample whose tokens are kept."""
        again_s = sample.again_s / self._speed.slots
        useful_s = (until_s - sample.started_s) / self._speed.slots - again_s
        sample.task.is_read |= sample.reads
        sample.task.useful_s += useful_s
        self._account.useful_s += useful_s
        self._account.recomputed_s += again_s

    def _free(self, worker: Worker, sample: Sample) -> None:
        sample.run += 1
        del worker.running[sample]
        worker.free += 1

    # The autoscaler

    def _turn(self) -> None:
        """Lets the autoscaler look, decide, and have it done."""
        workers = list(self._workers.values())
        work = [Due(lane, due_s, tokens) for (lane, due_s), tokens in self._work.items()]
        running = [self._running(market) for market in self._arm.markets]
        seen = [self._seen(worker) for worker in workers]
        self._remember(workers)
        for decision in self._scaling.turn(self._now, work, running, seen, None):
            self._obey(decision)
        self._at(self._now + INTERVAL_S, self._turn)

    def _obey(self, decision: Decision) -> None:
        if decision.action is Action.START:
            self._start(decision.pool.market)
        elif decision.worker is not None and (worker := self._workers.get(int(decision.worker))) is not None:
            if decision.action is Action.DRAIN:
                self._drain(worker)
            else:
                self._leave(worker)

    def _running(self, market: str) -> Running:
        """Returns what the platform knows: workers that have registered, and are not leaving."""
        loading = [one for one in self._workers.values() if one.market == market and one.phase is Phase.LOADING]
        ready = [one for one in self._workers.values() if one.market == market and one.takes_work]
        since_s = min((one.ordered_s for one in loading), default=self._now) + self._speed.boot_s
        ready_in_s = max(self._speed.loading_s - (self._now - since_s), 0.0) if loading else 0.0
        return Running(self._machine.name, market, len(loading) + len(ready), len(loading), ready_in_s)

    def _seen(self, worker: Worker) -> Seen:
        price = self._machine.nanodollars_per_hour[worker.market]
        loaded_s = (self._now if worker.ready_s is None else worker.ready_s) - worker.ordered_s
        return Seen(
            str(worker.number), self._scaling.pool(worker.market),
            Phase.STOPPING if worker.is_doomed else worker.phase, moment(worker.ordered_s), price,
            is_busy=bool(worker.running), loss_nanodollars=round(loaded_s / HOUR_S * price), loading_s=loaded_s,
            leave_by=None if worker.leave_by_s is None else moment(worker.leave_by_s),
        )  # fmt: skip

    def _remember(self, workers: Sequence[Worker]) -> None:
        spot = sum(worker.market == "spot" for worker in workers)
        backlog = sum(self._work.values())
        self._moments.append(Moment(self._now, spot, len(workers) - spot, len(self._nodes), backlog))

    def _check(self) -> None:
        """Asserts that the books balance: every second of useful work is one that a finished job needed, once."""
        done = [task.job for task in self._tasks if not task.is_expired]
        needed_s = sum(self._speed.work_s(job.prompt_tokens, job.lengths) for job in done)
        assert abs(self._account.useful_s - needed_s) <= 1e-6 * needed_s + 1e-3, (self._account, needed_s)
        assert self._account.idle_s >= -1e-6 * self._account.billed_s, self._account
        assert all(not task.num_open or task.is_expired for task in self._tasks)


def throughput(load: Load, machine: Machine) -> float:
    """Returns the tokens of prompts and answers that a busy worker does a second."""
    return sum(job.tokens for job in load.jobs) / sum(
        machine.speed.work_s(job.prompt_tokens, job.lengths) for job in load.jobs
    )
