"""Engine steps and search coroutines take turns; between two steps the parent is answered."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import Any

from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.job_error import unreadable
from ponder_worker.engine_process.learned import Learned
from ponder_worker.engine_process.loading import Engines
from ponder_worker.engine_process.occupancy import metrics, room_tokens
from ponder_worker.engine_process.options import EngineOptions
from ponder_worker.engine_process.questions import Questions

_ADMIT_PER_STEP = 16
_ORPHAN_S = 10.0


class Loop:
    """Owns every job of this process. A step runs synchronously; coroutines go on when their completions arrive."""

    def __init__(self, pipe: Connection, engines: Engines, options: EngineOptions) -> None:
        self._pipe = pipe
        self._engines = engines
        self._options = options
        self._wake = asyncio.Event()
        self._floor = EngineCore(engines, self._wake.set)
        self._questions = Questions(self._send)
        self._learned = Learned()
        self._jobs: dict[int, Job] = {}
        self._arrived: deque[dict[str, Any]] = deque()
        self._finished: list[dict[str, Any]] = []
        self._last_deltas: dict[int, dict[str, Any]] = {}
        self._steps_reported = 0
        self._idle_s = 0.0
        self._resting_since: float | None = None
        self._reported_at = time.monotonic()
        self._stepping = True
        self._over = False
        self._broken: Exception | None = None
        self._check_is_due = False
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    async def run(self) -> None:
        """Until it was drained. Raises whatever bug of ours ended it: who started us is told by our death."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe.fileno(), self._read)
        loop.add_signal_handler(signal.SIGTERM, self._stop_stepping)
        # A thread of its own: the pipe may be full for as long as the parent is busy, and it may wait for us to read.
        writer = threading.Thread(target=self._write, daemon=True)
        writer.start()
        self._send(self._ready())
        try:
            while not self._over:
                await self._turn()
        finally:  # what was reported is told, also when a bug of ours ends it
            self._outgoing.put(None)
            writer.join(2.0)

    async def _turn(self) -> None:
        if self._stepping and (self._arrived or self._floor.has_work):
            self._admit()
            self._step()
            await asyncio.sleep(0)
        else:
            self._check()
            await self._rest()
        if self._broken is not None:
            raise self._broken

    def _step(self) -> None:
        if not self._floor.has_work:
            return
        self._floor.step()
        self._check_is_due = True
        for job in list(self._jobs.values()):
            job.look()

    def _check(self) -> None:
        """Once each time that work has ended and is reported. AssertionError when a page is neither free nor held."""
        if self._check_is_due and self._stepping and not (self._jobs or self._finished):
            self._check_is_due = False
            self._floor.check()

    async def _rest(self) -> None:
        """Until a message or an order comes. Coroutines that only just became ready run meanwhile."""
        self._resting_since = time.monotonic()
        self._wake.clear()
        await self._wake.wait()
        self._idle_s += time.monotonic() - self._resting_since
        self._resting_since = None

    def _admit(self) -> None:
        """A few between two steps: cutting a prompt into tokens takes time that others wait for."""
        for _ in range(min(_ADMIT_PER_STEP, len(self._arrived))):
            admitted = self._arrived.popleft()
            try:
                job = Job(admitted, self._floor, self._questions, self._learned, self._take)
            except Exception as error:  # whatever it is, the other jobs go on
                self._finished.append(unreadable(int(admitted["job_id"]), error))
                continue
            self._jobs[job.id] = job
            job.start()

    def _take(self, job: Job) -> None:
        """A job is done."""
        del self._jobs[job.id]
        # Until its verdict is there and it is settled, its tree is what another worker would go on from.
        if (delta := job.delta()) is not None:
            self._last_deltas[job.id] = delta
        self._finished.append(job.finished())

    def _read(self) -> None:
        try:
            while self._pipe.poll():
                self._follow(json.loads(self._pipe.recv_bytes()))
        except (EOFError, OSError):
            os._exit(0)  # nobody is left whom anything could be told
        except Exception as error:  # asyncio would write it down and go on
            self._broken = error
        self._wake.set()

    def _follow(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "admit":
                self._arrived.extend(job for job in message["jobs"] if int(job["job_id"]) not in self._jobs)
                self._learn(message.get("learned") or {})
            case "learn":
                self._learn(message["learned"])
            case "drop":
                self._drop({int(job_id) for job_id in message["job_ids"]})
            case "end":
                self._end({int(job_id): str(reason) for job_id, reason in message["jobs"].items()})
            case "verdict":
                self._questions.answer(message)
            case "report":
                self._send(self._report(drained=False))
            case "drain":
                self._stepping = False
                self._send(self._report(drained=True))
                self._over = True
            case unknown:
                raise ValueError(f"unknown message {unknown!r}")

    def _learn(self, told: dict[str, dict[str, Any]]) -> None:
        arrived = {str(job.get("batch_id")) for job in self._arrived}
        self._learned.take(told, arrived | {job.batch_id for job in self._jobs.values()})

    def _drop(self, job_ids: set[int]) -> None:
        for job_id in job_ids & self._jobs.keys():
            self._jobs.pop(job_id).drop()
        for job_id in job_ids:
            self._last_deltas.pop(job_id, None)
        self._arrived = deque(job for job in self._arrived if int(job["job_id"]) not in job_ids)
        self._finished = [entry for entry in self._finished if entry["job_id"] not in job_ids]

    def _end(self, reasons: dict[int, str]) -> None:
        for admitted in self._arrived:
            if (reason := reasons.get(int(admitted["job_id"]))) is not None:
                admitted["deltas"] = [*(admitted.get("deltas") or ()), {"ended": reason}]
        for job_id in reasons.keys() & self._jobs.keys():
            self._jobs[job_id].end(reasons[job_id])

    def _report(self, *, drained: bool) -> dict[str, Any]:
        deltas = {str(job.id): [delta] for job in self._jobs.values() if (delta := job.delta()) is not None}
        deltas |= {str(job_id): [delta] for job_id, delta in self._last_deltas.items()}
        # What was answered is progress too: a search that only waits for verdicts, or for its prompt, is not stuck.
        now, floor = time.monotonic(), self._floor
        steps = floor.num_steps + floor.prompts.num_made + self._questions.num_answered
        elapsed = now - self._reported_at
        if self._resting_since is not None:
            self._idle_s += now - self._resting_since
            self._resting_since = now
        report = {
            "type": "report",
            "steps": steps - self._steps_reported,
            "waits": self._waits(),
            "work": self._floor.take_work(),
            "idle_fraction": min(1.0, self._idle_s / elapsed) if elapsed > 0 else 0.0,
            "deltas": deltas,
            "finished": self._finished,
            "room_tokens": room_tokens(self._engines.generator, len(self._arrived), self._options),
            "num_jobs": len(self._jobs) + len(self._arrived),
            "drained": drained,
            "metrics": metrics(self._floor),
        }
        self._finished, self._last_deltas, self._idle_s = [], {}, 0.0
        self._reported_at, self._steps_reported = now, steps
        return report

    def _waits(self) -> bool:
        """Whether nothing can be done before a verdict comes."""
        is_busy = self._arrived or self._floor.has_work
        return bool(self._jobs) and not is_busy and self._jobs.keys() <= self._questions.job_ids

    def _ready(self) -> dict[str, Any]:
        return {
            "type": "ready",
            "fingerprint": self._engines.fingerprint,
            "context_length": self._engines.longest,
            "has_reward_model": self._engines.reward is not None,
            "room_tokens": room_tokens(self._engines.generator, len(self._arrived), self._options),
        }

    def _stop_stepping(self) -> None:
        """SIGTERM to us alone: the parent still gets its reports, and we go when it does, or after a while."""
        self._stepping = False
        asyncio.get_running_loop().call_later(_ORPHAN_S, os._exit, 1)

    def _send(self, message: dict[str, Any]) -> None:
        self._outgoing.put(json.dumps(message).encode())

    def _write(self) -> None:
        try:
            while (data := self._outgoing.get()) is not None:
                self._pipe.send_bytes(data)
        except OSError:
            os._exit(0)
