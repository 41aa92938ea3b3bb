"""What passes between the three verbs of a step."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple

from ponder_worker.engine.sequence import FinishReason, Sequence


class Chunk(NamedTuple):
    """Tokens [start, end) of a sequence, to be computed in one step.

    write_from: positions below it stand in pages that others filled; they are computed for their output only.
    samples: the token at `end` is sampled. The last of the chunk's own may be one that the step before samples: it is
    the one that the sequence does not know yet.
    """

    sequence: Sequence
    start: int
    end: int
    write_from: int
    samples: bool


class Chunks:
    """Of one step, at most one a sequence, in columns: a step has hundreds, and an object for each takes its time."""

    __slots__ = ("ends", "samples", "sequences", "starts", "write_from")

    def __init__(self) -> None:
        self.sequences: list[Sequence] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.write_from: list[int] = []
        self.samples: list[bool] = []

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[Chunk]:
        return map(Chunk, self.sequences, self.starts, self.ends, self.write_from, self.samples)

    def __getitem__(self, index: int) -> Chunk:
        starts, ends = self.starts[index], self.ends[index]
        return Chunk(self.sequences[index], starts, ends, self.write_from[index], self.samples[index])

    def __delitem__(self, index: int) -> None:
        del self.sequences[index], self.starts[index], self.ends[index], self.write_from[index], self.samples[index]

    def append(self, sequence: Sequence, start: int, end: int, write_from: int, samples: bool) -> None:
        """See Chunk."""
        self.sequences.append(sequence)
        self.starts.append(start)
        self.ends.append(end)
        self.write_from.append(write_from)
        self.samples.append(samples)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: most urgent first, then oldest. `finished` need no computing: they were complete when they came.

    Before anything is computed, pages are copied: first `copies`, (from, to), in any order, as no page is in both
    columns; then `returns`, (parked page in host memory, to).
    """

    chunks: Chunks = field(default_factory=Chunks)
    finished: list[Sequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    returns: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.chunks or self.finished)


@dataclass(frozen=True, slots=True)
class Result:
    """What the runner found, a list entry a chunk.

    tokens: the sampled one, if the chunk samples; logprobs: of that token, or of the tokens that the chunk scored, or
    what was read at its marks; kv_bytes_read: a page's bytes divided among those who read it in this step.
    """

    tokens: list[int | None]
    logprobs: list[list[float]]
    kv_bytes_read: list[float]


class Output(NamedTuple):
    """What one step did for one sequence; every sequence that was computed has one, with new tokens or without.

    tokens: ids sampled in this step; logprobs: of them, or of the tokens that this step scored.
    finish_reason: None while it goes on. Why a sequence stopped stands on it: `stop_token_id` or `stop_string`.
    start: the position of the first token computed; computed_tokens, kv_bytes_read: the work of this step, a shared
    page's bytes divided among its readers.
    """

    sequence: Sequence
    tokens: list[int]
    logprobs: list[float]
    finish_reason: FinishReason | None
    start: int
    computed_tokens: int
    kv_bytes_read: float


Row = tuple[Sequence, list[int], list[float], FinishReason | None, int, int, float]


def outputs_of(rows: Iterable[Row]) -> list[Output]:
    """Output(*row) of each, in half the time: a step makes hundreds."""
    return list(map(tuple.__new__, repeat(Output), rows))


@dataclass(slots=True)
class Counters:
    """Tokens since the engine was made. Prefix queries and hits: tokens looked up, tokens found in pages.

    num_copied_pages: last pages of forked sequences, not full. returned_tokens: of preempted sequences, from host
    memory. wasted_tokens: computed after a stop that was not known yet.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    returned_tokens: int = 0
    wasted_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_copied_pages: int = 0
