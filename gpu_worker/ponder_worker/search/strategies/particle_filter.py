"""Particle filtering over steps: Puri et al. 2025, https://arxiv.org/abs/2502.01618."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ponder.domain.strategy import ParticleFilter
from ponder_worker.search.ranking import rank
from ponder_worker.search.search import Search
from ponder_worker.search.strategies.paths import goes_on, grow
from ponder_worker.search.tree.candidate import Candidate


async def particle_filter(search: Search, spec: ParticleFilter) -> list[Candidate]:
    """Moves every particle by one step, then draws n of them, by multinomial resampling as in the paper.

    A particle that has ended keeps its weight and is drawn like the others. When all have ended they are ranked rather
    than drawn once more, which could lose the best. A particle without a next step in the budget is cut off, or is gone
    if it never began.
    """
    first_draw = search.expander.num_requested(search.root) * spec.max_rounds
    particles = [search.candidate(search.root)] * spec.n
    for left in reversed(range(spec.max_rounds)):
        moved = await _moved(search, spec, particles, is_last=not left)
        if moved == particles or not any(map(goes_on, moved)):
            particles = moved
            break
        particles = resampled(moved, spec.temperature, search.random(first_draw + left))
        for particle in moved:
            if particle not in particles:
                search.expander.prune(particle.node)
    return rank(list(dict.fromkeys(particles)), by="best")


async def _moved(
    search: Search, spec: ParticleFilter, particles: Sequence[Candidate], *, is_last: bool
) -> list[Candidate]:
    def moves(particle: Candidate) -> bool:
        return goes_on(particle) or particle.node is search.root

    shares = [(particle.node, 1) for particle in particles if moves(particle)]
    steps = iter(await grow(search, spec, shares, is_last=is_last))
    moved = [(next(steps) or [particle])[0] if moves(particle) else particle for particle in particles]
    return [particle for particle in moved if particle.node is not search.root]


def resampled(particles: Sequence[Candidate], temperature: float, source: random.Random) -> list[Candidate]:
    """Draws as many particles, each in proportion to its probability of being right to the power of 1 / temperature.

    A particle without a score has no weight. If none has a score, all stay.
    """
    scores = [-math.inf if particle.score is None else particle.score for particle in particles]
    highest = max(scores)
    if highest == -math.inf:
        return list(particles)
    weights = [math.exp((score - highest) / temperature) for score in scores]
    return source.choices(particles, weights, k=len(particles))
