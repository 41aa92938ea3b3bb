"""Inputs that hypothesis draws, and the tolerances of comparisons."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from hypothesis import strategies as st

from ponder_kernels import expert_product, sample, write_qkv
from ponder_kernels.attention import paged_attention

DTYPES = st.sampled_from([torch.float32, torch.float16])
HEAD_DIMS = st.sampled_from([16, 24, 64, 80, 96, 128, 256])


@dataclass(frozen=True)
class Case:
    """One step of attention. unused: `[count]` pages that no table names, except page 0, which is padding."""

    q: torch.Tensor
    pages: torch.Tensor
    scale: float
    contexts: list[int]
    queries: list[int]
    table: torch.Tensor
    unused: torch.Tensor
    window: int
    soft_cap: float
    scales: torch.Tensor | None

    def reference(self) -> torch.Tensor:
        where = paged_attention.layout(*self.lengths, pages=self.pages, window=self.window)
        return paged_attention.op_reference(
            self.q, self.pages, where, self.scale, soft_cap=self.soft_cap, scales=self.scales
        )

    def kernel(self, **options: Any) -> torch.Tensor:
        """The kernel's result. Run it within `poisoned()`, so that an element that is not written is NaN."""
        num_heads = self.q.shape[1]
        where = paged_attention.layout(
            *self.lengths, pages=self.pages, num_heads=num_heads, window=self.window, for_kernel=True, **options
        )
        return self.attend(where)

    def attend(self, where: paged_attention.Layout) -> torch.Tensor:
        return paged_attention.op_triton(
            self.q, self.pages, where, self.scale, soft_cap=self.soft_cap, scales=self.scales
        )

    @property
    def lengths(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.tensor(self.queries), torch.tensor(self.contexts), self.table


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert equality within 2e-5 in float32 and 4e-3 in float16, absolute and relative."""
    tolerance = 2e-5 if expected.dtype == torch.float32 else 4e-3
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@contextmanager
def poisoned() -> Iterator[None]:
    """Make torch.empty return NaN or the lowest integer, so that an unwritten element is noticed."""
    makers = {name: getattr(torch, name) for name in ("empty", "empty_like")}

    def poison(name: str) -> Any:
        def make(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor: torch.Tensor = makers[name](*args, **kwargs)
            return tensor.fill_(torch.nan if tensor.is_floating_point() else torch.iinfo(tensor.dtype).min)

        return make

    with patch.object(torch, "empty", poison("empty")), patch.object(torch, "empty_like", poison("empty_like")):
        yield


@st.composite
def attention_cases(
    draw: st.DrawFn,
    *,
    longest: int = 150,
    head_dims: tuple[int, ...] = (16, 64, 80, 96),
    family: bool = False,
    most: int = 4,
) -> Case:
    """Ragged sequences, some of which begin with pages of another one."""
    dtype = draw(DTYPES)
    num_kv_heads, num_groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 3, 7]))
    head_dim, page_size = draw(st.sampled_from(head_dims)), draw(st.sampled_from([16, 32]))
    borders = [edge + by for edge in (16, 32, 64, 128) for by in (-1, 0, 1)]
    length = st.one_of(st.sampled_from(borders), st.integers(1, longest))
    contexts = draw(st.lists(length, min_size=2 if family else 1, max_size=most))
    one = st.just(1)
    queries = [draw(one if family else st.one_of(one, st.integers(1, min(context, 40)))) for context in contexts]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    width = max(-(-context // page_size) for context in contexts)
    num_pages = width * len(contexts) + 3
    order = torch.randperm(num_pages - 1, generator=generator) + 1
    table = torch.zeros(len(contexts), width, dtype=torch.int64)
    for row, context in enumerate(contexts):
        count = -(-context // page_size)
        table[row, :count] = order[row * width : row * width + count]
        if row and (family or draw(st.booleans())):
            other = draw(st.integers(0, row - 1))
            whole = min((context - queries[row]) // page_size, (contexts[other] - queries[other]) // page_size)
            shared = draw(st.integers(0, whole))
            table[row, :shared] = table[other, :shared]
    window = draw(st.sampled_from([0, 0, 1, 30, 64]))
    if window:  # pages that no query sees any more have left the table
        for row, (context, length_) in enumerate(zip(contexts, queries, strict=True)):
            table[row, : max(0, context - length_ - window + 1) // page_size] = -1
    shape = (num_pages, 2, num_kv_heads, page_size, head_dim)
    pages, scales = torch.randn(shape, generator=generator).to(dtype), None
    if draw(st.booleans()) and not family:
        scales = torch.rand(shape[:-1], generator=generator) * 0.02 + 0.001
        pages = (pages.float() / scales[..., None]).clamp(-448, 448).to(torch.float8_e4m3fn)
    q = torch.randn(sum(queries), num_kv_heads * num_groups, head_dim, generator=generator).to(dtype)
    unused = torch.tensor(sorted(set(range(1, num_pages)) - set(table.flatten().tolist())), dtype=torch.int64)
    cap = draw(st.sampled_from([0.0, 5.0]))
    return Case(q, pages, head_dim**-0.5, contexts, queries, table, unused, window, cap, scales)


@dataclass(frozen=True)
class WriteCase:
    kv: torch.Tensor
    pages: torch.Tensor
    scales: torch.Tensor | None
    slots: torch.Tensor

    def run(self, op: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pages and scales after the operation."""
        pages, scales = self.pages.clone(), None if self.scales is None else self.scales.clone()
        op(self.kv, pages, self.slots, scales)
        return pages, scales


@st.composite
def write_cases(draw: st.DrawFn) -> WriteCase:
    dtype, num_kv_heads = draw(DTYPES), draw(st.integers(1, 3))
    head_dim, page_size = draw(HEAD_DIMS), draw(st.sampled_from([16, 32]))
    num_pages = draw(st.integers(1, 4))
    slots = draw(st.lists(st.integers(0, num_pages * page_size - 1), unique=True, min_size=1, max_size=20))
    slots += [-1] * draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(len(slots))
    kv = torch.randn(len(slots), 2 * num_kv_heads + 1, head_dim, generator=generator).to(dtype)
    rows = kv[:, 1:].view(len(slots), 2, num_kv_heads, head_dim)  # not contiguous, as if beside the queries
    return WriteCase(rows, *_target(draw, num_pages, num_kv_heads, page_size, head_dim, dtype), torch.tensor(slots))


def _target(
    draw: st.DrawFn, num_pages: int, num_kv_heads: int, page_size: int, head_dim: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Pages, and their scales if they are float8."""
    shape = (num_pages, 2, num_kv_heads, page_size, head_dim)
    pages = torch.full(shape, -7.0, dtype=dtype)
    if draw(st.booleans()):
        return pages.to(torch.float8_e4m3fn), torch.full(shape[:-1], -1.0)
    return pages, None


@st.composite
def norm_cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    dtype, rows, hidden = draw(DTYPES), draw(st.integers(0, 5)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(hidden)
    return torch.randn(rows, hidden, generator=generator).to(dtype), torch.randn(hidden, generator=generator).to(dtype)


@dataclass(frozen=True)
class ExpertCase:
    """Rows, or a row for each pair, and the experts that they are sent to."""

    x: torch.Tensor
    weight: torch.Tensor
    chosen: torch.Tensor

    def route(self) -> expert_product.Routing:
        return expert_product.route(self.chosen, len(self.weight))


@st.composite
def expert_cases(draw: st.DrawFn) -> ExpertCase:
    dtype, num_experts = draw(DTYPES), draw(st.sampled_from([1, 2, 3, 9]))
    num_chosen = draw(st.integers(1, min(3, num_experts)))
    num_rows = draw(st.sampled_from([1, 2, 5, 20, 90]))
    num_out, num_in = draw(st.sampled_from([1, 24, 70])), draw(st.sampled_from([8, 40, 130]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    liked = torch.rand(num_experts, generator=generator) * draw(st.sampled_from([0.0, 5.0]))  # some get no rows
    chosen = (torch.rand(num_rows, num_experts, generator=generator) + liked).topk(num_chosen).indices
    rows = num_rows * draw(st.sampled_from([1, num_chosen]))
    x = torch.randn(rows, num_in, generator=generator).to(dtype)
    weight = torch.randn(num_experts, num_out, num_in, generator=generator) / num_in**0.5
    return ExpertCase(x, weight.to(dtype), chosen)


@st.composite
def sample_cases(draw: st.DrawFn) -> tuple[torch.Tensor, sample.SamplingTensors]:
    rows, vocabulary = draw(st.integers(1, 4)), draw(st.sampled_from([1, 5, 63, 300]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = torch.randn(rows, vocabulary, generator=generator) * draw(st.sampled_from([0.5, 4.0]))
    if draw(st.booleans()):
        logits = logits.round()  # ties at the thresholds

    def each(values: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor([draw(st.sampled_from(values)) for _ in range(rows)], dtype=dtype)

    seeds = torch.tensor([draw(st.integers(-(2**63), 2**63 - 1)) for _ in range(rows)])
    counts = (torch.rand(rows, vocabulary, generator=generator) < 0.2).int() * 2
    return logits, sample.SamplingTensors(
        temperature=each([0.0, 0.6, 1.0]),
        top_k=each([0, 1, 7, 1000], torch.int32),
        top_p=each([1.0, 0.9, 0.31, 1e-6]),
        min_p=each([0.0, 0.1, 1.0]),
        seeds=seeds,
        positions=torch.tensor([draw(st.integers(0, 1 << 20)) for _ in range(rows)]),
        presence_penalty=each([0.0, 1.3]),
        frequency_penalty=each([0.0, -0.7]),
        counts=counts if draw(st.booleans()) else None,
    )


@dataclass(frozen=True)
class QkvCase:
    heads: torch.Tensor
    rotation: write_qkv.Rotation
    pages: torch.Tensor
    scales: torch.Tensor | None
    slots: torch.Tensor

    def run(self, op: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Heads, pages and scales after the operation."""
        heads, pages = self.heads.clone(), self.pages.clone()
        scales = None if self.scales is None else self.scales.clone()
        op(heads, self.rotation, pages, self.slots, scales)
        return heads, pages, scales


def rotary_table(num_positions: int, head_dim: int, theta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, each float32 `[num_positions, head_dim / 2]`."""
    frequency = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float64), frequency)
    return angle.cos().float(), angle.sin().float()


@st.composite
def qkv_cases(draw: st.DrawFn) -> QkvCase:
    dtype, num_heads, num_kv_heads = draw(DTYPES), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    head_dim, page_size = draw(HEAD_DIMS), draw(st.sampled_from([16, 32]))
    slots = draw(st.lists(st.integers(0, 2 * page_size - 1), unique=True, min_size=1, max_size=6))
    slots += [-1] * draw(st.integers(0, 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    heads = torch.randn(len(slots), num_heads + 2 * num_kv_heads, head_dim, generator=generator).to(dtype)
    norms: list[torch.Tensor | None] = [None, None]
    if draw(st.booleans()):
        norms = [torch.rand(head_dim, generator=generator).to(dtype) for _ in range(2)]
    positions = torch.randint(0, 50, (len(slots),), generator=generator)
    rotation = write_qkv.Rotation(positions, *rotary_table(50, head_dim, 10000.0), *norms)
    return QkvCase(heads, rotation, *_target(draw, 2, num_kv_heads, page_size, head_dim, dtype), torch.tensor(slots))


def close_pages(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Assert equality of pages, where the last bit of a few float8 numbers may differ."""
    if expected.dtype != torch.float8_e4m3fn:
        return close(found, expected)
    difference = (found.view(torch.uint8).int() - expected.view(torch.uint8).int()).abs()
    assert int(difference.max()) <= 1
    assert float(difference.float().mean()) < 0.01
