"""A step that is still being computed."""

from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.sequence import TopLogprobs
from ponder_worker.engine.step_plan import StepResult


class PendingStep:
    """The results of a step on their way to the host. Only `result` waits for the device."""

    def __init__(self, kv_bytes_read: list[float]) -> None:
        """Starts without results. kv_bytes_read: one entry for each chunk."""
        self._kv_bytes_read = kv_bytes_read
        self._tokens: tuple[Series[int], torch.Tensor] | None = None
        self._values: list[tuple[Series[int], torch.Tensor]] = []
        self._tops: tuple[Series[tuple[int, int]], torch.Tensor, torch.Tensor] | None = None
        self._on_device = False
        self._copied: torch.cuda.Event | None = None

    def add_tokens(self, indices: Series[int], tokens: torch.Tensor, logprobs: torch.Tensor) -> None:
        """Adds one sampled token and its log-probability for each of the chunks at `indices`."""
        self._tokens = indices, self._to_host(tokens)
        self.add_values(indices, logprobs)

    def add_values(self, indices: Series[int], values: torch.Tensor) -> None:
        """Adds values[i] to the values of chunk indices[i]."""
        self._values.append((indices, self._to_host(values)))

    def add_tops(self, wanted: Series[tuple[int, int]], logprobs: torch.Tensor, tokens: torch.Tensor) -> None:
        """Adds the likeliest tokens of one chunk for each row. wanted: pairs of a chunk and how many it reports."""
        self._tops = wanted, self._to_host(logprobs), self._to_host(tokens)

    def close(self) -> None:
        """Must be called when all work of the step has been queued on the device."""
        if self._on_device:
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def result(self) -> StepResult:
        """Waits for the device, and returns the results."""
        if self._copied is not None:
            self._copied.synchronize()
        tokens: list[int | None] = [None] * len(self._kv_bytes_read)
        logprobs: list[list[float]] = [[] for _ in tokens]
        if self._tokens is not None:
            for index, token in zip(self._tokens[0], self._tokens[1].tolist(), strict=True):
                tokens[index] = token
        for indices, values in self._values:
            for index, value in zip(indices, values.tolist(), strict=True):
                logprobs[index].append(value)
        return StepResult(tokens, logprobs, self._kv_bytes_read, self._tops_by_chunk())

    def _tops_by_chunk(self) -> dict[int, TopLogprobs]:
        if self._tops is None:
            return {}
        wanted, logprobs, tokens = self._tops
        rows = zip(wanted, tokens.tolist(), logprobs.tolist(), strict=True)
        return {chunk: tuple(zip(ids[:num], values[:num], strict=True)) for (chunk, num), ids, values in rows}

    def _to_host(self, values: torch.Tensor) -> torch.Tensor:
        if not values.is_cuda:
            return values
        self._on_device = True
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
