"""Our beam search against an independent re-statement of huggingface/search-and-learn's order of decisions."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest

from ponder_worker.search import seed
from ponder_worker.search.node import NodeState
from ponder_worker.search.port import Step
from ponder_worker.search.search import Limits

from .conftest import END, PIECES, PROMPT, attempt, run, score_of, token_at


@dataclass(frozen=True)
class Path:
    address: tuple[int, ...]
    seed: int
    ids: tuple[int, ...] = ()
    score: float = 0.0
    stop: str = "separator"

    @property
    def text(self) -> str:
        return "".join(PIECES[token] for token in self.ids)


def restated(n: int, width: int, max_rounds: int, room: int, job_seed: int) -> tuple[list[Path], list[set[Path]]]:
    """-> finished paths, best first, and who survived each round."""
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


def step(path: Path, ordinal: int, room: int, *, keep_on: bool) -> Path:
    own, ids, stop = seed.of_child(path.seed, ordinal), list[int](), "length"
    while len(path.ids) + len(ids) < room:
        ids.append(token_at(own, len(PROMPT) + len(path.ids) + len(ids)))
        if ids[-1] == END:
            stop = "stop"
            break
        if PIECES[ids[-1]] == "\n" and not keep_on:
            stop = "separator"
            break
    before = [*PROMPT, *path.ids]
    text = "".join(PIECES[token] for token in ids)
    score = path.score + (score_of(Step(before, ids, "", text)) if text else 0.0)
    return replace(path, address=(*path.address, ordinal), seed=own, ids=(*path.ids, *ids), score=score, stop=stop)


@pytest.mark.parametrize("case", range(200))
def test_survivors_ranking_and_answer_are_those_of_the_reference(case: int) -> None:
    rng = random.Random(case)
    n, width, rounds, room = rng.randint(1, 8), rng.randint(1, 5), rng.randint(1, 8), rng.randint(3, 60)
    expected, survivors = restated(n, width, rounds, room, job_seed=case)
    one = attempt(Limits(None, None, room), rng=random.Random(case + 1), job_seed=case)
    ranked = run(one, {"name": "beam_search", "n": n, "width": width, "max_rounds": rounds})
    assert ranked is not None
    assert [(c.node.address, c.score, c.text) for c in ranked] == [
        (p.address, p.score if p.text else None, p.text) for p in expected
    ]
    kept = {
        node.address for node in one.search.tree.nodes if node.stop == "separator" and node.state is NodeState.FINISHED
    }
    assert kept == {path.address for survived in survivors for path in survived}
