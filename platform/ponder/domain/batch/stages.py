"""The stages of a job, as its request document names them: one for each model of a cascade."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ponder.domain.storable import JsonObject


@dataclass(frozen=True, slots=True)
class Pin:
    """The weights that a stage is pinned to, and their context in tokens.

    calibration: what their reward model's probabilities are worth, if the stage asks for that.
    """

    model: str
    fingerprint: str
    context_length: int
    calibration: JsonObject | None = None

    def document(self) -> JsonObject:
        document: JsonObject = {"model": self.model, "fingerprint": self.fingerprint}
        document["context_length"] = self.context_length
        return document if self.calibration is None else document | {"calibration": self.calibration}


def pins(request: Mapping[str, Any]) -> tuple[Pin, ...]:
    """Returns the weights of a cascade's stages in order, and none for a job that is no cascade."""
    return tuple(Pin(**pin) for pin in request.get("stages") or ())


def lesson_scope(request: Mapping[str, Any], fingerprint: str) -> str:
    """Returns a name that jobs share if they may learn from each other: they have the same models and strategy.

    fingerprint: of the worker's weights. Those of a cascade are its stages', each with everything that it says.
    """
    strategy = request.get("strategy") or {}
    stages = zip(pins(request), strategy.get("stages", ()), strict=False)
    parts = [(pin.fingerprint, stage) for pin, stage in stages] or [(fingerprint, strategy.get("name"))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def stage_request(request: Mapping[str, Any], number: int, *, num_used: int = 0) -> JsonObject:
    """Returns the request as the worker of a cascade's stage reads it: with the stage's own strategy and limits.

    A limit of the stage and one of the job both hold. num_used: the tokens of former stages, which are the job's too. A
    reasoning effort is for each stage: what one model thought would leave nothing to another one that does not think.
    """
    stage = request["strategy"]["stages"][number]
    own = {name: limit for name, limit in (stage.get("budget") or {}).items() if limit is not None}
    used = {"budget": num_used, "effort": 0}
    limits = {name: _within(request[name], own, num) for name, num in used.items() if request.get(name)}
    whole = {name: value for name, value in request.items() if name != "stages"}
    return whole | {"budget": own} | limits | {"strategy": stage["strategy"]}


def _within(limits: Mapping[str, Any], own: Mapping[str, int], num_used: int) -> JsonObject:
    """Returns limits of a job, less what is used of its tokens, where those of a stage are not lower."""
    left = {name: limit for name, limit in limits.items() if limit is not None}
    if "tokens" in left:
        left["tokens"] = max(left["tokens"] - num_used, 1)
    return left | {name: min(limit, left.get(name, limit)) for name, limit in own.items()}
