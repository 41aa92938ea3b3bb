"""Spends more on harder jobs: a probe tells how hard a job is, and earlier jobs of the batch tell what helps.

Easy jobs end with their probes. The others get waves, each as large as all before it: more samples, or a beam search of
as many paths under the same root. The choice is what is more likely to solve a task for its tokens, while it is worth
it.
"""

from __future__ import annotations

from ponder.domain.strategy import Adaptive, BeamSearch
from ponder_worker.search.search import Search
from ponder_worker.search.selection.allocation import SURE, Arm, balance, choose, difficulty, lesson
from ponder_worker.search.selection.belief import belief
from ponder_worker.search.selection.ranking import rank
from ponder_worker.search.strategies.beam_search import beam_search
from ponder_worker.search.tree.candidate import Candidate

_WIDTH = 4


async def adaptive(search: Search, spec: Adaptive) -> list[Candidate]:
    made = min(spec.n, max(spec.num_probes, search.num_choices))
    first = search.expander.num_requested(search.root)
    candidates = await _sample(search, made)
    while candidates and made < spec.n and _believed(candidates) < SURE:
        start, size = search.expander.num_requested(search.root), min(made, spec.n - made)
        bucket = difficulty(made, _believed(candidates))
        arm = _decide(search, spec, candidates, bucket, size)
        found = await _spend(search, spec, arm, size)
        if arm is None or not found:  # nothing more is worth it, or the budget has no room
            break
        before, candidates = candidates, rank([*candidates, *found], by="weighted")
        _teach(search, lesson(bucket, arm, _gain(before, candidates), search.num_tokens_since(start)))
        made += size
    # A later round only runs because a verifier rejected the first: the job is solved at most once.
    solved = 0.0 if first else _believed(candidates)
    _teach(search, balance(solved, search.num_tokens_since(first)))
    return candidates


def _decide(search: Search, spec: Adaptive, ranked: list[Candidate], bucket: str, size: int) -> str | None:
    """Chooses what to spend the next wave on. It is recorded in the tree, because it rests on other jobs."""
    number, believed = search.expander.num_requested(search.root), _believed(ranked)
    sample = sum(len(step.ids) for candidate in ranked for step in candidate.node.path()) / len(ranked)
    arms = [Arm("samples", size * sample)]
    if size > 1 and search.engine.can_score:
        arms.append(Arm("beam", size * sample))

    def decision() -> str | None:
        random = search.random(number)
        return choose(search.learned(), bucket, arms, belief=believed, worth=spec.worth, random=random)

    arm: str | None = search.decide(f"after {number}", decision)
    return arm


async def _spend(search: Search, spec: Adaptive, arm: str | None, size: int) -> list[Candidate]:
    if arm == "beam":
        return await beam_search(search, BeamSearch(n=size, width=_WIDTH, separator=spec.separator))
    return await _sample(search, size) if arm == "samples" else []


async def _sample(search: Search, size: int) -> list[Candidate]:
    samples = search.complete(search.root, size, score=search.engine.can_score)
    return rank([candidate async for candidate in samples], by="weighted")


def _believed(ranked: list[Candidate]) -> float:
    return belief(ranked, ranked[0].answer) if ranked else 0.0


def _gain(before: list[Candidate], now: list[Candidate]) -> float:
    """Returns how much more likely the answer is to be right than the one chosen before, by all that is known now."""
    return max(0.0, belief(now, now[0].answer) - belief(now, before[0].answer))


def _teach(search: Search, lesson: dict[str, float]) -> None:
    for name, number in lesson.items():
        search.teach(name, number)
