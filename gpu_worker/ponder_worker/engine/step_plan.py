"""The messages between the three verbs of a step: plan, run, commit."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple

from ponder_worker.engine.kv.kv_cache_manager import PageTransfers
from ponder_worker.engine.sequence import FinishReason, Sequence, TopLogprobs


class Chunk(NamedTuple):
    """Tokens [start, end) of a sequence, computed in one step.

    write_from: positions below it are in pages that other sequences filled; they are computed for their output only.
    samples: whether the token at `end` is sampled. The last token of the chunk may be one that the step before samples,
    which the sequence does not know yet.
    """

    sequence: Sequence
    start: int
    end: int
    write_from: int
    samples: bool


class Chunks:
    """The chunks of one step, at most one for each sequence.

    They are kept in columns: a step has hundreds, and making an object for each takes time.
    """

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

    @property
    def num_tokens(self) -> int:
        return sum(self.ends) - sum(self.starts)

    def schedule(self, sequence: Sequence, start: int, end: int, write_from: int) -> None:
        """Adds a chunk whose pages are held; see `Chunk`. From now on the sequence counts it as computed."""
        samples = end >= len(sequence.tokens) and sequence.sampling is not None
        self.sequences.append(sequence)
        self.starts.append(start)
        self.ends.append(end)
        self.write_from.append(write_from)
        self.samples.append(samples)
        sequence.num_computed = end
        sequence.num_steps_in_flight += 1
        sequence.num_tokens_in_flight += samples

    def withdraw(self, index: int) -> None:
        """Removes a chunk, and undoes what `schedule` did to its sequence."""
        sequence, start, _, _, samples = self[index]
        del self.sequences[index], self.starts[index], self.ends[index], self.write_from[index], self.samples[index]
        sequence.num_computed = start
        sequence.num_steps_in_flight -= 1
        sequence.num_tokens_in_flight -= samples


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step. Chunks are ordered by urgency.

    finished: sequences that were complete when they arrived, so that nothing is computed for them.
    transfers: copies of pages that come before anything is computed.
    """

    chunks: Chunks = field(default_factory=Chunks)
    finished: list[Sequence] = field(default_factory=list)
    transfers: PageTransfers = field(default_factory=PageTransfers)

    @property
    def is_empty(self) -> bool:
        return not (self.chunks or self.finished)


@dataclass(frozen=True, slots=True)
class StepResult:
    """The results of the runner. Every list has one entry for each chunk.

    tokens: the sampled token, None if the chunk samples none.
    logprobs: of the sampled token, or of the tokens that the chunk scored, or what was read at its marks.
    kv_bytes_read: bytes of keys and values read; those of a shared page are divided among its readers in this step.
    tops: the likeliest tokens beside the sampled one, by chunk, of those that report them.
    """

    tokens: list[int | None]
    logprobs: list[list[float]]
    kv_bytes_read: list[float]
    tops: dict[int, TopLogprobs] = field(default_factory=dict)


class Output(NamedTuple):
    """The work of one step for one sequence. Every sequence that was computed has one, with or without new tokens.

    tokens: ids sampled in this step. logprobs: of these, or of the tokens that this step scored.
    finish_reason: None while the sequence goes on. Its `stop_token_id` or `stop_string` says what stopped it.
    start: the position of the first token computed. computed_tokens, kv_bytes_read: the work of this step.
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
    """Returns Output(*row) for each row, in half the time: a step makes hundreds."""
    return list(map(tuple.__new__, repeat(Output), rows))
