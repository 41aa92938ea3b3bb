"""Our diverse verifier tree search against an independent re-statement of huggingface/search-and-learn's decisions."""

from __future__ import annotations

import math
import random

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.tree.node import NodeState

from ..conftest import attempt, run
from .restatement import Path, step


def restated(n: int, width: int, max_rounds: int, room: int, job_seed: int) -> tuple[list[Path], set[Path]]:
    """Returns candidates, best first, and the best of each round of each subtree that went on."""
    width = min(width, n)
    subtrees = [Path((), job_seed) for _ in range(n // width)]
    candidates, survivors = list[Path](), set[Path]()
    num_children: dict[tuple[int, ...], int] = {}
    for number in range(max_rounds):
        still_active = []
        for tip in subtrees:
            first = num_children.get(tip.address, 0)
            num_children[tip.address] = first + width
            ordinals = range(first, first + width) if len(tip.ids) < room else range(0)
            steps = [step(tip, ordinal, room, keep_on=number == max_rounds - 1) for ordinal in ordinals]
            best = max(steps, key=lambda path: path.score if path.text else -math.inf, default=None)
            if best is None:
                candidates += [tip]
            elif best.stop == "separator":
                still_active.append(best)
                survivors.add(best)
            else:
                candidates += [path for path in steps if path.stop != "separator"]
        subtrees = still_active
    ranked = sorted(candidates, key=lambda path: -path.score)
    ranked = [p for p in ranked if p.text] + [p for p in ranked if not p.text]
    return [p for p in ranked if p.stop == "stop"] + [p for p in ranked if p.stop != "stop"], survivors


@pytest.mark.parametrize("case", range(200))
def test_survivors_ranking_and_answer_are_those_of_the_reference(case: int) -> None:
    rng = random.Random(case)
    n, width, rounds, room = rng.randint(1, 12), rng.randint(1, 5), rng.randint(1, 8), rng.randint(3, 60)
    expected, survivors = restated(n, width, rounds, room, job_seed=case)
    one = attempt(SearchLimits(None, None, room), rng=random.Random(case + 1), job_seed=case)
    ranked = run(one, {"name": "dvts", "n": n, "width": width, "max_rounds": rounds})
    assert ranked is not None
    assert [(c.node.address, c.score, c.text) for c in ranked] == [
        (p.address, p.score if p.text else None, p.text) for p in expected
    ]
    kept = {
        node.address for node in one.search.tree.nodes if node.stop == "separator" and node.state is NodeState.FINISHED
    }
    assert kept == {path.address for path in survivors}
