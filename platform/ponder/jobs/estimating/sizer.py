"""The size of a job that has not run: its cell, its prompt, and how many tokens to expect of it."""

from __future__ import annotations

from dataclasses import dataclass

from ponder.domain.batch.cell import Cell, level_of, prompt_size
from ponder.domain.batch.request import JobRequest
from ponder.domain.forecast.experience import Experience
from ponder.domain.forecast.histogram import bin_of, middle
from ponder.domain.forecast.lengths import CellKey


@dataclass(frozen=True, slots=True)
class JobSize:
    """A job's place among others. `cap` is the most tokens of a sample, on the average of its samples."""

    key: CellKey
    samples: float
    cap: float
    prompt_bytes: int
    prompt_ids: int
    prompt_tokens: float


class Sizer:
    """Sizes jobs by the experience of their tenant. Fast, because it is asked for every line of a batch."""

    def __init__(self, experience: Experience) -> None:
        self._experience = experience
        self._tokens_a_byte: dict[CellKey, float] = {}
        self._generated: dict[tuple[CellKey, float, int], float] = {}

    def size(self, request: JobRequest) -> JobSize:
        model = request.model
        num_bytes, num_ids = prompt_size(request.document)
        cell = Cell.of(request.document, model.context_length)
        key = (model.fingerprint, cell.strategy, level_of(request.level))
        tokens = min(num_ids or 1 + num_bytes * self._per_byte(key), model.context_length)
        room = max(model.context_length - tokens, 1.0)
        return JobSize(key, cell.samples, min(cell.cap, room), num_bytes, num_ids, tokens)

    def tokens(self, size: JobSize) -> int:
        """Returns the prompt and generated tokens to expect, at least 1.

        They decide the size of shards and the length of queues, never the bill.
        """
        place = bin_of(size.cap)
        asked = (size.key, size.samples, place)
        if asked not in self._generated:
            mean, _ = self._experience.lengths.place(size.key).job(size.samples, middle(place))
            self._generated[asked] = mean
        return max(1, round(size.prompt_tokens + min(self._generated[asked], size.samples * size.cap)))

    def _per_byte(self, key: CellKey) -> float:
        if key not in self._tokens_a_byte:
            self._tokens_a_byte[key] = self._experience.prompt(key).value
        return self._tokens_a_byte[key]
