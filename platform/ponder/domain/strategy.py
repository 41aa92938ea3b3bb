"""What a person may ask for as a search strategy. Each spec has the defaults that the CLI and the API use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Spec(BaseModel):
    """Immutable, and an unknown field is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Direct(Spec):
    """One sample; what every other strategy is compared with."""

    name: Literal["direct"] = "direct"


class SelfConsistency(Spec):
    """Majority over the canonical answers of n samples (Wang et al. 2022, arXiv:2203.11171)."""

    name: Literal["self_consistency"] = "self_consistency"
    n: int = Field(default=8, ge=1, le=1024)


class BestOfN(Spec):
    """n samples, each scored by the reward model (Cobbe et al. 2021, arXiv:2110.14168).

    `best` takes the highest score, `weighted` the highest sum of scores per answer, `majority` the most frequent one.
    """

    name: Literal["best_of_n"] = "best_of_n"
    n: int = Field(default=8, ge=1, le=1024)
    select: Literal["best", "weighted", "majority"] = "best"


class BeamSearch(Spec):
    """Reward-guided search over steps (Snell et al. 2024, arXiv:2408.03314).

    n paths; each round every active path grows by one step, all are scored, and the best n / width survive and
    are copied to n again.
    """

    name: Literal["beam_search"] = "beam_search"
    n: int = Field(default=4, ge=1, le=256)
    width: int = Field(default=4, ge=1, le=64)
    max_rounds: int = Field(default=40, ge=1, le=400)
    separator: str = Field(default="\n", min_length=1, max_length=16)


Strategy = Annotated[Direct | SelfConsistency | BestOfN | BeamSearch, Field(discriminator="name")]
STRATEGY: TypeAdapter[Direct | SelfConsistency | BestOfN | BeamSearch] = TypeAdapter(Strategy)
STRATEGY_NAMES = ("direct", "self_consistency", "best_of_n", "beam_search")
