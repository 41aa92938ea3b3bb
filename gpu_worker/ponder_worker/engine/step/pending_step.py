"""A step under way."""

from collections.abc import Sequence as Series

import torch

from ponder_worker.engine.scheduling.step_plan import Result


class PendingStep:
    """What a step finds, on its way to the host; nothing waits for the device before `land`."""

    def __init__(self, kv_bytes_read: list[float]) -> None:
        self._kv_bytes_read = kv_bytes_read
        self._sampled: tuple[Series[int], torch.Tensor] | None = None
        self._values: list[tuple[Series[int], torch.Tensor]] = []
        self._on_device = False
        self._arrived: torch.cuda.Event | None = None

    def add_tokens(self, indices: Series[int], tokens: torch.Tensor, logprobs: torch.Tensor) -> None:
        """One of each for the chunks at `indices`."""
        self._sampled = indices, self._to_host(tokens)
        self.add_values(indices, logprobs)

    def add_values(self, indices: Series[int], values: torch.Tensor) -> None:
        """values[i] is one more of chunk indices[i]."""
        self._values.append((indices, self._to_host(values)))

    def depart(self) -> None:
        """All is said that the device has to do."""
        if self._on_device:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def land(self) -> Result:
        """Waits for the device."""
        if self._arrived is not None:
            self._arrived.synchronize()
        tokens: list[int | None] = [None] * len(self._kv_bytes_read)
        logprobs: list[list[float]] = [[] for _ in tokens]
        if self._sampled is not None:
            for index, token in zip(self._sampled[0], self._sampled[1].tolist(), strict=True):
                tokens[index] = token
        for indices, values in self._values:
            for index, value in zip(indices, values.tolist(), strict=True):
                logprobs[index].append(value)
        return Result(tokens, logprobs, self._kv_bytes_read)

    def _to_host(self, values: torch.Tensor) -> torch.Tensor:
        if not values.is_cuda:
            return values
        self._on_device = True
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
