"""A discrete-event simulation of a fleet: workers that load, work, are taken away or drained.

What a worker holds goes back to the queue when it leaves, and how much of it is kept depends on the arm (see
fleet_growth.py). All else is the product's: plan, decisions, and times of ticks, leases and departures.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import count

from fleet_arm import Arm, Kept, Moment, Outcome, Recovery, Takings, Times
from fleet_clock import Clock
from fleet_growth import Growth
from fleet_load import HOUR_S, Load
from fleet_machines import Machine
from fleet_scaling import Due, Scaling, moment
from fleet_spot import Change
from fleet_work import Task, Worker

from ponder.fleet.decision import Action, Decision
from ponder.fleet.problem import Bounds, Running
from ponder.fleet.worker_state import Phase
from ponder.fleet.worker_state import Worker as Seen

_DEFAULT = Times()
_NO_SPOT = Change(math.inf, "", is_added=True)


class Simulation:
    """One arm, one load, and one trace of spot machines or of workers that are taken."""

    def __init__(
        self, arm: Arm, machine: Machine, load: Load, bounds: Bounds, *, spot: Iterable[Change] = (),
        takings: Takings | None = None, times: Times = _DEFAULT,
    ) -> None:  # fmt: skip
        self._arm, self._machine, self._speed, self._times = arm, machine, machine.speed, times
        self._clock = Clock()
        self._tasks = [Task.of(job, number) for number, job in enumerate(load.jobs)]
        self._growth = Growth(
            arm, machine.speed, self._tasks, times.shard_tokens, self._clock, self._num_taking, self._leave_if_idle
        )
        self._spot = iter(spot)
        self._next_change = next(self._spot, _NO_SPOT)
        tokens_per_s = throughput(load, machine)
        self._scaling = Scaling(
            machine, arm.markets, tokens_per_s, load.interactive_workers * tokens_per_s, bounds, times.cool_down_s
        )
        self._numbers = count()
        self._nodes: dict[str, Worker | None] = {}
        """The nodes that may be had, or that a worker is on."""
        self._workers: dict[int, Worker] = {}
        self._moments: list[Moment] = []
        self._recoveries: list[Recovery] = []
        self._counts = {"interruptions": 0, "failed": 0, "starts": 0, "drained": 0}
        for at_s in takings.times_s if takings is not None else ():
            self._clock.at(at_s, self._take, takings)

    def run(self) -> Outcome:
        self._foresee()
        self._clock.at(0.0, self._turn)
        while self._growth.num_unsettled:
            self._clock.step()
        lasted_s = self._clock.now_s
        for worker in list(self._workers.values()):
            self._leave(worker)
        self._check()
        missed = frozenset(task.number for task in self._tasks if task.is_expired)
        return Outcome(
            self._growth.account, missed, len(self._tasks), self._counts["interruptions"], self._counts["failed"],
            self._counts["starts"], self._counts["drained"], tuple(self._moments), tuple(self._recoveries), lasted_s,
        )  # fmt: skip

    @property
    def _now(self) -> float:
        return self._clock.now_s

    # Spot machines

    def _foresee(self) -> None:
        """Schedules the changes of the next hour, and the notices before them."""
        until_s = self._now + HOUR_S
        while self._next_change.at_s <= until_s:
            change = self._next_change
            if not change.is_added and self._arm.hears_notices:
                self._clock.at(max(change.at_s - self._machine.notice_s, self._now), self._notice, change.node)
            self._clock.at(change.at_s, self._change, change)
            self._next_change = next(self._spot, _NO_SPOT)
        self._clock.at(until_s - self._machine.notice_s, self._foresee)

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
            self._growth.ignore(worker)
            self._growth.put_back(worker)
            self._leave_if_idle(worker)

    def _interrupted(self, worker: Worker) -> None:
        self._counts["interruptions"] += 1
        self._scaling.spot.interruptions += 1
        if worker.ready_s is None:
            self._scaling.failed(worker.market, self._now)

    def _take(self, takings: Takings) -> None:
        """Takes a worker away, if there is one."""
        if not self._workers:
            return
        worker = takings.chance.choice(list(self._workers.values()))
        with_notice = takings.chance.random() < takings.noticed
        self._recoveries.append(Recovery(self._now, with_notice))
        for task in worker.tasks:
            task.recovery = self._recoveries[-1]
        self._interrupted(worker)
        if with_notice:
            self._leave(worker)
        else:
            self._die(worker)

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
        self._clock.at(self._now + self._speed.boot_s, self._register, worker)
        self._clock.at(self._now + self._speed.boot_s + self._speed.loading_s, self._ready, worker)

    def _register(self, worker: Worker) -> None:
        if worker.phase is Phase.STARTING and worker.ended_s is None:
            worker.phase = Phase.LOADING

    def _ready(self, worker: Worker) -> None:
        if worker.phase is Phase.LOADING and worker.ended_s is None:
            worker.phase, worker.ready_s = Phase.READY, self._now
            self._scaling.succeeded(worker.market)
            self._growth.fill(worker)

    def _drain(self, worker: Worker) -> None:
        self._counts["drained"] += 1
        self._growth.ignore(worker)
        if worker.phase is not Phase.READY:
            self._leave(worker)
            return
        worker.phase = Phase.DRAINING
        if self._arm.hands_back:
            worker.leave_by_s = self._now + self._times.drain_s + self._times.drain_grace_s
            self._clock.at(self._now + self._times.drain_s, self._leave, worker)
        elif self._arm.kept is Kept.SAMPLES:
            self._growth.put_back(worker)
        self._leave_if_idle(worker)

    def _num_taking(self) -> int:
        return sum(worker.takes_work for worker in self._workers.values())

    def _leave_if_idle(self, worker: Worker) -> None:
        if not (worker.running or worker.urgent or worker.waiting or worker.suspect or worker.takes_work):
            self._leave(worker)

    def _leave(self, worker: Worker) -> None:
        """Has a worker hand back what it holds at once. Its machine is billed until it is gone."""
        if worker.ended_s is None:
            gone_s = self._now + (self._times.gone_within_s if worker.works else 0.0)
            for sample in list(worker.running):
                self._growth.stop(sample, self._now)
            self._end(worker, gone_s)
            self._growth.put_back(worker)

    def _die(self, worker: Worker) -> None:
        """Ends a worker without a word. Its lease runs out before anybody takes over what it held."""
        if worker.ended_s is not None:
            return
        ticked_s = self._now
        if worker.ready_s is not None:
            ticked_s = worker.ready_s + (self._now - worker.ready_s) // self._times.tick_s * self._times.tick_s
        for sample in list(worker.running):
            self._growth.stop(sample, ticked_s)
        if worker.phase is not Phase.STARTING:
            self._growth.account.leases_s += ticked_s + self._times.lease_s - self._now
        self._end(worker, self._now)
        self._clock.at(ticked_s + self._times.lease_s, self._lose, worker)

    def _lose(self, worker: Worker) -> None:
        """Lets others take over what a dead worker held."""
        for task in worker.tasks:
            task.num_lost += 1
        self._growth.put_back(worker)

    def _end(self, worker: Worker, at_s: float) -> None:
        worker.ended_s = at_s
        del self._workers[worker.number]
        self._growth.ignore(worker)
        if worker.node in self._nodes:
            self._nodes[worker.node] = None
        billed_s = at_s - worker.ordered_s
        self._growth.account.billed_s += billed_s
        self._growth.account.loading_s += billed_s if worker.ready_s is None else worker.ready_s - worker.ordered_s
        self._growth.account.booting_s += min(billed_s, self._speed.boot_s)
        self._growth.account.nanodollars += billed_s / HOUR_S * self._machine.nanodollars_per_hour[worker.market]
        if worker.market == "spot":
            self._scaling.spot.hours += billed_s / HOUR_S

    # The autoscaler

    def _turn(self) -> None:
        """Lets the autoscaler look, decide, and have it done."""
        workers = list(self._workers.values())
        work = [Due(lane, due_s, tokens) for (lane, due_s), tokens in self._growth.backlog.items()]
        running = [self._running(market) for market in self._arm.markets]
        seen = [self._seen(worker) for worker in workers]
        self._remember(workers)
        for decision in self._scaling.turn(self._now, work, running, seen, None):
            self._obey(decision)
        self._clock.at(self._now + self._times.interval_s, self._turn)

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
        backlog = sum(self._growth.backlog.values())
        self._moments.append(Moment(self._now, spot, len(workers) - spot, len(self._nodes), backlog))

    def _check(self) -> None:
        """Asserts that the books balance: every second of useful work is one that a finished job needed, once."""
        done = [task.job for task in self._tasks if not task.is_expired]
        needed_s = sum(self._speed.work_s(job.prompt_tokens, job.lengths) for job in done)
        assert abs(self._growth.account.useful_s - needed_s) <= 1e-6 * needed_s + 1e-3, (self._growth.account, needed_s)
        assert self._growth.account.idle_s >= -1e-6 * self._growth.account.billed_s, self._growth.account
        assert all(not task.num_open or task.is_expired for task in self._tasks)


def throughput(load: Load, machine: Machine) -> float:
    """Returns the tokens of prompts and answers that a busy worker does a second."""
    return sum(job.tokens for job in load.jobs) / sum(
        machine.speed.work_s(job.prompt_tokens, job.lengths) for job in load.jobs
    )
