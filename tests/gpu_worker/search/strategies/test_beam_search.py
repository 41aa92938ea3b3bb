"""Our beam search against an independent re-statement of huggingface/search-and-learn's order of decisions."""

from __future__ import annotations

import random

import pytest

from ponder_worker.search.expansion.search_limits import SearchLimits
from ponder_worker.search.tree.node import NodeState

from ..conftest import attempt, run
from .restatement import Path, step


def restated(n: int, width: int, max_rounds: int, room: int, job_seed: int) -> tuple[list[Path], list[set[Path]]]:
    """Returns the finished paths, best first, and the survivors of each round."""
    active, done, survivors = [Path((), job_seed)], list[Path](), list[set[Path]]()
    children: dict[tuple[int, ...], int] = {}
    for number in range(max_rounds):
        active = (active * n)[:n]
        grown = []
        for path in active:
            ordinal = children.get(path.address, 0)
            children[path.address] = ordinal + 1
            if len(path.ids) < room:
                grown.append(step(path, ordinal, room, keep_on=number == max_rounds - 1))
        done += [path for path in grown if path.stop != "separator"]
        going = [path for path in grown if path.stop == "separator"]
        unique = [p for i, p in enumerate(going) if p.text not in [q.text for q in going[:i]]]
        best = sorted(unique, key=lambda path: -path.score)[: max(1, n // width)]
        if not grown:
            done += [path for path in dict.fromkeys(active) if path.address]
        active = [path for path in unique if path in best]
        survivors.append(set(active))
        if not active:
            break
    ranked = sorted(done, key=lambda path: -path.score)
    ranked = [p for p in ranked if p.text] + [p for p in ranked if not p.text]
    return [p for p in ranked if p.stop == "stop"] + [p for p in ranked if p.stop != "stop"], survivors


@pytest.mark.parametrize("case", range(200))
def test_survivors_ranking_and_answer_are_those_of_the_reference(case: int) -> None:
    rng = random.Random(case)
    n, width, rounds, room = rng.randint(1, 8), rng.randint(1, 5), rng.randint(1, 8), rng.randint(3, 60)
    expected, survivors = restated(n, width, rounds, room, job_seed=case)
    one = attempt(SearchLimits(None, None, room), rng=random.Random(case + 1), job_seed=case)
    ranked = run(one, {"name": "beam_search", "n": n, "width": width, "max_rounds": rounds})
    assert ranked is not None
    assert [(c.node.address, c.score, c.text) for c in ranked] == [
        (p.address, p.score if p.text else None, p.text) for p in expected
    ]
    kept = {
        node.address for node in one.search.tree.nodes if node.stop == "separator" and node.state is NodeState.FINISHED
    }
    assert kept == {path.address for survived in survivors for path in survived}
