"""The engine's view of one token stream: ids, page table, sampling state."""

from dataclasses import dataclass
from typing import Literal

from ponder_worker.engine.kv.page_table import PageTable
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sampling.stop_strings import StopStrings
from ponder_worker.models.readout import Readout

FinishReason = Literal["stop", "length", "scored", "cancelled"]
Priority = Literal["interactive", "batch", "speculative"]


@dataclass(frozen=True, slots=True)
class Parked:
    """Pages of a preempted sequence in host memory: those of its table from `first` on; num_tokens stand there."""

    first: int
    pages: list[int]
    num_tokens: int


class Sequence:
    """One request. Everything is read-only for those outside the engine.

    tokens: prompt and generated ids; of a scored sequence, all ids from the start.
    logprobs: one natural log-probability a token from `prompt_length` on that this engine sampled or scored, of the
    model's distribution before temperature, filters and penalties. (Of a resumed sequence: of the new tokens only.)
    readings: of a sequence that is read, one probability a mark, in the marks' order.
    """

    __slots__ = (
        "arrived_s",
        "cancelled",
        "finish_reason",
        "logprobs",
        "marks",
        "most_tokens",
        "num_computed",
        "num_computed_once",
        "num_pending",
        "num_underway",
        "number",
        "parked",
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
        priority: Priority = "batch",
        marks: tuple[int, ...] = (),
        readout: Readout | None = None,
    ) -> None:
        self.tokens = tokens
        self.prompt_length = prompt_length
        self.most_tokens = len(tokens) if sampling is None else prompt_length + sampling.max_tokens
        self.sampling = sampling  # None: tokens are scored, from prompt_length on or read at marks; none is generated
        self.priority = priority
        self.arrived_s = 0.0
        self.started_s: float | None = None  # when it was first let into a step
        self.token_s: float | None = None  # when its last token came
        self.number = 0  # in the order of arrival; the scheduler's
        self.marks = marks  # positions at which `readout` reads; without, the log-probabilities are the scores
        self.readout = readout
        self.readings: list[float] = []
        self.table = PageTable(salt)
        self.num_computed = 0  # tokens whose keys and values stand in pages, once the steps under way have ended
        self.num_underway = 0  # steps that compute it now
        self.num_pending = 0  # tokens that they sample
        self.num_computed_once = 0  # the most that ever stood there: what is computed below it is recomputed
        self.parked: Parked | None = None
        self.logprobs: list[float] = []
        self.stop_token_ids = stop_token_ids
        self.stop_strings = stop_strings
        self.cancelled = False
        self.finish_reason: FinishReason | None = None
        self.stop_token_id: int | None = None
        self.stop_string: str | None = None
        self.stop_trailing_chars = 0  # from the beginning of the stop string to the end of the generated text

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def num_wanted(self) -> int:
        """Tokens that can be computed. A scored sequence's last one has no successor that anyone asks for."""
        if self.sampling is not None:
            return len(self.tokens) + (self.num_pending and self._goes_on_unseen)
        return self.marks[-1] + 1 if self.marks else len(self.tokens) - 1

    @property
    def first_needed(self) -> int:
        """The first position whose output is needed, prefix in pages or not."""
        if self.marks:
            return self.marks[len(self.readings)]
        if self.sampling is None:
            return self.prompt_length - 1 + len(self.logprobs)
        return len(self.tokens) - 1

    @property
    def _goes_on_unseen(self) -> bool:
        """Is the token after the one that is being sampled wanted, and does its choice not look back?"""
        sampling = self.sampling
        assert sampling is not None
        return len(self.tokens) + 1 < self.most_tokens and not sampling.penalises

    def append(self, token: int, logprob: float) -> None:
        """Takes a sampled token; sets `finish_reason` if it was the last one."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if len(self.tokens) >= self.most_tokens or token in self.stop_token_ids or self.stop_strings is not None:
            self.inspect(token, len(self.tokens) - self.prompt_length)

    def take_scores(self, values: list[float]) -> None:
        """Of a chunk: log-probabilities or readings."""
        (self.readings if self.marks else self.logprobs).extend(values)

    def inspect(self, token: int, num_generated: int) -> None:
        """Does the sequence end with this generated token, the so-manieth?"""
        assert self.sampling is not None
        early = num_generated < self.sampling.min_tokens
        if token in self.stop_token_ids and not early:
            self.finish_reason, self.stop_token_id = "stop", token
            return
        if self.stop_strings is not None and (found := self.stop_strings.push(token)) is not None and not early:
            self.finish_reason, (self.stop_string, self.stop_trailing_chars) = "stop", found
        elif self.prompt_length + num_generated >= self.most_tokens:
            self.finish_reason = "length"
