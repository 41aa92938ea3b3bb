"""One job's access to the engines: what its search requests, in the engines' terms."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import replace
from itertools import takewhile

from ponder_worker.engine import SamplingParams, Sequence
from ponder_worker.engine.sequence import Priority
from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.parent_pipe import Questions
from ponder_worker.engine_process.prompts import Prompt
from ponder_worker.engine_process.span_recorder import SpanRecorder
from ponder_worker.engine_process.work_book import Meter
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.reward import Mark
from ponder_worker.protocol import Verdict
from ponder_worker.search.engine_port import ScoreRequest, Stream, StreamEnd, StreamRequest, VerifierReply
from ponder_worker.search.search_error import NoRewardModel, NoVerifier, PromptTooLong
from ponder_worker.search.thought import Thought, ThoughtWatch


class EngineClient:
    """Implements the search's EnginePort for one job.

    guard: runs a callback so that what it raises fails this job alone. no_verifier: why the verifier may not be asked.
    may_waste: whether work may be begun that can turn out not to be needed. spans: None if the job is not traced.
    """

    def __init__(
        self,
        core: EngineCore,
        sampling: SamplingParams,
        *,
        thought: Thought | None,
        prompt: Prompt,
        salt: bytes,
        meter: Meter,
        priority: Priority,
        family: int,
        guard: Callable[[Callable[[], None]], None],
        questions: Questions,
        no_verifier: str | None,
        may_waste: bool,
        spans: SpanRecorder | None,
    ) -> None:
        self._core = core
        self._sampling = sampling
        self._thought = thought
        self._prompt = prompt
        self._salt = salt
        self._meter = meter
        self._priority = priority
        self._family = family
        self._guard = guard
        self._questions = questions
        self._no_verifier = no_verifier
        self._may_waste = may_waste
        self._spans = spans
        self._reward_prompt_ids: list[int] | None = None
        self._scoring: set[Sequence] = set()

    @property
    def thought(self) -> Thought | None:
        return self._thought

    @property
    def can_score(self) -> bool:
        return self._core.engines.reward_kind is not None

    @property
    def context_length(self) -> int:
        return self._core.engines.longest

    @property
    def problem(self) -> str:
        return self._prompt.problem(self._core.engines.generator.tokenizer)

    @property
    def begun(self) -> str:
        return self._prompt.begun

    def generate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> Sequence:
        return self._start(request, done, self._priority)

    def speculate(self, request: StreamRequest, done: Callable[[StreamEnd], None]) -> Sequence | None:
        core = self._core
        if not self._may_waste or not core.speculation.pays(core.engines.generator):
            return None
        sequence = self._start(request, done, "background")
        core.speculation.add(sequence, self._meter.job_id)
        return sequence

    def adopt(self, stream: Stream) -> None:
        assert isinstance(stream, Sequence)
        self._core.adopt(stream, self._priority)

    def _start(self, request: StreamRequest, done: Callable[[StreamEnd], None], priority: Priority) -> Sequence:
        sampling = self._sampling if not request.judges else self._judging(is_greedy=request.is_greedy)
        # If the separator is also one of the user's stop strings, it ends everything.
        separator = None if request.separator in sampling.stop_strings else request.separator
        wanted = sampling.min_tokens - (request.start - request.turn_start)  # that of the sample, less its steps
        min_tokens = min(max(0, wanted), request.max_tokens)
        sequence = self._core.engines.generator.generate(
            request.tokens,
            prompt_length=request.start,
            sampling=replace(
                sampling,
                max_tokens=request.max_tokens,
                min_tokens=min_tokens,
                seed=request.seed,
                separator=separator,
            ),
            turn_start=request.turn_start,
            salt=self._salt,
            priority=priority,
            family=self._family,
        )
        if self._spans is not None:
            num_given = len(request.tokens)
            self._spans.begin_prefill(num_given, lambda: len(sequence.tokens) > num_given)
        return self._core.track(
            sequence,
            self._meter,
            lambda sequence: self._guard(lambda: done(self._end(sequence))),
            former=range(request.prompt_length, request.num_former),
            is_visible=self._visibility(request),
        )

    def _judging(self, *, is_greedy: bool) -> SamplingParams:
        """Returns the model's own sampling: what the job asks for is about its answers."""
        own = self._core.engines.defaults
        if is_greedy:
            return SamplingParams(max_tokens=1, temperature=0.0, repetition_penalty=own.repetition_penalty)
        return SamplingParams(
            max_tokens=1,
            temperature=own.temperature,
            top_p=own.top_p,
            top_k=own.top_k,
            min_p=own.min_p,
            repetition_penalty=own.repetition_penalty,
        )

    def _visibility(self, request: StreamRequest) -> Callable[[Sequence], bool]:
        if request.judges:
            return lambda sequence: False
        if self._thought is None:
            return lambda sequence: True
        watch = ThoughtWatch(self._thought, request.prompt_length, request.turn_start)
        return lambda sequence: watch.is_over(sequence.tokens)

    def cancel(self, stream: Stream) -> None:
        assert isinstance(stream, Sequence)
        self._core.cancel(stream)

    def score(self, request: ScoreRequest, done: Callable[[float], None]) -> None:
        kind, reward = self._core.engines.reward_kind, self._core.engines.reward
        if kind is None or reward is None:
            raise NoRewardModel("the strategy scores its steps, and this worker was started without a reward model")

        def finish(sequence: Sequence) -> None:
            self._scoring.discard(sequence)
            if self._spans is not None:
                self._spans.end_score()
            self._guard(lambda: done(kind.score(sequence.readings if sequence.marks else sequence.logprobs)))

        if isinstance(kind, Mark):
            sequence = self._read(kind, request)
        else:
            tokens, start = self._reward_tokens(request)
            if start >= len(tokens):
                self._guard(lambda: done(kind.score([])))
                return
            self._meter.reward_tokens += len(tokens) - start
            sequence = reward.score(tokens, start=start, salt=self._salt, priority=self._priority, family=self._family)
        if self._spans is not None:
            self._spans.begin_score()
        self._scoring.add(self._core.track(sequence, self._meter, finish))

    def cancel_scores(self) -> None:
        for sequence in self._scoring:
            self._core.cancel(sequence)
        self._scoring.clear()

    def verify(self, text: str, answer: str | None, done: Callable[[VerifierReply], None]) -> None:
        """The answer is what the verifier reads of the text, so only the answer is sent."""
        if self._no_verifier is not None:
            raise NoVerifier(self._no_verifier)
        end_span = None if self._spans is None else self._spans.begin_verification()

        def tell(told: Verdict) -> None:
            if end_span is not None:
                end_span(told.passed)
            self._guard(lambda: done(VerifierReply(told.passed, told.feedback)))

        self._questions.ask(self._meter.job_id, answer, tell)

    def encode(self, text: str) -> list[int]:
        return self._core.engines.generator.tokenizer.encode(text)

    async def question(self, text: str) -> list[int] | None:
        tokenizer = self._core.engines.generator.tokenizer
        asked = self._prompt.question(tokenizer, tokenizer.plain(text))
        try:
            return await self._core.prompts.make(asked)
        except PromptTooLong:
            return None

    def user_turn(self, text: str) -> list[int]:
        return self._prompt.turn(self._core.engines.generator.tokenizer, text)

    def decode(self, ids: Series[int]) -> str:
        return self._core.engines.generator.tokenizer.decode(ids)

    def _end(self, sequence: Sequence) -> StreamEnd:
        if sequence.finish_reason != "stop":
            return StreamEnd("length")
        assert sequence.sampling is not None
        if sequence.stop_token_id in sequence.sampling.stop_token_ids:
            return StreamEnd("stop", self._num_last_chars(sequence))
        if sequence.stop_string is None:
            return StreamEnd("stop")
        if sequence.stop_string == sequence.sampling.separator:
            return StreamEnd("separator")
        return StreamEnd("stop", sequence.stop_trailing_chars)

    def _num_last_chars(self, sequence: Sequence) -> int:
        """Counts the characters that the last token adds to the turn's text; a special token adds none."""
        ids = sequence.tokens[sequence.turn_start :]
        text, before = self.decode(ids), self.decode(ids[:-1])
        return len(text) - sum(takewhile(bool, (a == b for a, b in zip(text, before, strict=False))))

    def _read(self, kind: Mark, request: ScoreRequest) -> Sequence:
        """Orders what the reward model's head says at the mark behind the last step."""
        reward, readout = self._core.engines.reward, self._core.engines.readout
        assert reward is not None
        assert readout is not None
        steps = [text for text in (*request.steps_before, request.text) if text]
        tokens = self._reward_prompt(reward.tokenizer) + kind.tokens(reward.tokenizer, steps)
        # Only the new step and its mark are computed: what comes before them is still in pages.
        self._meter.reward_tokens += len(kind.tokens(reward.tokenizer, [request.text]))
        marks = [len(tokens) - 1]
        return reward.read(tokens, marks, readout, salt=self._salt, priority=self._priority, family=self._family)

    def _reward_tokens(self, request: ScoreRequest) -> tuple[list[int], int]:
        """Returns the ids that the reward model reads, and where the step begins in them."""
        engines = self._core.engines
        if engines.same_tokens:
            return request.ids_before + request.ids, len(request.ids_before)
        assert engines.reward is not None
        tokenizer = engines.reward.tokenizer
        prompt = self._reward_prompt(tokenizer)
        before = tokenizer.encode(request.text_before) if request.text_before else []
        both = tokenizer.encode(request.text_before + request.text)
        # The step may change how the text before it is tokenized. It then begins with the first token that differs.
        same = sum(takewhile(bool, (a == b for a, b in zip(before, both, strict=False))))
        return prompt + both, len(prompt) + same

    def _reward_prompt(self, tokenizer: Tokenizer) -> list[int]:
        if self._reward_prompt_ids is None:
            generator = self._core.engines.generator.tokenizer
            self._reward_prompt_ids = self._prompt.reward_ids(tokenizer, generator)
        return self._reward_prompt_ids
