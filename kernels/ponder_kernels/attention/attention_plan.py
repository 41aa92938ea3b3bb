"""The plan of a step's attention. It reads a page that several sequences name once for all of them.

Every sequence is cut at absolute multiples of a *leaf* (64 tokens), and leaves are grouped into *blocks* (512 tokens).
A query's result is folded from its leaves in a fixed order: leaf by leaf within a block, then block by block. The order
does not depend on how the work was divided. A *work item* is one run of leaves within a block. It is read through one
row of the page table, on behalf of all queries whose sequences have the same pages there, and it leaves one partial
result for every query and head. A block in which no sequence diverges costs one partial for its 512 tokens. Where
siblings diverge inside a block, they share up to the last whole leaf before that point, and only this block costs one
partial a leaf.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ponder_kernels.attention.work_items import SortedRows, common_pages, split_items, work_items

__all__ = ["LEAF_TOKENS", "LEAVES_PER_BLOCK", "AttentionPlan", "plan"]

LEAF_TOKENS = 64
LEAVES_PER_BLOCK = 8
DIRECT_QUERIES = 16  # beyond this, queries fold in registers: their partials would be as large as the keys

Integers = npt.NDArray[np.int32]
Long = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Work items and the order in which their partial results are folded.

    narrow, wide: items with one query and with several, `[count, 6]`: row of the page table, first leaf, end leaf,
    first query, number of queries, slot. Query i of an item leaves its partial at slot + i. Slot -1 marks an item that
    has all leaves of its queries, which belong to one sequence; it leaves their final results. An item may end beyond
    the last key, so that the plan holds while sequences grow.
    tokens, positions: `[num_tokens]`, the row and the position of each query, in the order in which items count them.
    fold_queries: `[num_folded]`, the queries whose partials are folded. Those of query i are the entries from
    fold_starts[i] to fold_starts[i + 1]. An entry is 2 * slot, plus 1 if it begins a block.
    """

    narrow: Integers
    wide: Integers
    tokens: Integers
    positions: Integers
    fold_queries: Integers
    fold_starts: Integers
    entries: Integers
    leaf_tokens: int
    leaves_per_block: int
    num_slots: int

    def tokens_read(self, *, tiles: bool = False) -> int:
        """Number of tokens whose keys and values this step reads for one kv head.

        Items that differ only in their queries are neighbours in the launch, so the second one finds the keys in the L2
        cache and is not counted. With `tiles` it is.
        """
        found = np.concatenate([self.narrow, self.wide])
        last = np.array([self.positions[f : f + n].max() for f, n in found[:, 3:5]], dtype=np.int64)
        ends = np.minimum(found[:, 2].astype(np.int64) * self.leaf_tokens, last + 1)
        read = np.maximum(ends - found[:, 1].astype(np.int64) * self.leaf_tokens, 0)
        if tiles:
            return int(read.sum())
        most: dict[tuple[int, int], int] = {}
        for (row, leaf), count in zip(found[:, :2].tolist(), read.tolist(), strict=True):
            most[row, leaf] = max(most.get((row, leaf), 0), count)
        return sum(most.values())


def plan(
    queries: Long,
    contexts: Long,
    table: npt.NDArray[np.int32],
    page_size: int,
    *,
    tile_queries: int = 16,
    window: int = 0,
    share: bool = True,
    ahead_tokens: int = 0,
    leaf_tokens: int = LEAF_TOKENS,
    leaves_per_block: int = LEAVES_PER_BLOCK,
    direct_queries: int = DIRECT_QUERIES,
) -> AttentionPlan:
    """Plans one step.

    queries, contexts: `[num_sequences]` lengths; every sequence has at least one query.
    table: `[num_sequences, max_pages]`. tile_queries: the most queries of one item. window: how many tokens a query
    sees, itself included; 0 means all. ahead_tokens: how much sequences may grow before the plan no longer holds.
    """
    assert leaf_tokens % page_size == 0, f"a leaf of {leaf_tokens} tokens is not a multiple of a page of {page_size}"
    order, common = _sorted_by_pages(table, share=share)
    step_starts = (np.cumsum(queries) - queries)[order]
    queries, contexts = queries[order], contexts[order]
    starts = np.concatenate([[0], np.cumsum(queries)])
    offset = np.arange(starts[-1]) - np.repeat(starts[:-1], queries)
    positions = np.repeat(contexts - queries, queries) + offset
    rows = _rows(
        queries, contexts, common * page_size // leaf_tokens, starts, window=window, ahead_tokens=ahead_tokens,
        leaf_tokens=leaf_tokens, leaves_per_block=leaves_per_block, direct_queries=direct_queries,
    )  # fmt: skip
    items = split_items(work_items(rows, leaves_per_block), tile_queries)
    items[5] = np.cumsum(items[4]) - items[4]
    fold_queries, fold_starts, entries = _entries(items, leaves_per_block)
    num_slots = int(items[4].sum())
    if not rows.folded.all():
        direct = _direct(rows, positions, tile_queries=tile_queries, window=window, leaf_tokens=leaf_tokens)
        direct[2] += -(-ahead_tokens // leaf_tokens)
        items = np.concatenate([direct, items], axis=1)
    items[0] = order[items[0]]
    alone = items[4] == 1
    return AttentionPlan(
        narrow=_int32(items.take(np.flatnonzero(alone), axis=1).T),
        wide=_int32(items.take(np.flatnonzero(~alone), axis=1).T),
        tokens=_int32(np.repeat(step_starts, queries) + offset),
        positions=_int32(positions),
        fold_queries=_int32(fold_queries),
        fold_starts=_int32(fold_starts),
        entries=_int32(entries),
        leaf_tokens=leaf_tokens,
        leaves_per_block=leaves_per_block,
        num_slots=num_slots,
    )


def _sorted_by_pages(table: Integers, *, share: bool) -> tuple[Long, Long]:
    """The order of the rows, and how many pages each of them has in common with the one before it."""
    if share:
        return common_pages(np.ascontiguousarray(table))
    return np.arange(len(table)), np.zeros(len(table), dtype=np.int64)


def _rows(
    queries: Long,
    contexts: Long,
    common: Long,
    starts: Long,
    *,
    window: int,
    ahead_tokens: int,
    leaf_tokens: int,
    leaves_per_block: int,
    direct_queries: int,
) -> SortedRows:
    """The leaves of each row. common: `[num_rows]`, leaves in common with the row before. The rest is as in `plan`."""
    first = contexts - queries
    oldest = np.maximum(first - window + 1, 0) if window else np.zeros_like(first)
    short = queries <= direct_queries
    whole = np.where(short, (first + 1) // leaf_tokens, 0)  # leaves that all queries of a row see in full
    shared = np.minimum(common, whole)
    shared[1:] = np.minimum(shared[1:], whole[:-1])
    shares = (shared > 0) | (np.append(shared[1:], 0) > 0)
    block_tokens = leaf_tokens * leaves_per_block
    folded = short & (shares | ((contexts - 1) // block_tokens > oldest // block_tokens))
    end = (contexts + ahead_tokens - 1) // leaf_tokens + 1
    return SortedRows(shared, oldest // leaf_tokens, end, starts, folded)


def _int32(values: Long) -> Integers:
    return np.ascontiguousarray(values, dtype=np.int32)


def _direct(rows: SortedRows, positions: Long, *, tile_queries: int, window: int, leaf_tokens: int) -> Long:
    """Items `[6, count]` that hold all leaves of their queries, for the rows that are not folded, longest first."""
    row = np.flatnonzero(~rows.folded)
    zero = np.zeros_like(row)
    counts = rows.starts[row + 1] - rows.starts[row]
    out = split_items(np.stack([row, zero, zero, rows.starts[row], counts, zero - 1]), tile_queries)
    out[2] = positions[out[3] + out[4] - 1] // leaf_tokens + 1
    if window:
        out[1] = np.maximum(positions[out[3]] - window + 1, 0) // leaf_tokens
    return out[:, ::-1]


def _entries(tiles: Long, leaves_per_block: int) -> tuple[Long, Long, Long]:
    """The folding order of items that are sorted by leaf.

    Returns the queries that have partials, the start of each query's entries, and the entries in folding order.
    """
    counts = tiles[4]
    query = np.arange(counts.sum()) - np.repeat(tiles[5] - tiles[3], counts)
    slot = np.argsort(query.astype(np.uint16) if query.max(initial=0) < 1 << 16 else query, kind="stable")
    query, block = query[slot], np.repeat(tiles[1] // leaves_per_block, counts)[slot]
    new_query = np.ones(len(query), dtype=np.bool_)
    new_query[1:] = query[1:] != query[:-1]
    new_block = new_query.copy()
    new_block[1:] |= block[1:] != block[:-1]
    begins = np.flatnonzero(new_query)
    return query[begins], np.append(begins, len(query)), slot * 2 + new_block
