"""Captures decode steps once for each padded size and replays them, so that a step costs the host a single launch.

A captured step reads from memory of its own, which is filled before each replay: ids, positions, slots, the work of
attention, and how each row is sampled. It writes keys and values and samples tokens by itself.
"""

import logging
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ponder_kernels import sample
from ponder_kernels.attention import paged_attention
from ponder_kernels.attention.attention_plan import AttentionPlan
from ponder_kernels.attention.device_plan import Capacity, DevicePlan
from ponder_kernels.attention.planner import Planner
from ponder_kernels.attention.tiles import queries_per_tile
from ponder_worker.engine.sampling.sampling_metadata import kernel_choice, kernel_columns
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.models import attention
from ponder_worker.models.kv_pages import Pages
from ponder_worker.models.transformer import Transformer

Sampled = tuple[torch.Tensor, torch.Tensor]
"""Tokens and their log-probabilities, `[num_rows]` each."""
Capture = Callable[[Callable[[], Sampled]], tuple[Callable[[], object], Sampled]]
"""Takes a computation. Returns a function that repeats it, and the tensors that hold its results from then on."""
Integers = npt.NDArray[np.int64]
Kind = tuple[int | None, int]
"""The window of a layer, and the group that it belongs to."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Rows that each compute one token and sample the next.

    tokens: int64 `[num_rows]`, on the device. positions: `[num_rows]`, of these tokens.
    slots: `[num_groups, num_rows]`. tables: `[num_groups, num_rows, max_pages]`, places of pages.
    """

    tokens: torch.Tensor
    positions: Integers
    slots: Integers
    tables: npt.NDArray[np.int32]
    samplings: Series[SamplingParams]


class DecodeGraphs:
    """The captured steps of one model. is_usable: False once a capture has failed; steps then run uncaptured."""

    def __init__(self, model: Transformer, pages: Series[Pages], *, page_size: int, capture: Capture) -> None:
        config = model.config
        self._tile = queries_per_tile(config.num_heads // config.num_kv_heads, config.head_dim, model.dtype.itemsize)
        self._model, self._pages, self._capture = model, pages, capture
        self.is_usable = True
        self._planners = {
            kind: Planner(page_size, window=kind[0] or 0, tile_queries=self._tile) for kind in set(_kinds(model))
        }
        self._steps: dict[int, _CapturedStep] = {}

    def run(self, decode: Decode) -> Sampled:
        """Computes a step."""
        num_rows = len(decode.positions)
        size = 1 << (num_rows - 1).bit_length()
        # A row of padding reads one key that exists, and writes none.
        contexts = np.pad(decode.positions + 1, (0, size - num_rows), constant_values=1)
        tables = np.pad(decode.tables, ((0, 0), (0, size - num_rows), (0, 0)))
        ones = np.ones_like(contexts)
        plans = {kind: planner.plan(ones, contexts, tables[kind[1]]) for kind, planner in self._planners.items()}
        step = self._steps.get(size)
        is_new = step is None or not all(
            step.works[kind].capacity.holds(Capacity.of(plan, tables[0])) for kind, plan in plans.items()
        )
        if step is None or is_new:
            step = self._steps[size] = self._new_step(size, plans, tables, step)
        for kind, plan in plans.items():
            step.works[kind].fill(plan, tables[kind[1]])
        step.fill(decode)
        if is_new:
            step.capture(self._model, self._pages, self._capture_or_compute)
        step.replay()
        tokens, logprobs = step.sampled
        return tokens[:num_rows].clone(), logprobs[:num_rows].clone()  # the next replay overwrites them

    def _new_step(
        self,
        size: int,
        plans: Mapping[Kind, AttentionPlan],
        tables: npt.NDArray[np.int32],
        former: "_CapturedStep | None",
    ) -> "_CapturedStep":
        """Makes a step with room for these plans. former: the step of this size that has become too small."""
        works = {}
        for kind, plan in plans.items():
            table = tables[kind[1]]
            needed = Capacity.of(plan, table)
            capacity = needed.grown(needed if former is None else former.works[kind].capacity)
            works[kind] = DevicePlan.of(plan, table, self._model.device, tile_queries=self._tile, capacity=capacity)
        return _CapturedStep(size, works, len(tables), self._model.device)

    def _capture_or_compute(self, compute: Callable[[], Sampled]) -> tuple[Callable[[], object], Sampled]:
        try:
            return self._capture(compute)
        except Exception as error:  # a driver, a compiler or an allocator may raise anything
            self.is_usable = False
            self._steps.clear()  # frees the memory that captured steps keep
            logging.getLogger(__name__).warning(
                "decode steps are not captured, and cost the host more: %s: %s", type(error).__name__, error
            )
            return (lambda: None), compute()


class _CapturedStep:
    """A step of one size, and the memory that it reads.

    integers: tokens, positions, seeds, top_k, and the slots of each group. floats: temperature, top_p, min_p.
    """

    def __init__(self, size: int, works: dict[Kind, DevicePlan], num_groups: int, device: torch.device) -> None:
        self.works = works
        self._size = size
        self._integers = torch.zeros((4 + num_groups, size), dtype=torch.int64, device=device)
        self._floats = torch.zeros((3, size), device=device)
        self.replay: Callable[[], object]
        self.sampled: Sampled

    def fill(self, decode: Decode) -> None:
        num_rows = len(decode.positions)
        integers = np.zeros(self._integers.shape, dtype=np.int64)
        integers[4:] = -1
        integers[1, :num_rows], integers[4:, :num_rows] = decode.positions, decode.slots
        floats = np.zeros((3, self._size), dtype=np.float32)
        floats[1] = 1
        integers[2:4, :num_rows], floats[:, :num_rows] = kernel_columns(decode.samplings)
        self._integers.copy_(torch.from_numpy(integers), non_blocking=True)
        self._integers[0, :num_rows] = decode.tokens
        self._floats.copy_(torch.from_numpy(floats), non_blocking=True)

    def capture(self, model: Transformer, pages: Series[Pages], capture: Capture) -> None:
        by_kind = {
            kind: attention.AttentionLayout(paged=paged_attention.Layout(kind[0] or 0, work))
            for kind, work in self.works.items()
        }
        layouts = tuple(by_kind[kind] for kind in _kinds(model))

        def compute() -> Sampled:
            tokens, positions, seeds, top_k = self._integers[:4]
            hidden = model.forward(tokens, positions, self._integers[4:], layouts, pages)
            return sample.op(model.logits(hidden), kernel_choice((seeds, top_k), self._floats, positions + 1))

        self.replay, self.sampled = capture(compute)


def _kinds(model: Transformer) -> list[Kind]:
    """The kind of each layer. Layers of a kind share the work of attention."""
    return list(zip(model.config.windows, model.groups.group_of_layer, strict=True))


def captured(compute: Callable[[], Sampled]) -> tuple[Callable[[], object], Sampled]:
    """Captures a CUDA graph. It computes twice before, so that kernels are compiled and libraries have their memory."""
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
            sampled = compute()
    finally:
        torch.cuda.set_stream(current)  # torch does not restore it where a capture breaks off
    return graph.replay, sampled
