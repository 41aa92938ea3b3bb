"""Which keys a step's attention reads for whom: pages that several sequences name are read once for all of them.

Every sequence is cut at absolute multiples of a *leaf* (64 tokens), and leaves are gathered into *blocks* (512). A
query's result is folded from its leaves in one fixed order: within a block leaf after leaf, then block after block. So
it has the same bits however the work was dealt out. A *work item* is one run of leaves within a block, read through one
row of the page table on behalf of all queries whose sequences have the same pages there; it leaves one partial result
a query and head. Where nothing diverges in a block, that is one partial for 512 tokens; where siblings part inside it,
they share to the last whole leaf before, and only that block pays a partial a leaf.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ponder_kernels.attention.attention_items import Rows, common_pages, items, split

__all__ = ["LEAF_TOKENS", "LEAVES_PER_BLOCK", "Plan", "plan"]

LEAF_TOKENS = 64
LEAVES_PER_BLOCK = 8
DIRECT_QUERIES = 16  # above, a sequence's queries fold in registers: their partials would weigh as much as the keys

Integers = npt.NDArray[np.int32]
Long = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Plan:
    """Work items are `[count, 6]`: row of the page table, first leaf, end leaf, first query, number of queries, slot.

    narrow, wide: of one query and of several. Each query leaves its partial at slot + its number; slot -1: the item has
    all leaves of its queries, which are of one sequence, and leaves their results. An item may end behind the last key,
    so that the plan holds while sequences grow. tokens: `[num_tokens]`, the step's row of each query in the order in
    which items count them; positions: likewise. fold_queries: `[num_folded]` queries whose partials are to be folded,
    from entries[fold_starts[i]] to entries[fold_starts[i + 1]]; an entry is 2 * slot + (begins a block).
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
        """Tokens whose keys and values this step reads, of one kv head.

        Items that differ only in their queries are neighbours in the launch, so the second finds the keys in the L2
        cache; `tiles` counts them all the same.
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
    narrow: bool = True,
    ahead_tokens: int = 0,
    leaf_tokens: int = LEAF_TOKENS,
    leaves_per_block: int = LEAVES_PER_BLOCK,
    direct_queries: int = DIRECT_QUERIES,
) -> Plan:
    """queries, contexts: `[num_sequences]`; table: `[num_sequences, max_pages]`; every sequence has a query or more.

    tile_queries: queries an item at most; narrow: items of one query are kept apart; window: tokens that a query sees,
    itself included, 0 for all; ahead_tokens: what sequences may grow before the plan no longer holds.
    """
    assert leaf_tokens % page_size == 0, f"a leaf of {leaf_tokens} tokens is no multiple of a page of {page_size}"
    num_rows = len(contexts)
    order, common = common_pages(np.ascontiguousarray(table)) if share else (np.arange(num_rows), np.zeros(num_rows))
    step_starts = (np.cumsum(queries) - queries)[order]
    queries, contexts = queries[order], contexts[order]
    first = contexts - queries
    starts = np.concatenate([[0], np.cumsum(queries)])
    offset = np.arange(starts[-1]) - np.repeat(starts[:-1], queries)
    positions = np.repeat(first, queries) + offset
    oldest = np.maximum(first - window + 1, 0) if window else np.zeros_like(first)

    short = queries <= direct_queries
    whole = np.where(short, (first + 1) // leaf_tokens, 0)
    shared = np.minimum(common.astype(np.int64) * page_size // leaf_tokens, whole)
    shared[1:] = np.minimum(shared[1:], whole[:-1])
    block_tokens = leaf_tokens * leaves_per_block
    shares = (shared > 0) | (np.append(shared[1:], 0) > 0)
    folded = short & (shares | ((contexts - 1) // block_tokens > oldest // block_tokens))
    end = (contexts + ahead_tokens - 1) // leaf_tokens + 1
    rows = Rows(shared, oldest // leaf_tokens, end, starts, folded)
    tiles = split(items(rows, leaves_per_block), tile_queries)
    tiles[5] = np.cumsum(tiles[4]) - tiles[4]
    fold_queries, fold_starts, entries = _entries(tiles, leaves_per_block)
    num_slots = int(tiles[4].sum())
    if not folded.all():
        direct = _direct(rows, positions, tile_queries=tile_queries, window=window, leaf_tokens=leaf_tokens)
        direct[2] += -(-ahead_tokens // leaf_tokens)
        tiles = np.concatenate([direct, tiles], axis=1)
    tiles[0] = order[tiles[0]]
    alone = (tiles[4] == 1) & narrow
    return Plan(
        narrow=_int32(tiles.take(np.flatnonzero(alone), axis=1).T),
        wide=_int32(tiles.take(np.flatnonzero(~alone), axis=1).T),
        tokens=_int32(np.repeat(step_starts, queries) + offset),
        positions=_int32(positions),
        fold_queries=_int32(fold_queries),
        fold_starts=_int32(fold_starts),
        entries=_int32(entries),
        leaf_tokens=leaf_tokens,
        leaves_per_block=leaves_per_block,
        num_slots=num_slots,
    )


def _int32(values: Long) -> Integers:
    return np.ascontiguousarray(values, dtype=np.int32)


def _direct(rows: Rows, positions: Long, *, tile_queries: int, window: int, leaf_tokens: int) -> Long:
    """`[6, count]` items with all leaves of their queries, of the rows not folded; a sequence's longest first."""
    row = np.flatnonzero(~rows.folded)
    zero = np.zeros_like(row)
    counts = rows.starts[row + 1] - rows.starts[row]
    out = split(np.stack([row, zero, zero, rows.starts[row], counts, zero - 1]), tile_queries)
    out[2] = positions[out[3] + out[4] - 1] // leaf_tokens + 1
    if window:
        out[1] = np.maximum(positions[out[3]] - window + 1, 0) // leaf_tokens
    return out[:, ::-1]


def _entries(tiles: Long, leaves_per_block: int) -> tuple[Long, Long, Long]:
    """tiles: in the order of their leaves -> queries that have partials, where each one's entries start, the entries in
    the order of folding
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
