"""A whole run: a testbed under load, one fault after the other and several at a time, then quiet, then the evidence."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import redis
from fault_injection.audit.evidence import Evidence, gather
from fault_injection.fault import Disturbance, Scene
from fault_injection.schedule import Fault, schedule
from fault_injection.testbed import Testbed
from fault_injection.workload import Workload
from sqlalchemy.exc import SQLAlchemyError

from ponder.errors import PonderError

_AT_A_TIME = 6
_OVER_WITHIN_S = 600.0
"""Deaths in and after outages do not count, so that a poison job may need many until it has three that do."""
_QUIET_WITHIN_S = 180.0
_LOOK_S = 0.15
_AWAY = (SQLAlchemyError, redis.exceptions.RedisError, PonderError, OSError)
"""Errors of a store that another fault has taken away."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fault that was injected. over_after_s: since it began; None if it was not seen to be over in time."""

    kind: str
    lasted_s: float
    over_after_s: float | None


@dataclass(slots=True)
class Campaign:
    """`run` it once. `outcomes` are in the order in which the faults were over."""

    testbed: Testbed
    seed: int
    num_faults: int
    limit_s: float
    """Faults that have not begun by then never begin."""
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    """Errors of the harness itself."""

    def run(self) -> Evidence:
        """Returns when every line is settled, or after a while. Then the services are stopped, but not Postgres."""
        with Workload(self.testbed, self.seed) as workload:
            threads = self._inject(workload)
            self._mend_until(lambda: not any(thread.is_alive() for thread in threads), 2 * _OVER_WITHIN_S)
        if self.failures:
            raise self.failures[0]
        self._mend_until(self._is_quiet, _QUIET_WITHIN_S)
        return gather(self.testbed, workload.submissions)

    def _inject(self, workload: Workload) -> list[threading.Thread]:
        give_up_at = time.monotonic() + self.limit_s
        threads: list[threading.Thread] = []
        for fault in schedule(self.seed, self.num_faults):
            self._mend_until(lambda: False, fault.pause_s)
            self._mend_until(lambda: sum(thread.is_alive() for thread in threads) < _AT_A_TIME, self.limit_s)
            if time.monotonic() > give_up_at or self.failures:
                break
            thread = threading.Thread(target=self._suffer, args=(fault, workload), name=fault.kind.name, daemon=True)
            thread.start()
            threads.append(thread)
        return threads

    def _suffer(self, fault: Fault, workload: Workload) -> None:
        try:
            outcome = _suffer(fault, self.testbed, workload)
        except Exception as error:
            self.failures.append(error)
            return
        self.outcomes.append(outcome)
        over = "never" if outcome.over_after_s is None else f"after {outcome.over_after_s:.1f} s"
        print(f"{fault.number} {fault.kind.name}: over {over}", file=sys.stderr, flush=True)

    def _mend_until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Mends until the condition holds, in the thread that entered the testbed, so that what it starts lives on."""
        give_up_at = time.monotonic() + timeout_s
        while time.monotonic() < give_up_at and not condition():
            self.testbed.mend()
            time.sleep(0.05)

    def _is_quiet(self) -> bool:
        with suppress(*_AWAY):
            return not self.testbed.scalar("SELECT count(*) FROM batches WHERE state <> 'completed'")
        return False


def _suffer(fault: Fault, testbed: Testbed, workload: Workload) -> Outcome:
    rng = Random(fault.seed)
    with testbed.claimed(fault.kind.subject, rng) as victim:
        disturbance = _injected(fault, Scene(testbed, workload, victim, rng))
        began = time.monotonic()
        try:
            over_after_s = _watch(disturbance, began, until=began + disturbance.lasts_s)
            time.sleep(max(0.0, began + disturbance.lasts_s - time.monotonic()))
        finally:
            disturbance.heal()
    if over_after_s is None:
        over_after_s = _watch(disturbance, began, until=time.monotonic() + _OVER_WITHIN_S)
    return Outcome(fault.kind.name, disturbance.lasts_s, over_after_s)


def _injected(fault: Fault, scene: Scene) -> Disturbance:
    """Tries again while another fault keeps Postgres or Redis away."""
    give_up_at = time.monotonic() + _OVER_WITHIN_S
    while True:
        try:
            return fault.kind.inject(scene)
        except _AWAY:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_LOOK_S)


def _watch(disturbance: Disturbance, began: float, *, until: float) -> float | None:
    """How long after `began` it was over; None if it is not by `until`."""
    while (now := time.monotonic()) < until:
        with suppress(*_AWAY):
            if disturbance.is_over():
                return now - began
        time.sleep(_LOOK_S)
    return None
