# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""How likely each of two or three tokens is at marked positions, among these tokens alone.

A step's score of a reward model. Bound by memory: the marked rows of hidden states, and as many rows of the unembedding
as there are labels; the row of the vocabulary is never made.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


BLOCK = 1024


def op(hidden: torch.Tensor, unembedding: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """hidden: `[num_tokens, hidden]`; unembedding: `[vocabulary, hidden]`; rows: `[num_marked]` int64; labels:
    `[num_labels]` int64, at most four -> float32 `[num_marked, num_labels]`, each row's sum is 1
    """
    run = op_triton if hidden.is_cuda and triton is not None else op_reference
    return run(hidden, unembedding, rows, labels)


def op_reference(
    hidden: torch.Tensor, unembedding: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    return (hidden[rows].float() @ unembedding[labels].float().T).softmax(-1)


def op_triton(
    hidden: torch.Tensor, unembedding: torch.Tensor, rows: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    out = torch.empty((len(rows), len(labels)), dtype=torch.float32, device=hidden.device)
    if len(rows):
        kernel[(len(rows),)](
            hidden, unembedding, rows, labels, out, hidden.stride(0), unembedding.stride(0), hidden.shape[1],
            len(labels), LABELS=triton.next_power_of_2(len(labels)), BLOCK=BLOCK,
        )  # fmt: skip
    return out


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        hidden, unembedding, rows, labels, out, hidden_stride, unembedding_stride, width, num_labels,
        LABELS: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        marked = tl.program_id(0)
        label = tl.arange(0, LABELS)
        known = label < num_labels
        state = hidden + tl.load(rows + marked) * hidden_stride
        token = unembedding + tl.load(labels + label, mask=known, other=0)[:, None] * unembedding_stride
        total = tl.zeros([LABELS, BLOCK], tl.float32)
        for first in range(0, width, BLOCK):
            column = first + tl.arange(0, BLOCK)
            inside = column < width
            x = tl.load(state + column, mask=inside, other=0.0).to(tl.float32)
            w = tl.load(token + column, mask=known[:, None] & inside, other=0.0).to(tl.float32)
            total += x * w
        logit = tl.where(known, tl.sum(total, 1), float("-inf"))
        share = tl.exp(logit - tl.max(logit, 0))
        tl.store(out + marked * num_labels + label, share / tl.sum(share, 0), mask=known)
