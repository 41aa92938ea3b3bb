"""Spends more on harder jobs: a probe tells how hard a job is, and earlier jobs tell what helps.

Easy jobs end with their probes. The others get waves of one arm each: further samples, a path in which unsure steps are
tried again, or a particle filter, all under the same root. The choice is what is more likely to solve a task for its
tokens, while it is worth it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ponder.domain.strategy import Adaptive, ParticleFilter
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.allocation.bandit import Arm, balance, choose, difficulty, lesson
from ponder_worker.search.strategies.allocation.evidence import SURE, Believed, belief, surprisal, weigh
from ponder_worker.search.strategies.allocation.surest_path import surest_path
from ponder_worker.search.strategies.particle_filter import particle_filter
from ponder_worker.search.tree.candidate import Candidate

_PARTICLES = 4
"""A filter of so many particles is as accurate as one of sixteen, for a quarter of its tokens."""


async def adaptive(search: Search, spec: Adaptive) -> list[Candidate]:
    made = min(spec.n, max(spec.num_probes, search.num_choices))
    first = search.expander.num_requested(search.root)
    found = await weigh(search, [], await _sample(search, made))
    spent: list[str] = []
    while found and made < spec.n and _believed(found) < SURE:
        start = search.expander.num_requested(search.root)
        bucket = difficulty(len(spent), _believed(found))
        arm = _decide(search, spec, found, bucket, _arms(search, found, made, spec.n - made, spent))
        candidates = await _spend(search, spec, arm, found) if arm is not None else []
        if arm is None or not candidates:  # nothing more is worth it, or the budget has no room
            break
        before, found = found, await weigh(search, found, candidates)
        search.teach(lesson(bucket, arm.name, _gain(before, found), search.num_computed_since(start)))
        made += arm.num_paths
        spent.append(arm.name)
    # A later round only runs because a verifier rejected the first: the job is solved at most once.
    solved = 0.0 if first else _believed(found)
    search.teach(balance(solved, search.num_computed_since(first)))
    return [one.candidate for one in found]


def _arms(search: Search, found: Sequence[Believed], made: int, left: int, spent: Sequence[str]) -> list[Arm]:
    """Returns the arms for the next wave: samples, one sure path, or particles.

    With a reward model a single sample may be enough. Without one there are no particles, and as many samples as there
    are paths so far, because only agreement tells. A second sure path would hardly differ from the first.
    """
    sample = sum(len(step.ids) for one in found for step in one.candidate.node.path()) / len(found)
    hope = 1.0 / (1 + len(spent)) ** 2  # what one wave did not solve the next one seldom does
    size = 1 if search.engine.can_score else min(made, left)
    arms = [Arm("samples", size, size * sample, 0.1 * hope)]
    if "steps" not in spent:
        arms.append(Arm("steps", 1, 2 * sample, 0.3 * hope))
    if search.engine.can_score and left > 1:
        size = min(_PARTICLES, left)
        arms.append(Arm("particles", size, 2 * size * sample, 0.3 * hope))  # each step is generated, and scored
    return arms


def _decide(search: Search, spec: Adaptive, found: Sequence[Believed], bucket: str, arms: Sequence[Arm]) -> Arm | None:
    """Chooses what to spend the next wave on. It is recorded in the tree, because it rests on other jobs."""
    number, believed = search.expander.num_requested(search.root), _believed(found)

    def decision() -> str | None:
        random = search.random(number)
        return choose(search.learned(), bucket, arms, belief=believed, worth=spec.worth, random=random)

    chosen = search.decide(f"after {number}", decision)
    return next((arm for arm in arms if arm.name == chosen), None)


async def _spend(search: Search, spec: Adaptive, arm: Arm, found: Sequence[Believed]) -> list[Candidate]:
    match arm.name:
        case "particles":
            return await particle_filter(search, ParticleFilter(n=arm.num_paths, separator=spec.separator))
        case "steps":
            usual = sum(surprisal(one.candidate.node.path()) for one in found) / len(found)
            return await surest_path(search, separator=spec.separator, limit=2 * usual)
    return await _sample(search, arm.num_paths)


async def _sample(search: Search, size: int) -> list[Candidate]:
    return [candidate async for candidate in search.complete(search.root, size)]


def _believed(found: Sequence[Believed]) -> float:
    return belief(found, found[0].candidate.answer) if found else 0.0


def _gain(before: Sequence[Believed], now: Sequence[Believed]) -> float:
    """Returns how much more likely the answer is to be right than the one chosen before, by all that is known now."""
    return max(0.0, _believed(now) - belief(now, before[0].candidate.answer))
