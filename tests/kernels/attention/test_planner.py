"""Reuse of plans, and their equivalence to the kernels when made ahead or kept in a larger buffer."""

import numpy as np
import torch
from tree import Tree, decode

from ponder_kernels.attention.attention_plan import plan
from ponder_kernels.attention.device_plan import Capacity, DevicePlan
from ponder_kernels.attention.planner import Planner

PAGE = 16


def forked() -> Tree:
    tree = Tree()
    root = tree.add(700)
    for length in (10, 70, 200):
        tree.add(length, root)
    return tree


def test_sequences_that_only_grow_are_not_planned_again() -> None:
    tree, planner = forked(), Planner(PAGE, ahead_tokens=64)
    ones = np.ones(3, dtype=np.int64)
    for _ in range(64):
        contexts, table = tree.step([1, 2, 3])
        found = planner.plan(ones, contexts, table)
        assert sorted(found.positions.tolist()) == sorted((contexts - 1).tolist())
        assert found.positions.tolist() == (contexts[found.tokens] - 1).tolist()
        for row in (1, 2, 3):
            tree.grow(row)
    assert planner.num_planned == 1
    planner.plan(ones, *tree.step([1, 2, 3]))
    planner.plan(ones, *tree.step([1, 2, 3]))
    assert planner.num_planned == 1
    tree.grow(1)
    planner.plan(ones, *tree.step([1, 2, 3]))
    assert planner.num_planned == 2


def test_sequences_that_come_go_or_fork_need_a_new_plan() -> None:
    tree, planner = forked(), Planner(PAGE)
    for expected, rows in enumerate(([1, 2], [1, 2, 3], [1, 3], [3, 1]), 1):
        planner.plan(np.ones(len(rows), dtype=np.int64), *tree.step(rows))
        assert planner.num_planned == expected
    planner.plan(np.array([2, 1]), *tree.step([3, 1]))
    assert planner.num_planned == 5


def test_a_plan_made_ahead_reads_the_same_keys() -> None:
    contexts, table = forked().step([1, 2, 3])
    assert decode(contexts, table, ahead_tokens=64).tokens_read() == decode(contexts, table).tokens_read()


def test_a_static_buffer_holds_the_plan_and_nothing_else() -> None:
    contexts, table = forked().step([1, 2, 3])
    found = plan(np.ones_like(contexts), contexts, table, PAGE)
    capacity = Capacity(rows=8, pages=80, queries=8, narrow=20, wide=9, entries=40)
    device_plan = DevicePlan.of(found, table, torch.device("cpu"), tile_queries=16, capacity=capacity)
    address = device_plan.flat.data_ptr()
    device_plan.fill(found, table)
    assert device_plan.flat.data_ptr() == address
    for name in ("narrow", "wide", "tokens", "positions", "fold_queries", "fold_starts", "entries"):
        expected = getattr(found, name)
        static = getattr(device_plan, name).numpy()
        assert np.array_equal(static[: len(expected)], expected)
        assert not static[len(expected) :].any()
    assert np.array_equal(device_plan.page_table.numpy()[: len(table), : table.shape[1]], table)
    assert not capacity.holds(Capacity.of(found, np.zeros((9, 80), dtype=np.int32)))
