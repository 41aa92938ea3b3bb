"""The engines of this process, and which job each of their sequences belongs to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

from ponder.jobs.tick_report import Work
from ponder_worker.engine import Output, Sequence
from ponder_worker.engine.inference_engine import InferenceEngine
from ponder_worker.engine.latency import BUCKETS_S
from ponder_worker.engine.sequence import Priority
from ponder_worker.engine_process.loading.engine_options import EngineOptions
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.engine_process.loading.memory_sizes import held_bytes
from ponder_worker.engine_process.prompts import Prompts
from ponder_worker.engine_process.speculative_work import SpeculativeWork
from ponder_worker.engine_process.step_time import StepTime
from ponder_worker.engine_process.work_book import Meter, WorkBook
from ponder_worker.protocol import EngineMetrics, Histogram

_SCORE_EVERY = 4
"""While the generator is busy, scores wait for others to join them, for this many steps at most: a step is expensive,
and an extra row in it is cheap."""
_SHARDS_AHEAD = 3


@dataclass(slots=True)
class _Owner:
    """The owner of a sequence, and how much of it is computed.

    num_known: tokens that came with the request. former: the range of those that a former attempt had computed.
    is_visible: whether its last token is outside a thought. num_computed: tokens computed so far.
    """

    meter: Meter
    done: Callable[[Sequence], None]
    num_known: int
    former: range
    is_visible: Callable[[Sequence], bool]
    num_computed: int = 0


class EngineCore:
    """Steps the engines, books the work of each step, and reports to their owners which sequences have ended.

    on_order: called whenever there is new work. clock_s: Postgres's Unix time less the monotonic clock; None before any
    job has come.
    """

    def __init__(self, engines: Engines, on_order: Callable[[], None], *, speculates: bool = True) -> None:
        self.engines = engines
        self.num_steps = 0
        self.families = itertools.count(1)
        """Numbers for jobs, which are served in the order in which they came."""
        self.clock_s: float | None = None
        self._book = WorkBook()
        self.step_time = StepTime()
        self.speculation = SpeculativeWork(self._book, self.step_time, is_on=speculates)
        self._on_order = on_order
        self._owners: dict[Sequence, _Owner] = {}
        self._steps_since_scores = 0

    @property
    def now_ms(self) -> int | None:
        """Postgres's Unix time in milliseconds, or None before any job has come."""
        return None if self.clock_s is None else round((self.clock_s + time.monotonic()) * 1000)

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.engines.generator.tokenizer, self.engines.longest)

    @property
    def has_work(self) -> bool:
        reward = self.engines.reward
        return self._is_generating or (reward is not None and reward.has_work)

    @property
    def _is_generating(self) -> bool:
        """Whether a step is due. Speculation alone needs none: a step would hold up the scores that it waits for."""
        generator, num_extra = self.engines.generator, self.speculation.num_live
        return generator.has_work and (not num_extra or generator.num_running + generator.num_waiting > num_extra)

    def track(
        self,
        sequence: Sequence,
        meter: Meter,
        done: Callable[[Sequence], None],
        *,
        former: range = range(0),
        is_visible: Callable[[Sequence], bool] = lambda sequence: True,
    ) -> Sequence:
        """Records the owner of a new sequence. `done` is called when it has ended, unless it is cancelled.

        former: the range of its tokens that a former attempt had computed. is_visible: whether its last token is
        outside a thought; asked of each step's tokens until one is.
        """
        self._owners[sequence] = _Owner(meter, done, len(sequence.tokens), former, is_visible)
        self._on_order()
        return sequence

    def adopt(self, sequence: Sequence, priority: Priority) -> None:
        """Makes a speculative sequence an ordinary one."""
        self.engines.generator.promote(sequence, priority)
        self.speculation.hit(sequence)

    def cancel(self, sequence: Sequence) -> None:
        self.speculation.miss(sequence)
        if self._owners.pop(sequence, None) is None:
            return
        reward = self.engines.reward
        engine = reward if sequence.sampling is None and reward is not None else self.engines.generator
        engine.cancel(sequence)

    def step(self) -> None:
        """Computes one step of each engine that has work. `done` of sequences that ended may order new ones.

        Counts in `num_steps`, which keeps the lease, only if anything was computed or found complete.
        """
        generator, reward = self.engines.generator, self.engines.reward
        ended: list[tuple[_Owner, Sequence]] = []
        is_progress = False
        if self._is_generating:
            is_progress = self._account(generator, self._timed_step(generator), ended)
        if reward is not None and reward.has_work and self._scores_are_due(generator, reward):
            self._steps_since_scores = 0
            is_progress = self._account(reward, reward.step(), ended) or is_progress
        self.num_steps += is_progress
        for owner, sequence in ended:
            owner.done(sequence)

    def check(self) -> None:
        """Raises AssertionError unless every page of the engines is either free or held by a sequence that names it."""
        self.engines.generator.check()
        if self.engines.reward is not None:
            self.engines.reward.check()

    def take_work(self) -> tuple[Work, ...]:
        """Returns the weights by which the time since the last call is divided among jobs."""
        self.speculation.book_all()
        return self._book.take()

    def room_tokens(self, num_arrived: int, options: EngineOptions) -> int:
        """Returns the room for shards, in tokens: three of the largest if idle, one if all sequences are taken.

        Sequences keep a step full, rather than tokens: a job's tokens come one after the other. num_arrived: jobs that
        have no sequence yet.
        """
        generator = self.engines.generator
        if generator.num_waiting and not generator.free_tokens:
            return 0
        most = 2 * options.max_sequences
        taken = generator.num_running + generator.num_waiting + num_arrived
        return max(0, most - taken) * _SHARDS_AHEAD * options.shard_tokens // most

    def metrics(self) -> EngineMetrics:
        """Returns counters since the process began and gauges. The reward model's have the prefix `reward_`.

        Latencies are the generator's.
        """
        generator, reward = self.engines.generator, self.engines.reward
        numbers: dict[str, int | float] = asdict(generator.counters) | {
            "num_running": generator.num_running,
            "num_waiting": generator.num_waiting,
            "memory_bytes": held_bytes(),
        }
        numbers |= generator.pages | asdict(self.speculation.stats)
        if reward is not None:
            numbers |= {f"reward_{name}": value for name, value in (asdict(reward.counters) | reward.pages).items()}
        latencies = {
            name: Histogram(tuple(counts), sum_s) for name, (counts, sum_s) in generator.latencies.as_numbers().items()
        }
        return EngineMetrics(numbers, latencies, BUCKETS_S)

    def _timed_step(self, generator: InferenceEngine) -> list[Output]:
        started_s = time.perf_counter()
        outputs = generator.step()
        if outputs and sum(output.computed_tokens for output in outputs) == len(outputs):
            self.step_time.observe(len(outputs), time.perf_counter() - started_s)
        return outputs

    def _scores_are_due(self, generator: InferenceEngine, reward: InferenceEngine) -> bool:
        self._steps_since_scores += 1
        num_scores = reward.num_waiting + reward.num_running
        num_others = generator.num_running - self.speculation.num_live
        return not self._is_generating or num_scores * 4 >= num_others or self._steps_since_scores >= _SCORE_EVERY

    def _account(self, engine: InferenceEngine, outputs: list[Output], ended: list[tuple[_Owner, Sequence]]) -> bool:
        """Books the outputs and collects the sequences that ended. Returns whether there were any outputs."""
        flops, per_byte = float(engine.flops_per_token), self.engines.flops_per_byte
        add, owners = self._book.add, self._owners
        for output in outputs:
            sequence = output.sequence
            owner = owners.get(sequence)
            if owner is None:  # cancelled since the step was planned
                continue
            if output.tokens and owner.meter.first_visible_token_ms is None:
                self._note_first(owner, sequence)
            weight = output.computed_tokens * flops + output.kv_bytes_read * per_byte
            if output.computed_tokens > 1 or (output.computed_tokens and owner.num_computed < owner.num_known):
                weight -= self._recomputed(engine, owner, output) * flops
            if not self.speculation.book(sequence, weight):
                add(owner.meter.job_id, "work", weight)
            if output.finish_reason is not None:
                ended.append((owners.pop(sequence), sequence))
        return bool(outputs)

    def _note_first(self, owner: _Owner, sequence: Sequence) -> None:
        """Notes when a job's first token came, and its first visible one."""
        now_ms = self.now_ms
        if now_ms is None or sequence.sampling is None:
            return
        if owner.meter.first_token_ms is None:
            owner.meter.first_token_ms = now_ms
        if owner.is_visible(sequence):
            owner.meter.first_visible_token_ms = now_ms

    def _recomputed(self, engine: InferenceEngine, owner: _Owner, output: Output) -> int:
        """Books and counts the tokens of this chunk that were computed before a preemption or by a former attempt."""
        sequence, meter = output.sequence, owner.meter
        start = output.start
        end = start + output.computed_tokens
        if not owner.num_computed and sequence.sampling is not None and meter.cached_tokens is None:
            meter.cached_tokens = start
        num_before_step = len(sequence.tokens) - len(output.tokens)
        before = num_before_step - 1 if num_before_step > owner.num_known else owner.num_computed
        again = max(0, min(end, before) - start)
        again += max(0, min(end, owner.former.stop) - max(start, owner.former.start, before))
        owner.num_computed = max(owner.num_computed, end)
        if again:
            self._book.add(meter.job_id, "recomputed", again * float(engine.flops_per_token))
            meter.recomputed_tokens += again
        return again
