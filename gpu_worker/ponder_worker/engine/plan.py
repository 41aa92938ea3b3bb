"""What passes between the three verbs of a step."""

from dataclasses import dataclass, field

from ponder_worker.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens [start, end) of a sequence, to be computed in one step.

    write_from: positions below it stand in pages that others filled; they are computed for their output only.
    """

    sequence: Sequence
    start: int
    end: int
    write_from: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: most urgent first, then oldest. `finished` need no computing: they were complete when they came.

    copies: (from, to) pages, to be copied all at once before anything is computed.
    """

    chunks: list[Chunk] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What the runner found, a list entry a chunk.

    tokens: the sampled one, if the chunk reaches the end of its sequence's known tokens; logprobs: of that token, or of
    the tokens that the chunk scored, or what was read at its marks; kv_bytes_read: a page's bytes divided among those
    who read it in this step.
    """

    tokens: list[int | None]
    logprobs: list[list[float]]
    kv_bytes_read: list[float]


@dataclass(slots=True)
class Counters:
    """Tokens since the engine was made. Prefix queries and hits: tokens looked up, tokens found in pages.

    num_copied_pages: last pages of forked sequences, not full.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    num_copied_pages: int = 0
