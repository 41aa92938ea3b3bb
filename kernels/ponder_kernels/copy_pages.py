# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Copies of whole pages: forks within a pool, and moves to pinned host memory and back.

The kernel is bound by memory within a GPU, and by the bus to the host.
"""

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["op", "op_reference", "op_triton"]


BLOCK = 4096


def op(source: torch.Tensor, target: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    """Copies the pages `sources` of one pool to the pages `targets` of another, in all layers.

    source, target: contiguous `[num_layers, num_pages, ...]` of one dtype and page shape. They may be the same tensor,
    and one of them may be in pinned host memory. sources, targets: `[count]` int64 on the device that copies. No page
    is a target twice, or both a source and a target.
    """
    run = op_triton if sources.is_cuda and triton is not None else op_reference
    run(source, target, sources, targets)


def op_reference(source: torch.Tensor, target: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    target[:, targets.to(target.device)] = source[:, sources.to(source.device)].to(target.device)


def op_triton(source: torch.Tensor, target: torch.Tensor, sources: torch.Tensor, targets: torch.Tensor) -> None:
    size = source[0, 0].numel() * source.element_size()
    if len(sources):
        kernel[len(sources), len(source), triton.cdiv(size, 4 * BLOCK)](
            source.view(torch.int32), target.view(torch.int32), sources, targets,
            source.shape[1], target.shape[1], size // 4, BLOCK=BLOCK,
        )  # fmt: skip


if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        source, target, sources, targets, source_pages, target_pages, size, BLOCK: tl.constexpr
    ):
        layer = tl.program_id(1).to(tl.int64)
        place = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
        begin = (layer * source_pages + tl.load(sources + tl.program_id(0))) * size
        end = (layer * target_pages + tl.load(targets + tl.program_id(0))) * size
        tl.store(target + end + place, tl.load(source + begin + place, mask=place < size), mask=place < size)
