"""The engine: a step is three verbs, plan, run, commit."""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Series
from pathlib import Path
from typing import NamedTuple

import torch

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.engine_limits import EngineLimits, check_page_size, check_sizes
from ponder_worker.engine.engine_request import generation, reading, scoring
from ponder_worker.engine.kv.kv_memory import Memory
from ponder_worker.engine.kv.kv_offload import KVOffload, OffloadCosts
from ponder_worker.engine.kv.kv_storage import KVStorage
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.latency import Latencies
from ponder_worker.engine.sampling.grammars import Compilation, Grammars
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.sequence import Priority, Sequence
from ponder_worker.engine.step.graph import Capture, DecodeGraphs
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.step.runner import Runner
from ponder_worker.engine.step_plan import Output, StepPlan
from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer


class _StepInFlight(NamedTuple):
    planned_s: float
    plan: StepPlan
    pending: PendingStep


class Engine:
    """One model, one pool of pages, any number of requests. Not thread-safe: one owner makes all calls."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        num_pages: int = 0,
        page_size: int = 16,
        max_step_tokens: int = 2048,
        max_sequences: int = 256,
        memory: Memory | None = None,
        prefix_caching: bool = True,
        num_offload_pages: int = 0,
        offload_costs: OffloadCosts | None = None,
        overlap: bool | None = None,
        capture: Capture | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises InvalidSetting for sizes with which no engine can be made.

        num_pages: num_pages * page_size tokens of context for all sequences together, in all layers; where a model's
        layers form several groups, each group has a page in place of one. memory: instead of num_pages, a memory that
        several engines share. max_step_tokens: the most tokens that one step computes. prefix_caching: whether a
        sequence finds the pages that others computed of its front, those of its family too. num_offload_pages: likewise
        pages in host memory for preempted sequences, used where `offload_costs` say that copying them is cheaper than
        computing them again.
        overlap: plan a step while the one before it is computed, and learn its tokens a step later; None: on a GPU.
        capture: captures decode steps to replay them, on a GPU `graph.captured`; None: steps are not captured.
        """
        check_page_size(page_size)
        check_sizes({"num_pages": 1 if memory else num_pages, "max_sequences": max_sequences}, max_step_tokens)
        self.model = model
        self.tokenizer = tokenizer
        self.latencies = Latencies()
        self.max_sequences = max_sequences
        self._clock = clock
        self._grammars = Grammars(tokenizer, model.config.vocabulary_size)
        num_offload_pages *= model.groups.num_groups
        storage = KVStorage(
            model,
            page_size,
            num_pages=num_pages * model.groups.num_groups,
            memory=memory,
            num_offload_pages=num_offload_pages,
        )
        slab_pages = storage.slab_pages if memory else 0
        self._pool = PagePool(
            storage.num_pages, page_size, slab_pages=slab_pages, prefix_caching=prefix_caching, copy=storage.copy
        )
        offload = None
        if num_offload_pages:
            costs = offload_costs or OffloadCosts.estimated(model.flops_per_token, storage.page_bytes)
            offload = KVOffload(num_offload_pages, costs, storage.offload)
        self._scheduler = Scheduler(
            self._pool,
            max_step_tokens=max_step_tokens,
            max_sequences=max_sequences,
            slabs=memory.slabs if memory else None,
            offload=offload,
            windows=model.groups.windows,
        )
        graphs = DecodeGraphs(model, storage.pages, page_size=page_size, capture=capture) if capture else None
        self._runner = Runner(model, storage, page_size=page_size, graphs=graphs)
        self._num_steps_ahead = int(model.device.type == "cuda" if overlap is None else overlap)
        self._in_flight: deque[_StepInFlight] = deque()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
        kv_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        num_pages: int = 0,
        page_size: int = 16,
        max_step_tokens: int = 2048,
        max_sequences: int = 256,
    ) -> "Engine":
        """Loads a model folder in Hugging Face's format, or a GGUF file. Raises a ModelError that names what is wrong.

        dtype: float32, bfloat16, float16, or int8 where `models.int8.check` allows it.
        kv_dtype: the dtype of keys and values in pages, float8_e4m3fn, or the model's where it is None.
        """
        with model_folder(path) as folder:
            model = Transformer.load(folder, dtype=dtype, device=torch.device(device), kv_dtype=kv_dtype)
            tokenizer = Tokenizer(folder)
        return cls(
            model,
            tokenizer,
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
        sampling: SamplingParams,
        turn_start: int | None = None,
        salt: bytes = b"",
        priority: Priority = "batch",
        family: int = 0,
    ) -> Sequence:
        """Adds a request to generate. Tokens after prompt_length were generated before, and the sequence goes on as if
        it had never been interrupted.

        turn_start: where the text that the request continues begins in the prompt, so that a stop string may begin
        there; None if it continues none. salt: sequences of different salts share no pages. priority: the more urgent
        is served first and preempted last. family: within a priority, lower numbers are served first, then those that
        came first; so what an old family asks for late overtakes younger ones. Raises InvalidRequest or
        OversizedRequest.
        """
        sequence = generation(
            tokens,
            prompt_length,
            sampling,
            self.tokenizer,
            self._limits,
            grammars=self._grammars,
            turn_start=turn_start,
        )
        return self._add(sequence, salt, priority, family)

    def compile(self, grammar: str) -> Compilation:
        """Prepares the grammar of a structure, which may take a second; in any thread. Raises InvalidSampling.

        It stays prepared for as long as the result is held.
        """
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
        """Adds a request for the log-probabilities of tokens[start:], each given all tokens before it.

        What pages already hold is not computed again: a longer version of a scored sequence costs its new tokens and
        at most a page. Raises InvalidRequest or OversizedRequest.
        """
        return self._add(scoring(tokens, start, self._limits), salt, priority, family)

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
        """Adds a request for what `readout` reads at the marks, which are positions in rising order.

        The results are in `Sequence.readings`. As with `score`, what pages already hold is not computed again.
        Raises InvalidRequest or OversizedRequest.
        """
        return self._add(reading(tokens, marks, readout, self._limits), salt, priority, family)

    def _add(self, sequence: Sequence, salt: bytes, priority: Priority, family: int) -> Sequence:
        sequence.table.salt, sequence.priority, sequence.family = salt, priority, family
        sequence.arrived_s = self._clock()
        self._scheduler.add(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence that has not finished. It has no more outputs, and its pages are free after the next step."""
        if sequence.finish_reason is None:
            self._scheduler.cancel(sequence)

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        """Changes the priority of a sequence, unless it has finished."""
        if sequence.finish_reason is None:
            self._scheduler.promote(sequence, priority)

    def step(self) -> list[Output]:
        """Computes one step. Returns an empty list if there was nothing to compute, or no result is known yet.

        After an exception the engine must not be used again: pages may be registered that were never computed.
        """
        planned_s = self._clock()
        plan = self._scheduler.plan()
        if not plan.is_empty:
            self._in_flight.append(_StepInFlight(planned_s, plan, self._runner.launch(plan)))
            if len(self._in_flight) <= self._num_steps_ahead:
                return []
        if not self._in_flight:
            return []
        planned_s, plan, pending = self._in_flight.popleft()
        outputs = self._scheduler.commit(plan, pending.result())
        ended_s = self._clock()
        self._scheduler.step_size.observe(plan.chunks.num_tokens, ended_s - planned_s)
        self.latencies.observe(outputs, planned_s, ended_s)
        return outputs

    @property
    def has_work(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting or self._in_flight)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def free_tokens(self) -> int:
        """An estimate of the room for more: tokens of free pages, less those that waiting sequences already have.

        It counts a token in all layers, as long as none has fallen out of a window.
        """
        free = self._scheduler.num_free // self.model.groups.num_groups * self._pool.page_size
        return max(0, free - sum(len(sequence.tokens) for sequence in self._scheduler.waiting))

    @property
    def pages(self) -> dict[str, int | float]:
        """Gauges and counters of the pool. unique_pages counts held pages once, referenced_pages once per holder."""
        pool = self._pool
        return {
            "kv_cache_usage_perc": pool.num_held / pool.num_pages,
            "unique_pages": pool.num_held,
            "referenced_pages": pool.num_referenced,
            "evicted_pages": pool.prefixes.num_evicted,
            "thrashed_pages": pool.prefixes.num_thrashed,
        }

    @property
    def counters(self) -> Counters:
        return self._scheduler.counters

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that can be asked for."""
        return self._limits.max_length

    @property
    def _limits(self) -> EngineLimits:
        config = self.model.config
        return EngineLimits(
            config.vocabulary_size, config.context_tokens, self._pool.page_size, self._scheduler.max_pages
        )

    @property
    def flops_per_token(self) -> int:
        return self.model.flops_per_token

    def check(self) -> None:
        """Raises AssertionError unless every page is free, or held by exactly the sequences that name it."""
        self._scheduler.check()
