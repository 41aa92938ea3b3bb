"""An engine that drives vLLM. Like our own it knows no job, no queue and no database."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.engine_error import InvalidRequest
from ponder_worker.engine.engine_limits import EngineLimits
from ponder_worker.engine.engine_request import generation, reading, scoring
from ponder_worker.engine.latency import Latencies
from ponder_worker.engine.sampling.grammars import Compilation, Grammars
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.step_size import StepSize
from ponder_worker.engine.sequence import PRIORITY_RANKS, Priority, Sequence
from ponder_worker.engine.step_plan import Output
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout
from ponder_worker.vllm_engine.costs import flops_per_token, kv_bytes_per_token
from ponder_worker.vllm_engine.scheduler_view import ScheduledChunk, SchedulerView
from ponder_worker.vllm_engine.vllm_request import (
    Generation,
    MarkReading,
    Reading,
    Scoring,
    TokenwiseReading,
    VllmRequest,
)


@dataclass(slots=True)
class _Live:
    """A request that vLLM has.

    number: the name that vLLM's outputs call it by; its scheduler has another. most_computed: the most tokens of it
    that were computed so far, or None before that.
    """

    request: VllmRequest
    number: str
    most_computed: int | None = None


class VllmEngine:
    """Fulfils the contract of `InferenceEngine` with an LLMEngine of vLLM's, whose core is in this process."""

    def __init__(
        self,
        llm: Any,
        tokenizer: Tokenizer,
        folder: str | Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes over a vLLM LLMEngine. folder: its checkpoint, from which the cost of a token is read."""
        config = llm.vllm_config
        self.tokenizer = tokenizer
        self.latencies = Latencies()
        self.counters = Counters()
        self.max_sequences: int = config.scheduler_config.max_num_seqs
        self.flops_per_token = flops_per_token(folder)
        self._llm = llm
        self._clock = clock
        self._view = SchedulerView(llm.engine_core.engine_core.scheduler)
        kv_cache_config = llm.engine_core.engine_core.scheduler.kv_cache_config
        self._kv_groups = kv_bytes_per_token(kv_cache_config, config.parallel_config.tensor_parallel_size)
        self._block_size: int = config.cache_config.block_size
        self._limits = EngineLimits(
            config.model_config.get_vocab_size(),
            config.model_config.max_model_len,
            self._block_size,
            self._view.num_blocks,
        )
        self._grammars = Grammars(tokenizer, self._limits.vocabulary_size)
        self._tasks = frozenset(llm.get_supported_tasks())
        self._takes_edits = config.speculative_config is None
        scheduling = config.scheduler_config
        # A prompt that vLLM does not divide needs all the room of a step.
        self._step_size = StepSize(scheduling.max_num_batched_tokens) if scheduling.enable_chunked_prefill else None
        self._numbers = itertools.count()
        self._requests: dict[str, _Live] = {}
        self._names: dict[str, str] = {}  # of requests in vLLM's scheduler, by the names in its outputs
        self._ids: dict[Sequence, set[str]] = {}
        self._complete: list[Sequence] = []
        self._num_uncached_scores = 0

    def generate(
        self,
        tokens: Series[int],
        *,
        prompt_length: int,
        sampling: SamplingParams,
        turn_start: int | None = None,
        salt: bytes = b"",
        priority: Priority = "batch",
        family: int = 0,
    ) -> Sequence:
        if not self._takes_edits and (sampling.edits_logits or sampling.min_tokens):
            raise InvalidRequest(
                "penalties, logit_bias, min_tokens and structures do not go together with vLLM's speculative_config: "
                "leave them out, or start the worker without --engine-arg speculative_config"
            )
        sequence = generation(
            tokens,
            prompt_length,
            sampling,
            self.tokenizer,
            self._limits,
            grammars=self._grammars,
            turn_start=turn_start,
        )
        self.counters.prompt_tokens += prompt_length
        if sequence.finish_reason is not None:
            self._complete.append(sequence)
            return sequence
        with _in_our_words():
            request = Generation.of(sequence, sampling)
        return self._begin(sequence, salt, priority, family, [request])

    def share_grammars(self) -> None:
        """Has logits processors of this process use what `compile` prepares. Others compile in their own first step."""
        from vllm.v1.executor.uniproc_executor import UniProcExecutor

        from ponder_worker.vllm_engine.node_logits import share_grammars

        if isinstance(self._llm.engine_core.engine_core.model_executor, UniProcExecutor):
            self._llm.collective_rpc(share_grammars, args=(self._grammars,))

    def compile(self, grammar: str) -> Compilation:
        return self._grammars.compile(grammar)

    def score(
        self,
        tokens: Series[int],
        *,
        start: int,
        salt: bytes = b"",
        priority: Priority = "batch",
        family: int = 0,
    ) -> Sequence:
        sequence = scoring(tokens, start, self._limits)
        return self._begin(sequence, salt, priority, family, [Scoring.of(sequence)])

    def read(
        self,
        tokens: Series[int],
        marks: Series[int],
        readout: Readout,
        *,
        salt: bytes = b"",
        priority: Priority = "batch",
        family: int = 0,
    ) -> Sequence:
        sequence = reading(tokens, marks, readout, self._limits)
        found = Reading(sequence)
        requests: list[VllmRequest]
        if readout.kind == "token":
            requests = [MarkReading.by_tokens(sequence, found, mark, readout) for mark in marks]
        elif "classify" in self._tasks:
            requests = [MarkReading.by_head(sequence, found, mark) for mark in marks]
        else:
            requests = [TokenwiseReading.of(sequence, found)]
        return self._begin(sequence, salt, priority, family, requests)

    def _begin(
        self, sequence: Sequence, salt: bytes, priority: Priority, family: int, requests: Series[VllmRequest]
    ) -> Sequence:
        sequence.table.salt, sequence.priority, sequence.family = salt, priority, family
        sequence.arrived_s = self._clock()
        self._ids[sequence] = set()
        try:
            for request in requests:
                self._add(request)
        except InvalidRequest:
            self._drop(sequence)
            raise
        return sequence

    def _add(self, request: VllmRequest) -> None:
        from vllm.inputs import tokens_input

        sequence, number = request.sequence, str(next(self._numbers))
        prompt = tokens_input(list(request.prompt), cache_salt=sequence.table.salt.hex() or None)
        with _in_our_words():
            request_id = self._llm.add_request(number, prompt, request.params, priority=_rank(sequence))
        self._requests[request_id] = _Live(request, number)
        self._names[number] = request_id
        self._ids[sequence].add(request_id)

    def cancel(self, sequence: Sequence) -> None:
        if sequence.finish_reason is None:
            sequence.cancelled, sequence.finish_reason = True, "cancelled"
            self._drop(sequence)

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        if sequence.finish_reason is None:
            sequence.priority = priority
            for request_id in self._ids[sequence]:
                self._view.promote(request_id, _rank(sequence))

    def _drop(self, sequence: Sequence) -> None:
        """Forgets a sequence, and ends what vLLM still computes of it."""
        ids = self._ids.pop(sequence)
        for request_id in ids:
            del self._names[self._requests.pop(request_id).number]
        if ids:
            self._llm.abort_request(list(ids), internal=True)

    def step(self) -> list[Output]:
        planned_s = self._clock()
        outputs = [Output(sequence, [], [], sequence.finish_reason, 0, 0, 0.0) for sequence in self._complete]
        self._complete = []
        if self._requests:
            if self._step_size is not None:
                self._view.bound_step(self._step_size.room(self._view.num_running))
            results = {result.request_id: result for result in self._llm.step()}
            chunks = self._view.take()
            if self._step_size is not None:
                num_tokens = sum(chunk.end - chunk.start for chunk in chunks.values())
                # A step that computed nothing had too little room for what vLLM does not divide: it counts as full.
                self._step_size.observe(num_tokens or self._step_size.num_tokens, self._clock() - planned_s)
            outputs += self._commit(results, chunks)
        self.latencies.observe(outputs, planned_s, self._clock())
        return outputs

    def _commit(self, results: Mapping[str, Any], chunks: Mapping[str, ScheduledChunk]) -> list[Output]:
        """Returns an output for each request that was computed or has a result; with pipelining, it has one later."""
        self.counters.num_steps += bool(chunks)
        self.counters.num_preemptions = self._view.num_preemptions
        outputs = []
        for request_id in dict.fromkeys((*chunks, *(self._names.get(number, "") for number in results))):
            live = self._requests.get(request_id)
            if live is not None:  # otherwise cancelled
                outputs.append(self._take(request_id, live, chunks.get(request_id), results.get(live.number)))
        return outputs

    def _take(self, request_id: str, live: _Live, chunk: ScheduledChunk | None, result: Any) -> Output:
        sequence = live.request.sequence
        tokens: list[int] = []
        num_scores = len(sequence.logprobs)
        if chunk is not None:
            self._count(live, chunk)
        if result is not None:
            tokens = live.request.take(result)
            if result.finished:
                self._end(request_id, live)
        if sequence.finish_reason is not None and sequence in self._ids:
            self._drop(sequence)
        self.counters.generated_tokens += len(tokens)
        if sequence.sampling is None:
            self.counters.scored_tokens += len(sequence.logprobs) - num_scores
        start, end = (0, 0) if chunk is None else (chunk.start, chunk.end)
        return Output(
            sequence,
            tokens,
            sequence.logprobs[num_scores:],
            sequence.finish_reason,
            start,
            end - start,
            self._kv_bytes(end),
        )

    def _end(self, request_id: str, live: _Live) -> None:
        """Takes a request out of the books that vLLM has ended."""
        sequence = live.request.sequence
        del self._requests[request_id], self._names[live.number]
        self._ids[sequence].remove(request_id)
        if (again := live.request.again()) is not None:
            self._add(again)
        elif sequence.finish_reason is None and not self._ids[sequence]:
            raise RuntimeError(f"vLLM ended a request of {len(sequence.tokens)} tokens before it was complete")

    def _count(self, live: _Live, chunk: ScheduledChunk) -> None:
        counters, before = self.counters, live.most_computed
        counters.computed_tokens += chunk.end - chunk.start
        if before is None:
            counters.prefix_queries += len(live.request.prompt)
            counters.prefix_hits += chunk.start
            self._num_uncached_scores += not live.request.reads_cache
        else:
            counters.recomputed_tokens += max(0, min(before, chunk.end) - chunk.start)
        live.most_computed = max(before or 0, chunk.end)

    def _kv_bytes(self, end: int) -> float:
        """Returns the bytes of keys and values that a chunk reads which ends there."""
        return sum(size * min(end, window or end) for size, window in self._kv_groups)

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._complete)

    @property
    def num_running(self) -> int:
        return self._view.num_running

    @property
    def num_waiting(self) -> int:
        return self._view.num_waiting + len(self._complete)

    @property
    def free_tokens(self) -> int:
        return max(0, self._view.num_free_blocks * self._block_size - self._view.waiting_tokens())

    @property
    def pages(self) -> dict[str, int | float]:
        """Gauges and counters of vLLM's blocks.

        uncached_scores: scores for which the prefix cache was not read, since vLLM says nothing of cached tokens.
        """
        held = self._view.num_blocks - self._view.num_free_blocks
        return {
            "kv_cache_usage_perc": held / self._view.num_blocks,
            "unique_pages": held,
            "uncached_scores": self._num_uncached_scores,
        }

    @property
    def longest(self) -> int:
        return self._limits.max_length

    def forget_counts(self) -> None:
        """Begins to count anew, after requests that were nobody's."""
        self.counters, self.latencies, self._num_uncached_scores = Counters(), Latencies(), 0

    def check(self) -> None:
        assert self._requests.keys() == {one for ids in self._ids.values() for one in ids}, "a request has no sequence"
        if not self._requests:
            assert self._view.num_requests == 0, "vLLM computes a request that nobody waits for"
            assert self._view.num_free_blocks == self._view.num_blocks, "blocks are held by no request"


def _rank(sequence: Sequence) -> int:
    """Returns vLLM's priority. Of equal ones vLLM serves the one that came first."""
    return (PRIORITY_RANKS[sequence.priority] << 32) + sequence.family


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise InvalidRequest(f"vLLM refuses the request: {error}") from error
