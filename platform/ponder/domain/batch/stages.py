"""The steps of a job, as its request document names them, where more than one model takes part: a step for each stage
of a cascade, and one for each judgement that the model of a stage does not make itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ponder.domain.storable import JsonObject

Task = Literal["solve", "select", "accept", "verify"]
"""The task of a step: solve the problem, or judge what a step before it made: which candidate is the best, whether
the answer is good enough for no other model to be asked, or whether it counts as a success."""


@dataclass(frozen=True, slots=True)
class Pin:
    """The weights that a step is pinned to, and their context in tokens.

    calibration: what their reward model's probabilities are worth, if the stage asks for that. stage: the number of the
    stage that the step solves or judges.
    """

    model: str
    fingerprint: str
    context_length: int
    calibration: JsonObject | None = None
    task: Task = "solve"
    stage: int = 0

    def document(self) -> JsonObject:
        document: JsonObject = {"model": self.model, "fingerprint": self.fingerprint}
        document["context_length"] = self.context_length
        if self.calibration is not None:
            document["calibration"] = self.calibration
        return document if self.task == "solve" else document | {"task": self.task}


def pins(request: Mapping[str, Any]) -> tuple[Pin, ...]:
    """Returns the weights of a job's steps in order, and none for a job that has a single one.

    A step that judges is about the stage before it.
    """
    made: list[Pin] = []
    stage = -1
    for document in request.get("stages") or ():
        stage += document.get("task", "solve") == "solve"
        made.append(Pin(**document, stage=stage))
    return tuple(made)


def solvers(request: Mapping[str, Any]) -> tuple[Pin, ...]:
    """Returns the weights of a job's stages in order, and none for a job that has a single step."""
    return tuple(pin for pin in pins(request) if pin.task == "solve")


def next_step(steps: Sequence[Pin], number: int, accepted: bool | None) -> int | None:
    """Returns the number of the step that follows; None if the job is to settle.

    accepted: whether the answer of the step's stage is good enough for no other model to be asked; None if this step
    does not decide that, and the model that judges the stage does, or else nobody: the answer then counts.
    """
    later = range(number + 1, len(steps))
    stage, wanted = steps[number].stage, "verify" if accepted is not False else "solve"
    judged = (step for step in later if steps[step].stage == stage and steps[step].task in ("select", "accept"))
    found = next(judged, None) if accepted is None else None
    return found if found is not None else next((step for step in later if steps[step].task == wanted), None)


def lesson_scope(request: Mapping[str, Any], fingerprint: str) -> str:
    """Returns a name that jobs share if they may learn from each other: they have the same models and strategy.

    fingerprint: of the worker's weights. Those of a cascade are its stages', each with everything that it says.
    """
    strategy, named = request.get("strategy") or {}, solvers(request)
    if "stages" in strategy:
        parts = [(pin.fingerprint, stage) for pin, stage in zip(named, strategy["stages"], strict=False)]
    else:
        parts = [(named[0].fingerprint if named else fingerprint, strategy.get("name"))]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def stage_request(request: Mapping[str, Any], number: int, *, num_used: int = 0) -> JsonObject:
    """Returns the request as the worker of a stage reads it: with the stage's own strategy and limits.

    A limit of the stage and one of the job both hold. num_used: the tokens of former steps, which are the job's too. A
    reasoning effort is for each stage: what one model thought would leave nothing to another one that does not think.
    """
    strategy = request["strategy"]
    stage = strategy["stages"][number] if "stages" in strategy else {"strategy": strategy}
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
