# ruff: noqa: PLR0917
"""Which keys a step's attention reads for whom: pages that several sequences name are read once for all of them.

Every sequence is cut at absolute multiples of a *leaf* (64 tokens), and leaves are gathered into *blocks* (512). A
query's result is folded from its leaves in one fixed order: within a block leaf after leaf, then block after block. So
it has the same bits however the work was dealt out. A *work item* is one run of leaves within a block, read through one
row of the page table on behalf of all queries whose sequences have the same pages there; it leaves one partial result
a query and head. Where nothing diverges in a block, that is one partial for 512 tokens; where siblings part inside it,
they share to the last whole leaf before, and only that block pays a partial a leaf. All of it is numpy on the host.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LEAF_TOKENS", "LEAVES_PER_BLOCK", "Plan", "plan"]

LEAF_TOKENS = 64
LEAVES_PER_BLOCK = 8
DIRECT_QUERIES = 16  # above, a sequence's queries fold in registers: their partials would weigh as much as the keys

Integers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """Work items are `[count, 6]`: row of the page table, first leaf, end leaf, first query, number of queries, slot.

    narrow, wide: of one query and of several; each query leaves its partial at slot + its number. The direct ones: all
    leaves of some queries of one sequence, folded at once, no slot. tokens: `[num_tokens]`, the step's row of each
    query in the order in which items count them; positions: likewise. fold_queries: `[num_folded]` queries whose
    partials are to be folded, from entries[fold_starts[i]] to entries[fold_starts[i + 1]]; an entry is 2 * slot +
    (begins a block).
    """

    narrow: Integers
    wide: Integers
    narrow_direct: Integers
    wide_direct: Integers
    tokens: Integers
    positions: Integers
    fold_queries: Integers
    fold_starts: Integers
    entries: Integers
    leaf_tokens: int
    leaves_per_block: int
    num_slots: int

    def tokens_read(self, *, tiles: bool = False) -> int:
        """Tokens whose keys and values this step reads, of one kv head.

        Items that differ only in their queries are neighbours in the launch, so the second finds the keys in the L2
        cache; `tiles` counts them all the same.
        """
        items = np.concatenate([self.narrow, self.wide, self.narrow_direct, self.wide_direct])
        last = np.array([self.positions[f : f + n].max() for f, n in items[:, 3:5]], dtype=np.int64)
        ends = np.minimum(items[:, 2].astype(np.int64) * self.leaf_tokens, last + 1)
        read = ends - items[:, 1].astype(np.int64) * self.leaf_tokens
        if tiles:
            return int(read.sum())
        most: dict[tuple[int, int], int] = {}
        for (row, leaf), count in zip(items[:, :2].tolist(), read.tolist(), strict=True):
            most[row, leaf] = max(most.get((row, leaf), 0), count)
        return sum(most.values())


def plan(
    queries: npt.NDArray[np.int64],
    contexts: npt.NDArray[np.int64],
    table: npt.NDArray[np.int64],
    page_size: int,
    *,
    tile_queries: int = 16,
    window: int = 0,
    share: bool = True,
    narrow: bool = True,
    leaf_tokens: int = LEAF_TOKENS,
    leaves_per_block: int = LEAVES_PER_BLOCK,
    direct_queries: int = DIRECT_QUERIES,
) -> Plan:
    """queries, contexts: `[num_sequences]`; table: `[num_sequences, max_pages]`; every sequence has a query or more.

    tile_queries: queries an item at most; narrow: items of one query are kept apart; window: tokens that a query sees,
    itself included, 0 for all.
    """
    assert leaf_tokens % page_size == 0, f"a leaf of {leaf_tokens} tokens is no multiple of a page of {page_size}"
    num_leaves = -(-int(contexts.max()) // leaf_tokens)
    num_leaves = -(-num_leaves // leaves_per_block) * leaves_per_block
    by_leaf = _by_leaf(table, contexts, num_leaves, page_size, leaf_tokens)
    order = _order(by_leaf) if share else np.arange(len(contexts))
    step_starts = (np.cumsum(queries) - queries)[order]
    queries, contexts = queries[order], contexts[order]
    starts = np.concatenate([[0], np.cumsum(queries)])
    first = contexts - queries
    offset = np.arange(starts[-1]) - np.repeat(starts[:-1], queries)
    tokens = np.repeat(step_starts, queries) + offset
    positions = np.repeat(first, queries) + offset

    leaf = np.arange(num_leaves)
    seen = leaf * leaf_tokens < contexts[:, None]
    if window:
        seen &= (leaf + 1) * leaf_tokens > (first - window + 1)[:, None]
    boundary = _boundaries(by_leaf[order], seen, contexts, queries, leaf_tokens, share, direct_queries)
    like_last = ~np.all(boundary, axis=1)
    shares = like_last | np.append(like_last[1:], False)
    block_tokens = leaf_tokens * leaves_per_block
    oldest = np.maximum(first - window + 1, 0) if window else 0
    several = shares | ((contexts - 1) // block_tokens > oldest // block_tokens)
    folded = (queries <= direct_queries) & several
    items = _items(boundary, seen & folded[:, None], starts, leaves_per_block)
    items[:, 0] = order[items[:, 0]]
    tiles = _split(items, tile_queries)
    tiles[:, 5] = np.cumsum(tiles[:, 4]) - tiles[:, 4]
    alone = (tiles[:, 4] == 1) & narrow
    direct = _direct(~folded, order, starts, positions, tile_queries, window, leaf_tokens)
    single = (direct[:, 4] == 1) & narrow
    fold_queries, fold_starts, entries = _entries(tiles, leaves_per_block)
    return Plan(
        narrow=_int32(tiles[alone]),
        wide=_int32(tiles[~alone]),
        narrow_direct=_int32(direct[single]),
        wide_direct=_int32(direct[~single]),
        tokens=_int32(tokens),
        positions=_int32(positions),
        fold_queries=_int32(fold_queries),
        fold_starts=_int32(fold_starts),
        entries=_int32(entries),
        leaf_tokens=leaf_tokens,
        leaves_per_block=leaves_per_block,
        num_slots=int(tiles[:, 4].sum()),
    )


def _int32(values: npt.NDArray[np.int64]) -> Integers:
    return np.ascontiguousarray(values, dtype=np.int32)


def _by_leaf(
    table: npt.NDArray[np.int64], contexts: npt.NDArray[np.int64], num_leaves: int, page_size: int, leaf_tokens: int
) -> Integers:
    """`[num_sequences, num_leaves, pages a leaf]`; what is not in use differs from row to row only by being -1."""
    pages = num_leaves * leaf_tokens // page_size
    out = np.full((len(table), pages), -1, dtype=np.int32)
    width = min(pages, table.shape[1])
    used = np.arange(width) * page_size < contexts[:, None]
    out[:, :width] = np.where(used, table[:, :width], -1)
    return out.reshape(len(table), num_leaves, -1)


def _order(by_leaf: Integers) -> npt.NDArray[np.int64]:
    """Rows such that those with a common beginning stand next to each other."""
    rows = by_leaf.reshape(len(by_leaf), -1)
    return np.argsort(np.ascontiguousarray(rows).view(f"V{rows.shape[1] * 4}")[:, 0], kind="stable")


def _boundaries(
    pages: Integers,
    seen: Flags,
    contexts: npt.NDArray[np.int64],
    queries: npt.NDArray[np.int64],
    leaf_tokens: int,
    share: bool,
    direct_queries: int,
) -> Flags:
    """`[num_sequences, num_leaves]`: this sequence does not share this leaf with the one before it.

    Shared is a leaf whose pages are the same and that every query of both sees to its end.
    """
    boundary = np.ones(seen.shape, dtype=np.bool_)
    if not share or len(pages) == 1:
        return boundary
    whole = (np.arange(seen.shape[1]) + 1) * leaf_tokens <= (contexts - queries + 1)[:, None]
    whole &= seen & (queries <= direct_queries)[:, None]
    differs = pages[1:] != pages[:-1]
    boundary[1:] = ~whole[1:] | ~whole[:-1]
    for page in range(pages.shape[2]):  # numpy is slow at reducing a short last axis
        boundary[1:] |= differs[:, :, page]
    return boundary


def _items(boundary: Flags, seen: Flags, starts: npt.NDArray[np.int64], leaves_per_block: int) -> npt.NDArray[np.int64]:
    """A group is a run of rows without a boundary. In a block the leaves from the first on for which a row's group
    stays the same are one item, every later leaf is one by itself.
    """
    num_rows, num_leaves = boundary.shape
    row = np.arange(num_rows)[:, None]
    group_start = np.maximum.accumulate(np.where(boundary, row, 0), axis=0)
    after = np.concatenate([boundary[1:], np.ones((1, num_leaves), dtype=np.bool_)])
    group_end = np.minimum.accumulate(np.where(after, row + 1, num_rows)[::-1], axis=0)[::-1]
    blocks = (num_rows, num_leaves // leaves_per_block, leaves_per_block)
    by_block = group_start.reshape(blocks), group_end.reshape(blocks)
    same = (by_block[0] == by_block[0][:, :, :1]) & (by_block[1] == by_block[1][:, :, :1])
    in_head = np.logical_and.accumulate(same, axis=2).reshape(num_rows, num_leaves)
    end = np.where(in_head & seen, np.arange(num_leaves) + 1, 0).reshape(blocks).max(2)
    head_row, head_block = np.nonzero(boundary[:, ::leaves_per_block] & (end > 0))
    first_seen = np.where(seen, np.arange(num_leaves), num_leaves).reshape(blocks).min(2)
    lone_row, lone_leaf = np.nonzero(boundary & seen & ~in_head)
    heads = (head_row, first_seen[head_row, head_block], end[head_row, head_block])
    lone = (lone_row, lone_leaf, lone_leaf + 1)
    rows, firsts, ends = (np.concatenate(pair) for pair in zip(heads, lone, strict=True))
    begin = starts[rows]
    count = starts[group_end[rows, firsts]] - begin
    return np.stack([rows, firsts, ends, begin, count, np.zeros_like(rows)], axis=1)


def _split(items: npt.NDArray[np.int64], tile_queries: int) -> npt.NDArray[np.int64]:
    """Items of at most so many queries, those of one item next to each other."""
    pieces = -(-items[:, 4] // tile_queries)
    if not len(items) or int(pieces.max()) == 1:
        return items
    out = np.repeat(items, pieces, axis=0)
    number = np.arange(len(out)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    out[:, 3] += number * tile_queries
    out[:, 4] = np.minimum(out[:, 4] - number * tile_queries, tile_queries)
    return out


def _direct(
    chosen: Flags,
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    tile_queries: int,
    window: int,
    leaf_tokens: int,
) -> npt.NDArray[np.int64]:
    rows = np.flatnonzero(chosen)
    zero = np.zeros_like(rows)
    counts = starts[rows + 1] - starts[rows]
    out = _split(np.stack([order[rows], zero, zero, starts[rows], counts, zero], axis=1), tile_queries)
    out[:, 2] = positions[out[:, 3] + out[:, 4] - 1] // leaf_tokens + 1
    if window:
        out[:, 1] = np.maximum(positions[out[:, 3]] - window + 1, 0) // leaf_tokens
    return out[::-1]  # the longest of a sequence first


def _entries(
    items: npt.NDArray[np.int64], leaves_per_block: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """-> queries that have partials, where each one's entries start, the entries in the order of folding"""
    counts = items[:, 4]
    slots = np.arange(counts.sum())
    query = slots - np.repeat(items[:, 5] - items[:, 3], counts)
    leaf = np.repeat(items[:, 1], counts)
    by_query = np.lexsort((leaf, query))
    query, block = query[by_query], leaf[by_query] // leaves_per_block
    new_query = np.concatenate([[True], query[1:] != query[:-1]])[: len(query)]
    new_block = np.concatenate([[True], block[1:] != block[:-1]])[: len(query)] | new_query
    begins = np.flatnonzero(new_query)
    return query[begins], np.append(begins, len(query)), slots[by_query] * 2 + new_block
