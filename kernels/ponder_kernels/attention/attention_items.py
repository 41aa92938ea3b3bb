"""Runs of leaves that several sequences read through one row of the page table, found on the host in numpy.

Rows are sorted by their pages, so that whose beginning is the same stand next to each other; how many leaves each has
in common with the one before it says everything else. A *group* is a run of rows that have a leaf in common.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Rows", "common_pages", "items", "split"]

Integers = npt.NDArray[np.int64]
FAR = np.int64(1 << 40)


@dataclass(frozen=True, slots=True)
class Rows:
    """Sequences in sorted order; each `[num_rows]`, but starts `[num_rows + 1]`, the first query of each row.

    shared: leaves in common with the row before; begin, end: leaves that its queries see some of; folded: has items
    """

    shared: Integers
    begin: Integers
    end: Integers
    starts: Integers
    folded: npt.NDArray[np.bool_]


def common_pages(table: npt.NDArray[np.int32]) -> tuple[Integers, Integers]:
    """table: `[num_rows, num_pages]` contiguous -> the sorted order, pages in common with the row before in it"""
    order = np.argsort(table.view(f"V{table.shape[1] * 4}")[:, 0], kind="stable")
    by_order = table[order]
    common = np.zeros(len(table), dtype=np.int64)
    differs = by_order[1:] != by_order[:-1]
    if len(differs):
        first = differs.argmax(1)
        common[1:] = np.where(differs[np.arange(len(first)), first], first, table.shape[1])
    return order, common


def items(rows: Rows, leaves_per_block: int) -> Integers:
    """`[6, num_items]` as a Plan has them, in the order of their first leaves; the rows are sorted ones, no slots yet.

    In a block the leaves from the first on in which a group stays together are one item; from the leaf on where it
    parts, every leaf of what is left of it is one by itself.
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
    parting = np.minimum.reduceat(np.where(heads, FAR, rows.shared).ravel(), at)
    begin = first
    if rows.begin.any():
        begin = np.maximum(np.minimum.reduceat(np.broadcast_to(rows.begin, heads.shape).ravel(), at), first)
    end = np.minimum(np.minimum(parting, first + leaves_per_block), rows.end[row])
    parts = np.flatnonzero(parting < first + leaves_per_block)
    kept = np.flatnonzero((end > begin) & rows.folded[row])
    found = np.stack([row[kept], begin[kept], end[kept], group_end[kept]])
    if len(parts):
        below = _parted(rows, np.stack([row, group_end, parting, begin]).take(parts, axis=1), leaves_per_block)
        found = _in_order(np.concatenate([found, below], axis=1))
    row, begin, end, group_end = found
    out = np.zeros((6, len(row)), dtype=np.int64)
    out[0], out[1], out[2], out[3] = row, begin, end, rows.starts[row]
    out[4] = rows.starts[group_end] - out[3]
    return out


def _in_order(found: Integers) -> Integers:
    """By first leaf; numpy sorts 16 bits by their digits, wider ones by comparing."""
    return found.take(np.argsort(found[1].astype(np.uint16), kind="stable"), axis=1)


def _parted(rows: Rows, groups: Integers, leaves_per_block: int) -> Integers:
    """groups: `[4, num_groups]` that part inside a block: first row, end, the leaf where they part, the first one seen
    -> `[4, count]` (row, leaf, leaf + 1, end of the rows that have it)
    """
    group_start, group_end, parting, begin = groups
    sizes = group_end - group_start
    group = np.repeat(np.arange(len(sizes)), sizes)
    row = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes - group_start, sizes)
    leaf = (parting // leaves_per_block * leaves_per_block)[group] + np.arange(leaves_per_block)[:, None]
    head = (leaf >= parting[group]) & (leaf >= rows.shared[row])
    offset, index = np.nonzero(head)
    next_same = np.append(offset[1:] == offset[:-1], False)
    following = np.append(index[1:], 0)
    next_same &= group[following] == group[index]
    ends = np.where(next_same, row[following], group_end[group[index]])
    leaf, row, begin = leaf[offset, index], row[index], begin[group[index]]
    kept = np.flatnonzero((leaf < rows.end[row]) & (leaf >= begin))
    return np.stack([row[kept], leaf[kept], leaf[kept] + 1, ends[kept]])


def split(items: Integers, tile_queries: int) -> Integers:
    """Items of at most so many queries, those of one item next to each other."""
    if not items.size or int(items[4].max()) <= tile_queries:
        return items
    pieces = -(-items[4] // tile_queries)
    out = np.repeat(items, pieces, axis=1)
    before = (np.arange(out.shape[1]) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * tile_queries
    out[3] += before
    out[4] = np.minimum(out[4] - before, tile_queries)
    return out
