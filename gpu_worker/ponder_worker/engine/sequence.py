"""The engine's view of one token stream: ids, page table, sampling state."""

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from ponder_worker.engine.page_table import PageTable
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sampling.stop_strings import StopStrings
from ponder_worker.engine.sampling.structure_matcher import StructureMatcher
from ponder_worker.models.readout import Readout

FinishReason = Literal["stop", "length", "scored", "cancelled"]
Priority = Literal["interactive", "batch", "background"]
PRIORITY_RANKS = {name: rank for rank, name in enumerate(get_args(Priority))}

TopLogprobs = tuple[tuple[int, float], ...]
"""The likeliest tokens at one place with their log-probabilities, best first."""

Urgency = tuple[float, ...]
"""The rank of the priority, the family, then the arrival. The smaller is served first and preempted last."""
MOST_URGENT: Urgency = (-1, 0)
"""More urgent than any sequence."""


@dataclass(frozen=True, slots=True)
class OffloadedPages:
    """The pages of a preempted sequence in host memory.

    For each of its tables they are the pages from an index of `firsts` on. Together with the pages before them they
    hold `num_tokens`.
    """

    firsts: list[int]
    pages: list[list[int]]
    num_tokens: int

    @property
    def all_pages(self) -> list[int]:
        return [page for pages in self.pages for page in pages]


class Sequence:
    """One request. All attributes are read-only outside the engine.

    tokens: prompt and generated ids; of a scored sequence, all ids from the start.
    logprobs: one natural log-probability for each token from `prompt_length` on that this engine sampled or scored, of
    the model's distribution before temperature, filters and penalties. A resumed sequence has those of its new tokens.
    top_logprobs: the likeliest tokens at each place of `logprobs`; empty unless the sampling parameters ask for them.
    readings: one probability for each mark, in the order of the marks, where a reward model reads the sequence.
    family: a number that sequences of one search share. The older search has the lower one, and is served first.
    table, other_tables: the pages of the model's first group of layers, and those of its other groups. Most models have
    a single group. No other table has fewer pages than the first.
    """

    __slots__ = (
        "arrival",
        "arrived_s",
        "cancelled",
        "family",
        "finish_reason",
        "logprobs",
        "marks",
        "matcher",
        "max_length",
        "most_computed",
        "num_computed",
        "num_steps_in_flight",
        "num_tokens_in_flight",
        "offloaded",
        "other_tables",
        "priority",
        "prompt_length",
        "readings",
        "readout",
        "sampling",
        "started_s",
        "stop_string",
        "stop_strings",
        "stop_token_id",
        "stop_token_ids",
        "stop_trailing_chars",
        "table",
        "token_s",
        "tokens",
        "top_logprobs",
        "turn_start",
    )

    def __init__(
        self,
        tokens: list[int],
        prompt_length: int,
        sampling: SamplingParams | None,
        *,
        salt: bytes = b"",
        stop_token_ids: frozenset[int] = frozenset(),
        stop_strings: StopStrings | None = None,
        matcher: StructureMatcher | None = None,
        turn_start: int | None = None,
        priority: Priority = "batch",
        marks: tuple[int, ...] = (),
        readout: Readout | None = None,
    ) -> None:
        """Makes a sequence that generates or, where `sampling` is None, one whose tokens are scored.

        turn_start: where the text that the sequence continues begins; None if it continues none.
        matcher: of the structure that the text is held to, before its first generated id.
        marks: positions at which `readout` reads; without marks the scores are log-probabilities from prompt_length on.
        """
        self.tokens = tokens
        self.prompt_length = prompt_length
        self.turn_start = prompt_length if turn_start is None else turn_start
        self.max_length = len(tokens) if sampling is None else prompt_length + sampling.max_tokens
        self.sampling = sampling
        self.priority = priority
        self.family = 0
        self.arrived_s = 0.0
        self.started_s: float | None = None  # when it was first part of a step
        self.token_s: float | None = None  # when its last token was committed
        self.arrival = 0  # its number in the order of arrival, given by the scheduler
        self.marks = marks
        self.readout = readout
        self.readings: list[float] = []
        self.table = PageTable(salt)
        self.other_tables: tuple[PageTable, ...] = ()
        self.num_computed = 0  # tokens whose keys and values are in pages once the steps in flight have ended
        self.num_steps_in_flight = 0
        self.num_tokens_in_flight = 0  # tokens that the steps in flight sample
        self.most_computed = 0  # the highest num_computed so far: computing below it is recomputation
        self.offloaded: OffloadedPages | None = None
        self.logprobs: list[float] = []
        self.top_logprobs: list[TopLogprobs] = []
        self.stop_token_ids = stop_token_ids
        self.stop_strings = stop_strings
        self.matcher = matcher
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self.stop_token_id: int | None = None
        self.stop_string: str | None = None
        self.stop_trailing_chars = 0  # from the start of the stop string to the end of the generated text

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def tables(self) -> tuple[PageTable, ...]:
        """One table for each group of the model's layers."""
        return (self.table, *self.other_tables)

    @property
    def urgency(self) -> Urgency:
        return PRIORITY_RANKS[self.priority], self.family, self.arrival

    @property
    def lowest_urgency_of_priority(self) -> Urgency:
        """Less urgent than every sequence of this priority, and more urgent than those of lower ones."""
        return PRIORITY_RANKS[self.priority], inf

    @property
    def num_computable(self) -> int:
        """The tokens that may be computed by now.

        The last token of a scored sequence is not among them: it has no successor to score.
        """
        if self.sampling is not None:
            return len(self.tokens) + (self.num_tokens_in_flight and self._may_run_ahead)
        return self.marks[-1] + 1 if self.marks else len(self.tokens) - 1

    @property
    def first_needed(self) -> int:
        """The first position whose output is needed, even if its keys and values are already in pages."""
        if self.marks:
            return self.marks[len(self.readings)]
        if self.sampling is None:
            return self.prompt_length - 1 + len(self.logprobs)
        return len(self.tokens) - 1

    @property
    def _may_run_ahead(self) -> bool:
        """Whether the token after the one being sampled is wanted and can be chosen without knowing that one."""
        sampling = self.sampling
        assert sampling is not None
        return len(self.tokens) + 1 < self.max_length and not sampling.penalises and self.matcher is None

    def append(self, token: int, logprob: float) -> None:
        """Adds a sampled token, and sets `finish_reason` if it is the last."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        may_stop = self.stop_strings is not None or self.matcher is not None or token in self.stop_token_ids
        if may_stop or len(self.tokens) >= self.max_length:
            self.check_stop(token, len(self.tokens) - self.prompt_length)

    def take_scores(self, values: list[float]) -> None:
        """Adds the log-probabilities, or the readings, of one chunk."""
        (self.readings if self.marks else self.logprobs).extend(values)

    def check_stop(self, token: int, num_generated: int) -> None:
        """Sets `finish_reason` if the sequence ends with this token, the `num_generated`-th generated one."""
        assert self.sampling is not None
        too_early = num_generated < self.sampling.min_tokens
        matcher = self.matcher
        if token in self.stop_token_ids and not too_early and (matcher is None or matcher.may_end):
            self.finish_reason, self.stop_token_id = "stop", token
            return
        if matcher is not None:
            matcher.push(token)
        if self.stop_strings is not None and (found := self.stop_strings.push(token, too_early)) is not None:
            self.finish_reason, (self.stop_string, self.stop_trailing_chars) = "stop", found
        elif matcher is not None and matcher.is_complete:
            self.finish_reason = "stop"
        elif self.prompt_length + num_generated >= self.max_length or (matcher is not None and matcher.is_stuck):
            self.finish_reason = "length"
