"""The engine as the engine process needs it: our own, or another that drives a library."""

from collections.abc import Sequence as Series
from typing import Protocol

from ponder_worker.engine.counters import Counters
from ponder_worker.engine.latency import Latencies
from ponder_worker.engine.sampling.grammars import Compilation
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sequence import Priority, Sequence
from ponder_worker.engine.step_plan import Output
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.readout import Readout


class InferenceEngine(Protocol):
    """One model and any number of requests. Not thread-safe: one owner makes all calls.

    A request takes effect in the next step. All of them raise InvalidRequest or OversizedRequest.
    """

    max_sequences: int
    latencies: Latencies

    @property
    def tokenizer(self) -> Tokenizer: ...

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
        """Adds a request to generate. Tokens after prompt_length were generated before and are kept: stop strings are
        found across the seam, penalties and max_tokens count them, a structure goes on where they end, and what is
        complete already ends at once.

        turn_start: where the text that the request continues begins in the prompt, so that a stop string may begin
        there; None if it continues none. salt: sequences of different salts share no keys and values. priority: the
        more urgent is served first. family: within a priority, lower numbers are served first, then those that came
        first; so what an old family asks for late overtakes younger ones.
        """

    def compile(self, grammar: str) -> Compilation:
        """Prepares the grammar of a structure, which may take a second; in any thread. Raises InvalidSampling.

        It stays prepared for as long as the result is held.
        """

    def score(
        self,
        tokens: Series[int],
        *,
        start: int,
        salt: bytes = b"",
        priority: Priority = "batch",
        family: int = 0,
    ) -> Sequence:
        """Adds a request for the log-probabilities of tokens[start:], each given all tokens before it."""

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
        """Adds a request for what `readout` reads at the marks, which are positions in rising order."""

    def cancel(self, sequence: Sequence) -> None:
        """Ends a sequence that has not finished. It has no more outputs."""

    def promote(self, sequence: Sequence, priority: Priority) -> None:
        """Changes the priority of a sequence, unless it has finished."""

    def step(self) -> list[Output]:
        """Computes one step. An output says what its sequence cost: computed tokens, and bytes read of keys and values.

        Returns an empty list if there was nothing to compute, or no result is known yet. After an exception the engine
        must not be used again.
        """

    @property
    def has_work(self) -> bool: ...

    @property
    def num_running(self) -> int: ...

    @property
    def num_waiting(self) -> int: ...

    @property
    def free_tokens(self) -> int:
        """An estimate of the room for more."""

    @property
    def pages(self) -> dict[str, int | float]:
        """Gauges and counters of the memory for keys and values, by the names of the worker's metrics."""

    @property
    def counters(self) -> Counters: ...

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that can be asked for."""

    @property
    def flops_per_token(self) -> int: ...

    def check(self) -> None:
        """Raises AssertionError if memory is lost: neither free nor held by a sequence that goes on."""
