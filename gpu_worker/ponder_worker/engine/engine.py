"""The engine: a step is three verbs, plan, run, commit."""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Series
from pathlib import Path

import torch

from ponder_worker.engine.engine_limits import Limits, check_page_size, check_sizes
from ponder_worker.engine.engine_request import generation, reading, scoring
from ponder_worker.engine.kv.kv_offload import Costs, KVOffload
from ponder_worker.engine.kv.kv_storage import Memory, Storage
from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.latency import Latencies
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.scheduling.scheduler import Scheduler
from ponder_worker.engine.scheduling.step_plan import Counters, Output, Plan
from ponder_worker.engine.sequence import Priority, Sequence
from ponder_worker.engine.step.graph import Capture, Graphs
from ponder_worker.engine.step.pending_step import PendingStep
from ponder_worker.engine.step.runner import Runner
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout
from ponder_worker.models.transformer import Transformer

__all__ = ["Counters", "Engine", "Output"]


class Engine:
    """One model, one pool of pages, any number of requests. Not thread-safe: one owner calls everything."""

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
        num_parked_pages: int = 0,
        costs: Costs | None = None,
        overlap: bool | None = None,
        capture: Capture | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """num_pages * page_size tokens of context in all, or as many as it gets of a `memory` that engines share; a
        step computes at most max_step_tokens.

        num_parked_pages: in host memory, for preempted sequences where `costs` say that it is cheaper than to compute
        them again. overlap: a step is planned while the one before it is computed, and its tokens are known a step
        later; unset is what pays, which it does on a GPU. capture: how decode steps are captured to be
        replayed, `graph.captured` on a GPU; None: they are not. Raises InvalidSetting for sizes that make no engine.
        """
        check_page_size(page_size)
        check_sizes({"num_pages": 1 if memory else num_pages, "max_sequences": max_sequences}, max_step_tokens)
        self.model = model
        self.tokenizer = tokenizer
        self.latencies = Latencies()
        self.max_sequences = max_sequences
        self._clock = clock
        storage = Storage(model, page_size, num_pages=num_pages, memory=memory, num_parked=num_parked_pages)
        self._pool = PagePool(storage.num_pages, page_size, slab_pages=storage.slab_pages if memory else 0)
        parking = None
        if num_parked_pages:
            costs = costs or Costs.declared(model.flops_per_token, storage.page_bytes)
            parking = KVOffload(num_parked_pages, costs, storage.park)
        self._scheduler = Scheduler(
            self._pool,
            max_step_tokens=max_step_tokens,
            max_sequences=max_sequences,
            budget=memory.budget if memory else None,
            parking=parking,
            move=storage.copy,
        )
        graphs = Graphs(model, storage.pages, page_size=page_size, capture=capture) if capture else None
        self._runner = Runner(model, storage, page_size=page_size, graphs=graphs)
        self._steps_ahead = int(model.device.type == "cuda" if overlap is None else overlap)
        self._flights: deque[tuple[float, Plan, PendingStep]] = deque()

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
        """From a model folder in Hugging Face's format. Raises a ModelError that names what is wrong with it.

        dtype: float32, bfloat16, float16; int8 where `models.int8.check` allows it.
        kv_dtype: of keys and values in pages, float8_e4m3fn or, None, the model's.
        """
        return cls(
            Transformer.load(path, dtype=dtype, device=torch.device(device), kv_dtype=kv_dtype),
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
        sampling: SamplingParams,
        turn_start: int | None = None,
        salt: bytes = b"",
        priority: Priority = "batch",
    ) -> Sequence:
        """Adds a request; tokens after prompt_length were generated before, and it goes on as if never interrupted.

        turn_start: where in the prompt generated text begins that this one goes on with, so that a stop string may
        begin there; unset, it goes on with none. salt: sequences of different salts share no pages. priority: who is
        served first and preempted last. Raises InvalidRequest, OversizedRequest.
        """
        sequence = generation(tokens, prompt_length, sampling, self.tokenizer, self._limits, turn_start=turn_start)
        return self._add(sequence, salt, priority)

    def score(self, tokens: Series[int], *, start: int, salt: bytes = b"", priority: Priority = "batch") -> Sequence:
        """Adds a request for the log-probabilities of tokens[start:], each given all before it.

        What stands in pages already is not computed again: a longer version of a scored sequence costs its new tokens
        and at most a page. Raises InvalidRequest, OversizedRequest.
        """
        return self._add(scoring(tokens, start, self._limits), salt, priority)

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
        return self._add(reading(tokens, marks, readout, self._limits), salt, priority)

    def _add(self, sequence: Sequence, salt: bytes, priority: Priority) -> Sequence:
        sequence.table.salt, sequence.priority = salt, priority
        sequence.arrived_s = self._clock()
        self._scheduler.add(sequence)
        return sequence

    def cancel(self, sequence: Sequence) -> None:
        """No Output names it again; its pages are back after the next step. A finished sequence stays as it is."""
        if sequence.finish_reason is None:
            self._scheduler.cancel(sequence)

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        """What was begun on a guess turns out to be wanted. A finished sequence stays as it is."""
        if sequence.finish_reason is None:
            self._scheduler.promote(sequence, priority)

    def step(self) -> list[Output]:
        """Computes one step; an empty list when there was nothing to compute, or nothing is known of it yet.

        After an exception the engine is of no more use: pages may be registered that were never computed.
        """
        planned_s = self._clock()
        plan = self._scheduler.plan()
        if not plan.is_empty:
            self._flights.append((planned_s, plan, self._runner.launch(plan)))
            if len(self._flights) <= self._steps_ahead:
                return []
        if not self._flights:
            return []
        planned_s, plan, flight = self._flights.popleft()
        outputs = self._scheduler.commit(plan, flight.land())
        self.latencies.observe(outputs, planned_s, self._clock())
        return outputs

    @property
    def has_work(self) -> bool:
        return bool(self._scheduler.running or self._scheduler.waiting or self._flights)

    @property
    def num_running(self) -> int:
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def free_tokens(self) -> int:
        """An estimate of the room for more: tokens of free pages, less those that the waiting already know."""
        free = self._scheduler.num_free * self._pool.page_size
        return max(0, free - sum(len(sequence.tokens) for sequence in self._scheduler.waiting))

    @property
    def pages(self) -> dict[str, int | float]:
        """Gauges and counters of the pool. unique_pages are held by somebody, referenced_pages counts every holder."""
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
        return self._limits.tokens

    @property
    def _limits(self) -> Limits:
        config = self.model.config
        return Limits(config.vocabulary_size, config.context_tokens, self._pool.page_size, self._scheduler.most_pages)

    @property
    def flops_per_token(self) -> int:
        return self.model.flops_per_token

    def check(self) -> None:
        """AssertionError unless every page is free or held, and held by those who name it."""
        self._scheduler.check()
