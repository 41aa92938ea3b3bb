"""Plans of shared attention, counted on the host. No kernel runs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tree import PAGE, Integers, Tree, decode

from ponder_kernels.attention.attention_plan import plan


def unique_tokens(contexts: Integers, table: Integers, leaf: int) -> tuple[int, int]:
    """Number of tokens in distinct whole leaves, and number of tokens in all tails."""
    leaves, tails = set(), 0
    for context, pages in zip(contexts.tolist(), table, strict=True):
        for begin in range(0, context - leaf + 1, leaf):
            leaves.add((begin, *pages[begin // PAGE : (begin + leaf) // PAGE].tolist()))
        tails += context % leaf
    return len(leaves) * leaf, tails


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_drawn_tree_is_read_little_more_than_once(data: st.DataObject) -> None:
    """The tree has levels of 1 to 400 tokens under one to three roots. Only whole leaves are counted."""
    tree, level = Tree(), []
    for _ in range(data.draw(st.integers(1, 3))):
        level.append(tree.add(data.draw(st.integers(64, 900))))
    for _ in range(data.draw(st.integers(1, 4))):
        width = data.draw(st.integers(1, 4))
        level = [tree.add(data.draw(st.integers(1, 400)), parent) for parent in level[:6] for _ in range(width)]
    contexts, table = tree.step(data.draw(st.permutations(level)))
    whole, tails = unique_tokens(contexts, table, 64)
    found = decode(contexts, table, ahead_tokens=data.draw(st.sampled_from([0, 64])))
    assert found.tokens_read() - tails <= 1.1 * whole


def beam_tree() -> tuple[Integers, Integers]:
    """A system prompt, problems below it, and steps below those: four levels, shuffled."""
    generator, tree = np.random.default_rng(7), Tree()
    system, leaves = tree.add(900), []
    for _ in range(6):
        level = [tree.add(int(generator.integers(100, 400)), system)]
        for _ in range(3):
            level = [tree.add(int(generator.integers(30, 101)), row) for row in level for _ in range(2)]
        leaves += level
    return tree.step(generator.permutation(leaves).tolist())


def test_a_tree_of_several_levels_is_read_little_more_than_once() -> None:
    contexts, table = beam_tree()
    for leaf, blocks in ((64, 8), (32, 16), (16, 32), (128, 4)):
        found = decode(contexts, table, leaf_tokens=leaf, leaves_per_block=blocks)
        whole, tails = unique_tokens(contexts, table, leaf)
        assert whole <= found.tokens_read() - tails <= 1.1 * whole
    assert decode(contexts, table, share=False).tokens_read() == contexts.sum()
    assert found.tokens_read() < 0.25 * contexts.sum()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_every_query_meets_every_key_of_its_own_once_and_no_other(data: st.DataObject) -> None:
    tree = Tree()
    for row in range(data.draw(st.integers(1, 7))):
        parent = data.draw(st.none() | st.integers(0, row - 1)) if row else None
        tree.add(data.draw(st.integers(1, 200)), parent)
    contexts, table = tree.step(data.draw(st.permutations(range(len(tree.sequences)))))
    queries = np.array([data.draw(st.integers(1, min(30, context))) for context in contexts.tolist()])
    window = data.draw(st.sampled_from([0, 0, 20, 100]))
    found = plan(queries, contexts, table, PAGE, tile_queries=4, window=window, leaf_tokens=32, leaves_per_block=4)
    starts, row_of = np.cumsum(queries) - queries, np.repeat(np.arange(len(queries)), queries)
    assert sorted(found.tokens.tolist()) == list(range(queries.sum()))
    met: dict[int, list[int]] = {token: [] for token in range(queries.sum())}
    for items in (found.narrow, found.wide):
        for row, first, end, begin, count, slot in items.tolist():
            assert slot < 0 or first // 4 == (end - 1) // 4
            for token in found.tokens[begin : begin + count].tolist():
                met[token] += [
                    table[row, key // PAGE] * PAGE + key % PAGE
                    for key in range(first * 32, end * 32)
                    if key // PAGE < table.shape[1] and key <= position(token, starts, row_of, contexts, queries)
                ]
    for token, slots in met.items():
        place, row = position(token, starts, row_of, contexts, queries), row_of[token]
        own = [table[row, key // PAGE] * PAGE + key % PAGE for key in range(place + 1)]
        seen = own[max(0, place + 1 - window) :] if window else own
        assert len(set(slots)) == len(slots)
        assert set(seen) <= set(slots) <= set(own)


def position(token: int, starts: Integers, row_of: Integers, contexts: Integers, queries: Integers) -> int:
    row = row_of[token]
    return int(contexts[row] - queries[row] + token - starts[row])


def test_entries_lead_to_every_partial_once_and_in_order() -> None:
    found = decode(*beam_tree())
    slots = found.entries >> 1
    assert sorted(slots.tolist()) == list(range(found.num_slots))
    items = np.concatenate([found.narrow, found.wide])
    items = items[items[:, 5] >= 0]
    for query, begin, end in zip(found.fold_queries, found.fold_starts, found.fold_starts[1:], strict=False):
        leaves = []
        for slot in slots[begin:end]:
            item = items[(items[:, 5] <= slot) & (slot < items[:, 5] + items[:, 4])][0]
            assert item[3] + slot - item[5] == query
            leaves += range(item[1], item[2])
        assert leaves == list(range(len(leaves)))
