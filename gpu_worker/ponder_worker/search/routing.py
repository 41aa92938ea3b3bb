"""Skips a stage of a cascade for problems of which the batch has learnt that the stage does not solve them.

Before the stage computes anything, problems are told apart by what they say of themselves, and once its first sample
has begun, by how sure the model is of its first tokens, too. It may then end there.

What a stage was worth is kept for groups of problems, each a part of the one before it: all, those of the same level
and about the same length, and those of the same metadata among them. The chance of being accepted is drawn from its
posterior (Thompson 1933, https://doi.org/10.1093/biomet/25.3-4.285), and a stage is skipped where its work is more than
what it is likely to save. So it is skipped seldom while little is known, and tried again now and then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any
from zlib import crc32

from ponder.domain.batch.cell import prompt_size

DECISION = "route"
"""The name under which a tree keeps the decision: {skipped, and the numbers that it rests on}."""
_BINS = 16
"""How many values of the level, and of the other metadata, are told apart: more would let the sums grow forever."""
FIRST_TOKENS = 16
"""How many tokens of the first sample tell the model's confidence."""
_MOST_SURE = 7
"""The highest class of confidence, with the least doubt."""
_EXPLORED = 0.03
"""The share of problems that no stage is skipped for, whatever was learnt."""
_PRIOR_JOBS = 4.0
"""How many jobs of a group the group around it counts for."""

_LEAST = 1e-3
"""Keeps a draw of exactly 0 or 1 from being no parameter of the next distribution."""

Sums = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Route:
    """A decision. chance: of being accepted, as it was drawn. work, next_work: operations that this stage and the next
    one are expected to take; None where nothing is known.
    """

    skipped: bool
    chance: float
    work: float | None
    next_work: float | None

    def document(self) -> dict[str, Any]:
        return asdict(self)


def groups(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the groups that a problem is in, the largest first. Their names hold nothing of the prompt."""
    metadata = dict((request.get("kept") or {}).get("metadata") or {})
    num_bytes, num_ids = prompt_size(request)
    near = f"level {_bin(metadata.pop('level', None))} length {(num_ids or num_bytes).bit_length()}"
    return "all", near, f"{near} metadata {_bin(sorted(metadata.items()))}"


def with_confidence(names: Sequence[str], confidence: float) -> tuple[str, ...]:
    """Returns the groups of a problem whose first tokens have this geometric mean probability, the largest first.

    Each class has half the doubt of the class before it.
    """
    doubt = min(max(1 - confidence, 2.0**-_MOST_SURE), 1.0)
    return *names, f"{names[-1]} confidence {int(-math.log2(doubt))}"


def choose(here: Sums, there: Sums, names: Sequence[str], random: Random) -> Route:
    """Decides by the sums of this stage and of the next one whether to skip this one for a problem of these groups."""
    chance, strength = 0.5, 2.0  # all values are as likely before anything is known
    for name in names:
        accepted = here.get(f"{name}.accepted", 0.0)
        refused = here.get(f"{name}.num", 0.0) - accepted
        chance = random.betavariate(_LEAST + strength * chance + accepted, _LEAST + strength * (1 - chance) + refused)
        strength = _PRIOR_JOBS
    work, next_work = _mean(here, names), _mean(there, names)
    may_skip = random.random() >= _EXPLORED and work is not None and next_work is not None
    is_waste = work is not None and next_work is not None and chance * next_work < work
    return Route(may_skip and is_waste, chance, work, next_work)


def lessons(names: Sequence[str], *, is_accepted: bool, work: float) -> dict[str, float]:
    """Returns what a stage that has ended adds to the sums of its groups. work: in operations."""
    taught = {"num": 1.0, "accepted": float(is_accepted), "work": work}
    return {f"{group}.{name}": number for group in names for name, number in taught.items()}


def late_lessons(names: Sequence[str], *, is_accepted: bool, work: float) -> dict[str, float]:
    """Returns what is added to the lessons of a stage that was not accepted when it ended, once it has been judged.

    work: of judging it, which is saved with the stage.
    """
    taught = {"accepted": float(is_accepted), "work": work}
    return {f"{group}.{name}": number for group in names for name, number in taught.items()}


def _mean(sums: Sums, names: Sequence[str]) -> float | None:
    """Returns the mean work of the smallest group that has enough jobs, or of all."""
    for name in reversed(names):
        num = sums.get(f"{name}.num", 0.0)
        if num >= _PRIOR_JOBS or (num > 0 and name == names[0]):
            return sums.get(f"{name}.work", 0.0) / num
    return None


def _bin(value: object) -> str:
    return "none" if not value else f"{crc32(str(value).encode()) % _BINS:x}"
