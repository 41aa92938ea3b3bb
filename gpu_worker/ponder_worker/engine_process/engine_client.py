"""One job's line to the engines: what the search asks for, in the engine's words."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import replace
from itertools import takewhile
from typing import Any

from ponder_worker.engine import SamplingParams, Sequence
from ponder_worker.engine_process.engine_core import EngineCore, Meter
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.reward import Mark
from ponder_worker.search.errors import NoRewardModel, NoVerifier
from ponder_worker.search.expansion.thought import Thought
from ponder_worker.search.port import End, Order, Step, Stream, Verdict


class EngineClient:
    """An Engine as the search knows it. `guard` runs a callback so that what it raises fails this job alone.

    ask: of the parent, whether an answer is right. no_verifier: why that may not be asked. may_guess: whether steps may
    be begun that are perhaps not wanted.
    """

    def __init__(
        self,
        floor: EngineCore,
        sampling: SamplingParams,
        *,
        messages: list[dict[str, str]],
        salt: bytes,
        meter: Meter,
        prompt_length: int,
        guard: Callable[[Callable[[], None]], None],
        ask: Callable[[str | None, Callable[[dict[str, Any]], None]], None],
        no_verifier: str | None,
        may_guess: bool,
    ) -> None:
        self._floor = floor
        self._sampling = sampling
        self._messages = messages
        self._salt = salt
        self._meter = meter
        self._prompt_length = prompt_length
        self._guard = guard
        self._ask = ask
        self._no_verifier = no_verifier
        self._may_guess = may_guess
        self._prompt_of_reward: list[int] | None = None
        self._scoring: set[Sequence] = set()

    @property
    def thought(self) -> Thought | None:
        return self._floor.engines.thought

    @property
    def can_score(self) -> bool:
        return self._floor.engines.reward_kind is not None

    def generate(self, order: Order, done: Callable[[End], None]) -> Stream:
        return self._generate(order, done, is_guess=False)

    def speculate(self, order: Order, done: Callable[[End], None]) -> Stream | None:
        floor = self._floor
        if not self._may_guess or not floor.guesses.have_room(floor.engines.generator):
            return None
        return self._generate(order, done, is_guess=True)

    def adopt(self, stream: Stream) -> None:
        assert isinstance(stream, Sequence)
        self._floor.adopt(stream)

    def _generate(self, order: Order, done: Callable[[End], None], *, is_guess: bool) -> Sequence:
        # A separator of the user's own stop strings ends all.
        separator = None if order.separator in self._sampling.stop_strings else order.separator
        sampling = replace(self._sampling, max_tokens=order.max_tokens, seed=order.seed, separator=separator)
        return self._floor.generate(
            order.tokens,
            sampling,
            start=order.start,
            turn_start=order.turn_start,
            former=range(self._prompt_length, order.num_former),
            salt=self._salt,
            meter=self._meter,
            done=lambda sequence: self._guard(lambda: done(_end(sequence))),
            is_guess=is_guess,
        )

    def cancel(self, stream: Stream) -> None:
        assert isinstance(stream, Sequence)
        self._floor.cancel(stream)

    def cancel_scores(self) -> None:
        for sequence in self._scoring:
            self._floor.cancel(sequence)
        self._scoring.clear()

    def score(self, step: Step, done: Callable[[float], None]) -> None:
        engines = self._floor.engines
        kind = engines.reward_kind
        if kind is None:
            raise NoRewardModel("the strategy scores its steps, and this worker was started without a reward model")

        def finish(sequence: Sequence) -> None:
            self._scoring.discard(sequence)
            self._guard(lambda: done(kind.score(sequence.readings if sequence.marks else sequence.logprobs)))

        if isinstance(kind, Mark):
            self._read(kind, step, finish)
            return
        tokens, start = self._place(step)
        if start >= len(tokens):
            self._guard(lambda: done(kind.score([])))
            return
        self._meter.reward_tokens += len(tokens) - start
        self._scoring.add(self._floor.score(tokens, start=start, salt=self._salt, meter=self._meter, done=finish))

    def _read(self, kind: Mark, step: Step, finish: Callable[[Sequence], None]) -> None:
        reward = self._floor.engines.reward
        assert reward is not None
        steps = [text for text in (*step.steps_before, step.text) if text]
        tokens = self._reward_prompt(reward.tokenizer) + kind.tokens(reward.tokenizer, steps)
        # What stands in pages since the step before is not computed again: the new step and its mark are.
        self._meter.reward_tokens += len(kind.tokens(reward.tokenizer, [step.text]))
        self._scoring.add(self._floor.read(tokens, salt=self._salt, meter=self._meter, done=finish))

    def verify(self, text: str, answer: str | None, done: Callable[[Verdict], None]) -> None:
        """The answer is what the verifier reads of the text."""
        if self._no_verifier is not None:
            raise NoVerifier(self._no_verifier)
        self._ask(answer, lambda told: self._guard(lambda: done(_verdict(told))))

    def encode(self, text: str) -> list[int]:
        return self._floor.engines.generator.tokenizer.encode(text)

    def turn(self, text: str) -> list[int]:
        return self._floor.engines.generator.tokenizer.turn(self._messages, text)

    def decode(self, ids: Series[int]) -> str:
        return self._floor.engines.generator.tokenizer.decode(ids)

    def _place(self, step: Step) -> tuple[list[int], int]:
        """The ids that the reward model reads, and where the step begins in them."""
        engines = self._floor.engines
        if engines.same_tokens:
            return step.ids_before + step.ids, len(step.ids_before)
        assert engines.reward is not None
        tokenizer = engines.reward.tokenizer
        prompt = self._reward_prompt(tokenizer)
        before = tokenizer.encode(step.text_before) if step.text_before else []
        both = tokenizer.encode(step.text_before + step.text)
        # Where the step changes how the text before it is cut into tokens, it begins with the first changed one.
        same = sum(takewhile(bool, (a == b for a, b in zip(before, both, strict=False))))
        return prompt + both, len(prompt) + same

    def _reward_prompt(self, tokenizer: Tokenizer) -> list[int]:
        if self._prompt_of_reward is None:
            self._prompt_of_reward = tokenizer.render(self._messages)
        return self._prompt_of_reward


def _end(sequence: Sequence) -> End:
    if sequence.finish_reason != "stop":
        return End("length")
    if sequence.stop_string is None:
        return End("stop")
    if sequence.sampling is not None and sequence.stop_string == sequence.sampling.separator:
        return End("separator")
    return End("stop", sequence.stop_trailing_chars)


def _verdict(told: dict[str, Any]) -> Verdict:
    if "refused" in told:
        return Verdict(None, told["refused"])
    return Verdict(told["passed"], told["feedback"])
