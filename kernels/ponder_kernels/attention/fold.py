# ruff: noqa: N803, PLR0917 -- constexpr names and argument lists of kernels are Triton's way
"""Merging of attention's partial results by their log-sum-exp, in base 2 and in a fixed order.

See https://arxiv.org/abs/2205.14135 and https://flashinfer.ai/2024/02/02/cascade-inference.html. The kernel is bound
by memory: it reads every partial result once.
"""

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__: list[str] = []

if triton is not None:
    __all__ = ["kernel", "merge"]

    @triton.jit
    def merge(a, a_mass, b, b_mass):  # type: ignore[no-untyped-def]
        """Merges two normalised results with their log2-sum-exp2. An empty one leaves the bits of the other."""
        peak = tl.maximum(a_mass, b_mass)
        base = tl.where(peak == float("-inf"), 0.0, peak)
        a_share = tl.exp2(a_mass - base)
        b_share = tl.exp2(b_mass - base)
        total = a_share + b_share
        some = total > 0
        per = 1.0 / tl.where(some, total, 1.0)
        mass = tl.where(some, base + tl.log2(tl.where(some, total, 1.0)), float("-inf"))
        # An explicit fma: whether the compiler fuses a * x + b * y must not depend on the kernel.
        return tl.fma(a, tl.broadcast_to((a_share * per)[:, None], a.shape), b * (b_share * per)[:, None]), mass

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]
        partials, masses, out, fold_queries, fold_starts, entries, tokens, out_token, out_head,
        num_heads, num_groups, head_dim, BLOCK_HEADS: tl.constexpr, BLOCK_DIM: tl.constexpr,
    ):  # fmt: skip
        """Fold the partials of one query, for the heads of one kv head, in the order of its entries."""
        index = tl.program_id(0)
        begin = tl.load(fold_starts + index)
        end = tl.load(fold_starts + index + 1)
        if begin >= end:  # padding of a static buffer
            return
        group = tl.arange(0, BLOCK_HEADS)
        alive = group < num_groups
        head = tl.program_id(1) * num_groups + group
        column = tl.arange(0, BLOCK_DIM)
        mask = alive[:, None] & (column < head_dim)
        block = tl.zeros([BLOCK_HEADS, BLOCK_DIM], tl.float32)
        total = tl.zeros([BLOCK_HEADS, BLOCK_DIM], tl.float32)
        block_mass = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
        total_mass = tl.full([BLOCK_HEADS], float("-inf"), tl.float32)
        for place in range(begin, end):
            entry = tl.load(entries + place)
            begins = (entry & 1) == 1
            whole, whole_mass = merge(total, total_mass, block, block_mass)
            total = tl.where(begins, whole, total)
            total_mass = tl.where(begins, whole_mass, total_mass)
            block = tl.where(begins, 0.0, block)
            block_mass = tl.where(begins, float("-inf"), block_mass)
            at = (entry >> 1).to(tl.int64) * num_heads + head
            mixed = tl.load(partials + at[:, None] * head_dim + column, mask=mask, other=0.0)
            mass = tl.load(masses + at, mask=alive, other=float("-inf"))
            block, block_mass = merge(block, block_mass, mixed, mass)
        total, total_mass = merge(total, total_mass, block, block_mass)
        token = tl.load(tokens + tl.load(fold_queries + index)).to(tl.int64)
        tl.store(out + token * out_token + head[:, None] * out_head + column, total.to(out.dtype.element_ty), mask=mask)
