"""Decode steps captured once for each padded size and replayed: a step costs the host one launch, not one a kernel.

What a captured step reads stands in memory of its own, which is filled anew before each replay: ids, positions, slots,
attention's plan and how each row is sampled. Keys and values are written, and tokens chosen, inside.
"""

import logging
from collections.abc import Callable
from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_kernels.attention import paged_attention
from ponder_kernels.attention.attention_planner import Planner
from ponder_kernels.attention.attention_tile import queries_of
from ponder_kernels.attention.attention_work import Capacity, Work
from ponder_worker.engine.sampling.choice import choice_of, columns_of
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.models import attention
from ponder_worker.models.pages import Pages
from ponder_worker.models.transformer import Transformer

Found = tuple[torch.Tensor, torch.Tensor]
Capture = Callable[[Callable[[], Found]], tuple[Callable[[], object], Found]]
"""A computation -> what does it again, and where its results stand from then on"""
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decode:
    """Rows that each compute one token and draw the next. tokens: `[num_rows]` int64 on the device; positions, slots:
    `[num_rows]` of these tokens; table: `[num_rows, max_pages]`.
    """

    tokens: torch.Tensor
    positions: Integers
    slots: Integers
    table: npt.NDArray[np.int32]
    samplings: Series[SamplingParams]


class Graphs:
    """Of one model and its pages. is_usable: until a capture fails; from then on steps are computed as they come."""

    def __init__(self, model: Transformer, pages: Series[Pages], *, page_size: int, capture: Capture) -> None:
        config = model.config
        self._tile = queries_of(config.num_heads // config.num_kv_heads, config.head_dim, model.dtype.itemsize)
        self._model, self._pages, self._capture = model, pages, capture
        self.is_usable = True
        self._planners = {
            window: Planner(page_size, window=window or 0, tile_queries=self._tile) for window in set(config.windows)
        }
        self._steps: dict[int, _Step] = {}

    def run(self, decode: Decode) -> Found:
        """-> the tokens drawn and their log-probabilities, `[num_rows]` each"""
        count = len(decode.positions)
        size = 1 << (count - 1).bit_length()
        # a row of padding reads one key that is there, and writes none
        contexts = np.pad(decode.positions + 1, (0, size - count), constant_values=1)
        table = np.pad(decode.table, ((0, size - count), (0, 0)))
        ones = np.ones_like(contexts)
        plans = {window: planner.plan(ones, contexts, table) for window, planner in self._planners.items()}
        step = self._steps.get(size)
        new = step is None or not all(step.works[w].capacity.holds(Capacity.of(p, table)) for w, p in plans.items())
        if step is None or new:
            works = {}
            for window, planned in plans.items():
                wanted = Capacity.of(planned, table)
                former = step.works[window].capacity if step is not None else wanted
                works[window] = Work.of(
                    planned, table, self._model.device, tile_queries=self._tile, one_tile=False,
                    capacity=wanted.grown(former),
                )  # fmt: skip
            step = self._steps[size] = _Step(size, works, self._model.device)
        for window, planned in plans.items():
            step.works[window].fill(planned, table)
        step.fill(decode)
        if new:
            step.capture(self._model, self._pages, self._captured)
        step.replay()
        tokens, logprobs = step.found
        return tokens[:count].clone(), logprobs[:count].clone()  # the next replay writes over them

    def _captured(self, compute: Callable[[], Found]) -> tuple[Callable[[], object], Found]:
        try:
            return self._capture(compute)
        except Exception as error:  # whatever a driver, a compiler or an allocator may raise
            self.is_usable = False
            self._steps.clear()  # and with them the memory that they have for themselves
            logging.getLogger(__name__).warning(
                "decode steps are not captured, and cost the host more: %s: %s", type(error).__name__, error
            )
            return (lambda: None), compute()


class _Step:
    """The memory of one size. wholes: tokens, positions, slots, seeds, top_k; numbers: temperature, top_p, min_p"""

    def __init__(self, size: int, works: dict[int | None, Work], device: torch.device) -> None:
        self.works = works
        self._size = size
        self._wholes = torch.zeros((5, size), dtype=torch.int64, device=device)
        self._numbers = torch.zeros((3, size), device=device)
        self.replay: Callable[[], object]
        self.found: Found

    def fill(self, decode: Decode) -> None:
        count = len(decode.positions)
        wholes = np.zeros((5, self._size), dtype=np.int64)
        wholes[2] = -1
        wholes[1, :count], wholes[2, :count] = decode.positions, decode.slots
        numbers = np.zeros((3, self._size), dtype=np.float32)
        numbers[1] = 1
        wholes[3:, :count], numbers[:, :count] = columns_of(decode.samplings)
        self._wholes.copy_(torch.from_numpy(wholes), non_blocking=True)
        self._wholes[0, :count] = decode.tokens
        self._numbers.copy_(torch.from_numpy(numbers), non_blocking=True)

    def capture(self, model: Transformer, pages: Series[Pages], capture: Capture) -> None:
        whole = {
            window: attention.Layout(None, (), None, None, paged_attention.Layout(window or 0, work))
            for window, work in self.works.items()
        }
        where = tuple(whole[window] for window in model.config.windows)

        def compute() -> Found:
            tokens, positions, slots, seeds, top_k = self._wholes
            hidden = model.forward(tokens, positions, slots, where, pages)
            return sample.op(model.logits(hidden), choice_of((seeds, top_k), self._numbers, positions + 1))

        self.replay, self.found = capture(compute)


def captured(compute: Callable[[], Found]) -> tuple[Callable[[], object], Found]:
    """As a CUDA graph. It is computed before, so that kernels are compiled and libraries have their memory."""
    current = torch.cuda.current_stream()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            found = compute()
    finally:
        torch.cuda.set_stream(current)  # which torch leaves where a capture breaks off
    return graph.replay, found
