"""The engine: a step is three verbs, plan, run, commit."""

import time
from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from ponder_worker.engine.errors import InvalidRequest, InvalidSetting, OversizedRequest
from ponder_worker.engine.latency import Latencies
from ponder_worker.engine.pages import PagePool
from ponder_worker.engine.plan import Chunk, Counters
from ponder_worker.engine.runner import Runner
from ponder_worker.engine.sampling import Sampling
from ponder_worker.engine.scheduler import Scheduler
from ponder_worker.engine.sequence import FinishReason, Priority, Sequence
from ponder_worker.engine.stop import StopStrings
from ponder_worker.models.readout import Readout
from ponder_worker.models.tokenizer import Tokenizer
from ponder_worker.models.transformer import Transformer

__all__ = ["Counters", "Engine", "Output"]


@dataclass(frozen=True, slots=True)
class Output:
    """What one step did for one sequence; every sequence that was computed has one, with new tokens or without.

    tokens: ids sampled in this step; logprobs: of them, or of the tokens that this step scored.
    finish_reason: None while it goes on. Why a sequence stopped stands on it: `stop_token_id` or `stop_string`.
    computed_tokens, kv_bytes_read: the work of this step, a shared page's bytes divided among its readers.
    """

    sequence: Sequence
    tokens: list[int]
    logprobs: list[float]
    finish_reason: FinishReason | None
    computed_tokens: int
    kv_bytes_read: float


class Engine:
    """One model, one pool of pages, any number of requests. Not thread-safe: one owner calls everything."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        num_pages: int,
        page_size: int = 16,
        max_step_tokens: int = 2048,
        max_sequences: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """num_pages * page_size tokens of context in all; a step computes at most max_step_tokens.

        Raises InvalidSetting for sizes that make no engine.
        """
        for name, value in (("num_pages", num_pages), ("page_size", page_size), ("max_sequences", max_sequences)):
            if value < 1:
                raise InvalidSetting(f"{name} is {value}; it must be at least 1")
        if max_step_tokens < max_sequences:
            raise InvalidSetting(
                f"max_step_tokens is {max_step_tokens}; it must be at least max_sequences ({max_sequences}), "
                "a token for each"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.latencies = Latencies()
        self._clock = clock
        self._pool = PagePool(num_pages, page_size)
        self._scheduler = Scheduler(self._pool, max_step_tokens=max_step_tokens, max_sequences=max_sequences)
        self._runner = Runner(model, num_pages=num_pages, page_size=page_size)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        num_pages: int,
        page_size: int = 16,
        max_step_tokens: int = 2048,
        max_sequences: int = 256,
    ) -> "Engine":
        """From a model folder in Hugging Face's format. Raises a ModelError that names what is wrong with it."""
        return cls(
            Transformer.load(path, dtype=dtype, device=torch.device(device)),
            Tokenizer(path),
            num_pages=num_pages,
            page_size=page_size,
            max_step_tokens=max_step_tokens,
            max_sequences=max_sequences,
        )

    def generate(
        self,
        tokens: Series[int],
        *,
        prompt_length: int,
        sampling: Sampling,
        salt: bytes = b"",
        priority: Priority = "batch",
    ) -> Sequence:
        """Adds a request; tokens after prompt_length were generated before, and it goes on as if never interrupted.

        salt: sequences of different salts share no pages. priority: who is served first and preempted last. Raises
        InvalidRequest, OversizedRequest.
        """
        if not 1 <= prompt_length <= len(tokens):
            raise InvalidRequest(
                f"prompt_length is {prompt_length}; it must be 1 to the number of tokens, {len(tokens)}"
            )
        self._check_tokens(tokens, prompt_length + sampling.max_tokens)
        self._check_ids("logit_bias", [token for token, _ in sampling.logit_bias])
        stop_ids = sampling.stop_token_ids | (self.tokenizer.eos_token_ids if sampling.stop_at_end else frozenset())
        stops = StopStrings(sampling.stop_strings, self.tokenizer.stream()) if sampling.stop_strings else None
        sequence = Sequence(
            list(tokens),
            prompt_length,
            sampling,
            salt=salt,
            stop_token_ids=stop_ids,
            stop_strings=stops,
            priority=priority,
        )
        for number, token in enumerate(sequence.tokens[prompt_length:], 1):
            sequence.inspect(token, number)
        return self._add(sequence)

    def score(self, tokens: Series[int], *, start: int, salt: bytes = b"", priority: Priority = "batch") -> Sequence:
        """Adds a request for the log-probabilities of tokens[start:], each given all before it.

        What stands in pages already is not computed again: a longer version of a scored sequence costs its new tokens
        and at most a page. Raises InvalidRequest, OversizedRequest.
        """
        if not 1 <= start < len(tokens):
            raise InvalidRequest(f"start is {start}; it must be 1 to the last token's index, {len(tokens) - 1}")
        self._check_tokens(tokens, len(tokens))
        sequence = Sequence(list(tokens), start, None, salt=salt, priority=priority)
        return self._add(sequence)

    def read(
        self,
        tokens: Series[int],
        marks: Series[int],
        readout: Readout,
        *,
        salt: bytes = b"",
        priority: Priority = "batch",
    ) -> Sequence:
        """Adds a request for what `readout` reads at the marks, positions in rising order; see `Sequence.readings`.

        As with `score`, what stands in pages is not computed again. Raises InvalidRequest, OversizedRequest.
        """
        rising = all(low < high for low, high in pairwise((-1, *marks, len(tokens))))
        if not marks or not rising:
            raise InvalidRequest(f"marks are {list(marks)}; they must be rising positions of {len(tokens)} tokens")
        self._check_tokens(tokens, len(tokens))
        sequence = Sequence(
            list(tokens), marks[0] + 1, None, salt=salt, marks=tuple(marks), readout=readout, priority=priority
        )
        return self._add(sequence)

    def _add(self, sequence: Sequence) -> Sequence:
        sequence.arrived_s = self._clock()
        self._scheduler.add(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """No Output names it again; its pages are back after the next step. A finished sequence stays as it is."""
        if sequence.finish_reason is None:
            self._scheduler.cancel(sequence)

    def step(self) -> list[Output]:
        """Computes one step; an empty list when there was nothing to compute.

        After an exception the engine is of no more use: pages may be registered that were never computed.
        """
        planned_s = self._clock()
        plan = self._scheduler.plan()
        result = self._runner.run(plan)
        self._scheduler.commit(plan, result)
        self.latencies.observe(plan, planned_s, self._clock())
        outputs = [Output(sequence, [], [], sequence.finish_reason, 0, 0.0) for sequence in plan.finished]
        for chunk, token, logprobs, read in zip(
            plan.chunks, result.tokens, result.logprobs, result.kv_bytes_read, strict=True
        ):
            outputs.append(_output(chunk, token, logprobs, read))
        return outputs

    @property
    def has_work(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def free_tokens(self) -> int:
        """An estimate of the room for more: tokens of free pages, less those that the waiting already know."""
        free = self._pool.num_free * self._pool.page_size
        return max(0, free - sum(len(sequence.tokens) for sequence in self._scheduler.waiting))

    @property
    def pages(self) -> dict[str, int | float]:
        """Gauges and counters of the pool. unique_pages are held by somebody, referenced_pages counts every holder."""
        pool = self._pool
        return {
            "kv_cache_usage_perc": pool.num_held / pool.num_pages,
            "unique_pages": pool.num_held,
            "referenced_pages": pool.num_referenced,
            "evicted_pages": pool.num_evicted,
            "thrashed_pages": pool.num_thrashed,
        }

    @property
    def counters(self) -> Counters:
        return self._scheduler.counters

    @property
    def flops_per_token(self) -> int:
        return self.model.flops_per_token

    def check(self) -> None:
        """AssertionError unless every page is free or held, and held by those who name it."""
        self._scheduler.check()

    def _check_ids(self, name: str, tokens: Series[int]) -> None:
        vocabulary = self.model.config.vocabulary_size
        if tokens and (min(tokens) < 0 or max(tokens) >= vocabulary):
            wrong = next(index for index, token in enumerate(tokens) if not 0 <= token < vocabulary)
            raise InvalidRequest(f"{name}[{wrong}] is {tokens[wrong]}; the vocabulary is 0 to {vocabulary - 1}")

    def _check_tokens(self, tokens: Series[int], most: int) -> None:
        self._check_ids("tokens", tokens)
        context = self.model.config.context_tokens
        if most > context:
            raise OversizedRequest(f"the request may grow to {most} tokens; the model's context is {context}")
        pool = self._pool
        if pool.pages_for(most) > pool.num_pages:
            raise OversizedRequest(
                f"the request may grow to {most} tokens, {pool.pages_for(most)} pages of {pool.page_size}; "
                f"the pool has {pool.num_pages} pages"
            )


def _output(chunk: Chunk, token: int | None, logprobs: list[float], read: float) -> Output:
    sequence = chunk.sequence
    tokens = [] if token is None else [token]
    return Output(sequence, tokens, logprobs, sequence.finish_reason, chunk.end - chunk.start, read)
