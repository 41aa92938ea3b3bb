"""The terms that every line of a batch is checked against: the batch's options and the served models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ponder.domain.batch.calibration import Calibration
from ponder.domain.batch.endpoint import CHAT, Endpoint
from ponder.domain.batch.options import BatchOptions
from ponder.domain.budget import Budget
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import Direct, Strategy
from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a worker registered; jobs are pinned to its fingerprint."""

    name: str
    fingerprint: str
    context_length: int
    has_reward_model: bool


@dataclass(frozen=True, slots=True)
class Calibrations:
    """The calibrations of a cascade's stages, by number, and the hashes of the prompts that they rest on."""

    by_stage: Mapping[int, Calibration] = field(default_factory=dict)
    prompts: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Terms:
    """The terms of all lines of a batch."""

    options: BatchOptions
    models: Mapping[str, ServedModel]
    endpoint: Endpoint = CHAT
    allows_code: bool = False
    """Whether workers may run programs that models write, for `python_tests`."""
    limits: VerifierLimits = field(default_factory=VerifierLimits)
    calibrations: Calibrations = Calibrations()

    def served(self, name: str, param: str) -> ServedModel:
        """Returns the model of this name. Raises UnknownModel, which names the field."""
        model = self.models.get(name)
        if model is None:
            known = ", ".join(sorted(self.models)[:5]) or "none: start a worker"
            raise UnknownModel(
                f"no worker has served the model {name} yet (known: {known})", param=param, code="model_not_found"
            )
        return model

    @cached_property
    def strategy(self) -> Strategy:
        return self.options.strategy or Direct()

    @cached_property
    def strategy_document(self) -> JsonObject:
        return self.strategy.model_dump()

    @cached_property
    def budget_document(self) -> JsonObject:
        return (self.options.budget or Budget()).model_dump()
