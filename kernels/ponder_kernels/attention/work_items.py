"""Work items: runs of leaves that several sequences read through one row of the page table.

They are found on the host, in numpy. Rows are sorted by their pages, so that sequences with the same beginning are
neighbours. How many leaves each row has in common with the row before it then determines everything else. A *group* is
a run of rows that have a leaf in common.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["SortedRows", "common_pages", "split_items", "work_items"]

Integers = npt.NDArray[np.int64]
FAR = np.int64(1 << 40)


@dataclass(frozen=True, slots=True)
class SortedRows:
    """Sequences sorted by their pages. Every field is `[num_rows]`, except starts, which is `[num_rows + 1]`.

    shared: how many leaves a row has in common with the row before it. begin, end: the range of leaves that its queries
    see, in whole or in part. starts: the first query of each row. folded: whether the row is read by work items.
    """

    shared: Integers
    begin: Integers
    end: Integers
    starts: Integers
    folded: npt.NDArray[np.bool_]


def common_pages(table: npt.NDArray[np.int32]) -> tuple[Integers, Integers]:
    """Sorts the rows of a contiguous `[num_rows, num_pages]` table.

    Returns the order, and for each row of that order how many pages it has in common with the row before it.
    """
    order = np.argsort(table.view(f"V{table.shape[1] * 4}")[:, 0], kind="stable")
    by_order = table[order]
    common = np.zeros(len(table), dtype=np.int64)
    differs = by_order[1:] != by_order[:-1]
    if len(differs):
        first = differs.argmax(1)
        common[1:] = np.where(differs[np.arange(len(first)), first], first, table.shape[1])
    return order, common


def work_items(rows: SortedRows, leaves_per_block: int) -> Integers:
    """Work items `[6, num_items]` as in `AttentionPlan`, ordered by first leaf, over sorted rows and without slots.

    Within a block, the leaves up to the one where a group diverges are one item. From that leaf on, every leaf of each
    remaining subgroup is an item of its own.
    """
    num_rows = len(rows.shared)
    block = np.arange(0, int(rows.end.max()), leaves_per_block)[:, None]
    heads = rows.shared <= block
    at = np.flatnonzero(heads)
    block_index, row = np.divmod(at, num_rows)
    first = block_index * leaves_per_block
    group_end = np.empty_like(row)
    group_end[:-1], group_end[-1] = row[1:], 0
    group_end[group_end <= row] = num_rows
    divergence = np.minimum.reduceat(np.where(heads, FAR, rows.shared).ravel(), at)
    begin = first
    if rows.begin.any():
        begin = np.maximum(np.minimum.reduceat(np.broadcast_to(rows.begin, heads.shape).ravel(), at), first)
    end = np.minimum(np.minimum(divergence, first + leaves_per_block), rows.end[row])
    parts = np.flatnonzero(divergence < first + leaves_per_block)
    kept = np.flatnonzero((end > begin) & rows.folded[row])
    found = np.stack([row[kept], begin[kept], end[kept], group_end[kept]])
    if len(parts):
        below = _diverged(rows, np.stack([row, group_end, divergence, begin]).take(parts, axis=1), leaves_per_block)
        found = _in_order(np.concatenate([found, below], axis=1))
    row, begin, end, group_end = found
    out = np.zeros((6, len(row)), dtype=np.int64)
    out[0], out[1], out[2], out[3] = row, begin, end, rows.starts[row]
    out[4] = rows.starts[group_end] - out[3]
    return out


def _in_order(found: Integers) -> Integers:
    """Sorts items by first leaf. The keys are 16 bits wide because numpy has a radix sort for those."""
    return found.take(np.argsort(found[1].astype(np.uint16), kind="stable"), axis=1)


def _diverged(rows: SortedRows, groups: Integers, leaves_per_block: int) -> Integers:
    """Items of one leaf each, for groups that diverge inside a block.

    groups: `[4, num_groups]`: first row, end row, leaf where the group diverges, first leaf that is seen. Returns
    `[4, count]`: row, leaf, leaf + 1, end of the rows that have this leaf.
    """
    group_start, group_end, divergence, begin = groups
    sizes = group_end - group_start
    group = np.repeat(np.arange(len(sizes)), sizes)
    row = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes - group_start, sizes)
    leaf = (divergence // leaves_per_block * leaves_per_block)[group] + np.arange(leaves_per_block)[:, None]
    head = (leaf >= divergence[group]) & (leaf >= rows.shared[row])
    offset, index = np.nonzero(head)
    next_same = np.append(offset[1:] == offset[:-1], False)
    following = np.append(index[1:], 0)
    next_same &= group[following] == group[index]
    ends = np.where(next_same, row[following], group_end[group[index]])
    leaf, row, begin = leaf[offset, index], row[index], begin[group[index]]
    kept = np.flatnonzero((leaf < rows.end[row]) & (leaf >= begin))
    return np.stack([row[kept], leaf[kept], leaf[kept] + 1, ends[kept]])


def split_items(items: Integers, tile_queries: int) -> Integers:
    """Cuts items into pieces of at most `tile_queries` queries. The pieces of one item stay neighbours."""
    if not items.size or int(items[4].max()) <= tile_queries:
        return items
    pieces = -(-items[4] // tile_queries)
    out = np.repeat(items, pieces, axis=1)
    before = (np.arange(out.shape[1]) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * tile_queries
    out[3] += before
    out[4] = np.minimum(out[4] - before, tile_queries)
    return out
