"""The engines of the process, and whose sequence is whose."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ponder_worker.engine import Engine, Output, SamplingParams, Sequence
from ponder_worker.engine_process.guesses import Guesses
from ponder_worker.engine_process.loading import Engines
from ponder_worker.engine_process.prompts import Prompts
from ponder_worker.engine_process.work_book import WorkBook

_SCORE_EVERY = 4
"""Scores wait for company while the generator is busy, at most so many steps: a step costs much, a row in it little."""


@dataclass(slots=True)
class Meter:
    """What one job has caused here. cached_tokens: of its prompt, found in pages when it first needed them."""

    job_id: int
    recomputed_tokens: int = 0
    cached_tokens: int | None = None
    reward_tokens: int = 0


@dataclass(slots=True)
class _Entry:
    """known: ids that came with the request, of which a former attempt generated and computed those in `former`."""

    meter: Meter
    done: Callable[[Sequence], None]
    known: int
    former: range
    computed: int = 0


class EngineCore:
    """`step` computes one step of each engine that has work, books it, and tells who has ended."""

    def __init__(self, engines: Engines, on_order: Callable[[], None]) -> None:
        self.engines = engines
        self.guesses = Guesses(book := WorkBook())
        self.num_steps = 0
        self._book = book
        self._on_order = on_order
        self._entries: dict[Sequence, _Entry] = {}
        self._since_scores = 0

    @cached_property
    def prompts(self) -> Prompts:
        return Prompts(self.engines.generator.tokenizer, self.engines.longest)

    @property
    def has_work(self) -> bool:
        reward = self.engines.reward
        return self._is_generating or (reward is not None and reward.has_work)

    @property
    def _is_generating(self) -> bool:
        """No step is computed for guesses alone: it would hold up the scores, which tell whether they are right."""
        generator = self.engines.generator
        num_guesses = self.guesses.num_live
        return generator.has_work and (not num_guesses or generator.num_running + generator.num_waiting > num_guesses)

    def generate(
        self,
        tokens: list[int],
        sampling: SamplingParams,
        *,
        start: int,
        turn_start: int,
        former: range,
        salt: bytes,
        meter: Meter,
        done: Callable[[Sequence], None],
        is_guess: bool = False,
    ) -> Sequence:
        sequence = self.engines.generator.generate(
            tokens,
            prompt_length=start,
            sampling=sampling,
            turn_start=turn_start,
            salt=salt,
            priority="speculative" if is_guess else "batch",
        )
        if is_guess:
            self.guesses.add(sequence, meter.job_id)
        return self._enter(sequence, _Entry(meter, done, len(tokens), former))

    def score(
        self, tokens: list[int], *, start: int, salt: bytes, meter: Meter, done: Callable[[Sequence], None]
    ) -> Sequence:
        assert self.engines.reward is not None
        sequence = self.engines.reward.score(tokens, start=start, salt=salt)
        return self._enter(sequence, _Entry(meter, done, len(tokens), range(0)))

    def read(self, tokens: list[int], *, salt: bytes, meter: Meter, done: Callable[[Sequence], None]) -> Sequence:
        """What the reward model's head says at the last of these tokens."""
        reward, readout = self.engines.reward, self.engines.readout
        assert reward is not None
        assert readout is not None
        sequence = reward.read(tokens, [len(tokens) - 1], readout, salt=salt)
        return self._enter(sequence, _Entry(meter, done, len(tokens), range(0)))

    def adopt(self, sequence: Sequence) -> None:
        """A guess is asked for."""
        self.engines.generator.promote(sequence, "batch")
        self.guesses.hit(sequence)

    def cancel(self, sequence: Sequence) -> None:
        self.guesses.miss(sequence)
        if self._entries.pop(sequence, None) is None:
            return
        reward = self.engines.reward
        owner = reward if sequence.sampling is None and reward is not None else self.engines.generator
        owner.cancel(sequence)

    def step(self) -> None:
        """One call may run `done` of many sequences, and these order new ones for the next step.

        It counts in `num_steps`, which is what keeps the lease, if anything was computed or found complete.
        """
        generator, reward = self.engines.generator, self.engines.reward
        ended: list[tuple[_Entry, Sequence]] = []
        computed = False
        if self._is_generating:
            computed = self._account(generator, self._timed_step(generator), ended)
        if reward is not None and reward.has_work and self._scores_are_due(generator, reward):
            self._since_scores = 0
            computed = self._account(reward, reward.step(), ended) or computed
        self.num_steps += computed
        for entry, sequence in ended:
            entry.done(sequence)

    def check(self) -> None:
        """AssertionError unless the engines' pages are free or held by those who name them."""
        self.engines.generator.check()
        if self.engines.reward is not None:
            self.engines.reward.check()

    def take_work(self) -> list[dict[str, Any]]:
        """What the time since the last call is divided by."""
        self.guesses.book_all()
        return self._book.take()

    def _timed_step(self, generator: Engine) -> list[Output]:
        started_s = time.perf_counter()
        outputs = generator.step()
        if outputs and sum(output.computed_tokens for output in outputs) == len(outputs):
            self.guesses.step_time.observe(len(outputs), time.perf_counter() - started_s)
        return outputs

    def _scores_are_due(self, generator: Engine, reward: Engine) -> bool:
        self._since_scores += 1
        waiting = reward.num_waiting + reward.num_running
        company = generator.num_running - self.guesses.num_live
        return not self._is_generating or waiting * 4 >= company or self._since_scores >= _SCORE_EVERY

    def _enter(self, sequence: Sequence, entry: _Entry) -> Sequence:
        self._entries[sequence] = entry
        self._on_order()
        return sequence

    def _account(self, engine: Engine, outputs: list[Output], ended: list[tuple[_Entry, Sequence]]) -> bool:
        """Returns whether there was anything to book."""
        flops, per_byte = float(engine.flops_per_token), self.engines.flops_per_byte
        add, entries = self._book.add, self._entries
        for output in outputs:
            sequence = output.sequence
            entry = entries.get(sequence)
            if entry is None:  # cancelled between the plan and now
                continue
            weight = output.computed_tokens * flops + output.kv_bytes_read * per_byte
            if output.computed_tokens > 1 or (output.computed_tokens and entry.computed < entry.known):
                weight -= self._recomputed(engine, entry, output) * flops
            if not self.guesses.book(sequence, weight):
                add(entry.meter.job_id, "work", weight)
            if output.finish_reason is not None:
                ended.append((entries.pop(sequence), sequence))
        return bool(outputs)

    def _recomputed(self, engine: Engine, entry: _Entry, output: Output) -> int:
        """Tokens of this chunk that were computed before: in a former attempt, or before a preemption in the engine."""
        sequence, meter = output.sequence, entry.meter
        start = output.start
        end = start + output.computed_tokens
        if not entry.computed and sequence.sampling is not None and meter.cached_tokens is None:
            meter.cached_tokens = start
        known = len(sequence.tokens) - len(output.tokens)  # before this step
        before = known - 1 if known > entry.known else entry.computed
        again = max(0, min(end, before) - start)
        again += max(0, min(end, entry.former.stop) - max(start, entry.former.start, before))
        entry.computed = max(entry.computed, end)
        if again:
            self._book.add(meter.job_id, "recomputed", again * float(engine.flops_per_token))
            meter.recomputed_tokens += again
        return again
