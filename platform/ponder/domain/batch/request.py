"""Reads a line of a batch file as the request of a job, checked against the models that are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ponder.domain.batch.body import Body
from ponder.domain.batch.calibration import prompt_hash
from ponder.domain.batch.completion_body import CompletionBody
from ponder.domain.batch.endpoint import CHAT, AnyBody, read_body
from ponder.domain.batch.options import LineOptions
from ponder.domain.batch.stages import Pin, Task
from ponder.domain.batch.terms import ServedModel, Terms
from ponder.domain.batch.verification import Verification
from ponder.domain.context import cannot_fit
from ponder.domain.state import Lane
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import AcceptByReward, AnyStrategy, Cascade
from ponder.domain.structure_check import check_structure
from ponder.domain.verifier import Judge
from ponder.errors import InvalidInput, InvalidLine

__all__ = ["JobRequest", "ServedModel", "Terms", "parse", "refuse_told"]

MAX_CUSTOM_ID = 512
_KEPT = ("user", "store", "metadata", "service_tier")
"""Fields that are kept with the job, but change nothing."""
_MAX_CODE = 100
_NOTHING = LineOptions()
_STRATEGY = "body.ponder.strategy"
_LINE_FIELDS = {"custom_id", "method", "url", "body"}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """An accepted line. The worker reads `document`."""

    custom_id: str
    model: ServedModel
    document: JsonObject
    strategy: str
    level: str | None
    priority: Lane | None
    oracle: bool
    judged: bool
    """Whether its verdict is a model's."""


def parse(value: Mapping[str, Any], number: int, terms: Terms) -> JobRequest:
    """Reads a decoded line. Raises InvalidLine with a code, the field's path and the remedy, but never a prompt."""
    custom_id = value.get("custom_id")
    try:
        _check_line(value, terms)
        assert isinstance(custom_id, str)
        return _request(custom_id, read_body(value["body"], terms.endpoint), terms)
    except InvalidInput as error:
        raise InvalidLine(
            error.message,
            line=number,
            code=error.code,
            param=error.param,
            custom_id=custom_id[:MAX_CUSTOM_ID] if isinstance(custom_id, str) else None,
        ) from None


def refuse_told(value: Mapping[str, Any], number: int) -> None:
    """Raises InvalidLine for a line {custom_id, error: {code, message}}, which stands for a row that a client could not
    turn into a request. The row then counts, and is in the error file with the client's reason.
    """
    error = value.get("error")
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return
    code, custom_id = error.get("code"), value.get("custom_id")
    raise InvalidLine(
        error["message"],
        line=number,
        code=code[:_MAX_CODE] if isinstance(code, str) else "invalid_row",
        custom_id=custom_id[:MAX_CUSTOM_ID] if isinstance(custom_id, str) else None,
    )


def _check_line(value: Mapping[str, Any], terms: Terms) -> None:
    for name in ("custom_id", "method", "url", "body"):
        if name not in value:
            raise InvalidInput(f"{name} is missing", param=name, code="missing_required_parameter")
    unknown = sorted(value.keys() - _LINE_FIELDS)
    if unknown:
        raise InvalidInput(f"{unknown[0]} is not a valid batch-line field", param=unknown[0], code="unknown_field")
    custom_id = value["custom_id"]
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_CUSTOM_ID:
        raise InvalidInput(
            f"custom_id must be text of 1 to {MAX_CUSTOM_ID} characters", param="custom_id", code="invalid_custom_id"
        )
    if value["method"] != "POST":
        raise InvalidInput("method must be POST", param="method", code="invalid_method")
    if value["url"] != terms.endpoint:
        raise InvalidInput(f"url must be the batch's endpoint, {terms.endpoint}", param="url", code="invalid_url")
    if not isinstance(value["body"], dict):
        raise InvalidInput("body must be an object", param="body", code="invalid_type")


def _request(custom_id: str, body: AnyBody, terms: Terms) -> JobRequest:
    own = body.ponder or _NOTHING
    strategy = own.strategy or terms.strategy
    models = _stage_models(strategy, body, terms) if isinstance(strategy, Cascade) else [_model(body, terms)]
    _check_strategy(strategy, body, models)
    for model in models:
        _check_length(body, model)
    _check_calibration(strategy, body, own, terms)
    if own.priority and terms.options.priority and own.priority != terms.options.priority:
        raise InvalidInput(
            f"the batch's priority is {terms.options.priority}", param="body.ponder.priority", code="invalid_priority"
        )
    verification = Verification.of(body, own, terms, models)
    for model in verification.elsewhere:
        _check_length(body, model)
    if verification.elsewhere:
        _check_text(body)
    document = {
        **body.prompt_document(),
        "sampling": body.sampling(),
        "n": body.n or 1,
        "strategy": own.strategy.model_dump() if own.strategy else terms.strategy_document,
        "budget": _budget(own, terms),
        **_effort(body, own),
        **_structure(body, own, terms),
        **verification.document(),
        **_pins(strategy, models, verification, terms),
        "kept": {name: kept for name in _KEPT if (kept := getattr(body, name)) is not None},
    }
    level = (body.metadata or {}).get("level")
    return JobRequest(
        custom_id=custom_id,
        model=models[0],
        document=document,
        strategy=strategy.name,
        level=None if level is None else str(level)[:256],
        priority=own.priority,
        oracle=verification.oracle,
        judged=isinstance(verification.verifier, Judge),
    )


def _model(body: AnyBody, terms: Terms) -> ServedModel:
    name = terms.options.model or body.model
    if name is None:
        raise InvalidInput("body.model is missing", param="body.model", code="missing_required_parameter")
    return terms.served(name, "body.model")


def _stage_models(strategy: Cascade, body: AnyBody, terms: Terms) -> list[ServedModel]:
    """Returns the models of a cascade's stages. Raises InvalidInput for a stage that cannot run."""
    models = []
    for number, stage in enumerate(strategy.stages):
        path = f"{_STRATEGY}.stages[{number}]"
        model = _model(body, terms) if stage.model is None else terms.served(stage.model, f"{path}.model")
        _check_reward_model(stage.strategy, model, f"{path}.strategy")
        if isinstance(stage.accept, AcceptByReward) and not model.has_reward_model:
            raise InvalidInput(
                f"stage {number} is accepted by a reward model, and the workers of {model.name} have none",
                param=f"{path}.accept",
                code="no_reward_model",
            )
        models.append(model)
    return models


def _pins(strategy: AnyStrategy, models: Sequence[ServedModel], verification: Verification, terms: Terms) -> JsonObject:
    """Returns the steps of a job in which more than one model takes part, or more than one stage."""
    if not isinstance(strategy, Cascade) and not verification.elsewhere:
        return {}
    pins = []
    for number, model in enumerate(models):
        calibration = terms.calibrations.by_stage.get(number) if strategy is terms.strategy else None
        document = None if calibration is None else calibration.document()
        pins.append(Pin(model.name, model.fingerprint, model.context_length, document))
        judges = [driver for driver in verification.drivers if driver.stage == number and driver.is_elsewhere]
        pins += [_judge_pin(driver.task, driver.model) for driver in judges]
    if verification.verifier_model is not None:
        pins.append(_judge_pin("verify", verification.verifier_model))
    return {"stages": [pin.document() for pin in pins]}


def _judge_pin(task: Task, model: ServedModel) -> Pin:
    return Pin(model.name, model.fingerprint, model.context_length, task=task)


def _check_calibration(strategy: AnyStrategy, body: AnyBody, own: LineOptions, terms: Terms) -> None:
    """Refuses problems that the reward model would be calibrated on: their verdicts would accept their own answers."""
    if own.strategy is not None and isinstance(strategy, Cascade):
        for number, stage in enumerate(strategy.stages):
            if isinstance(stage.accept, AcceptByReward) and stage.accept.calibrated_on is not None:
                raise InvalidInput(
                    "only the strategy of a whole batch can be calibrated: put it into the batch's ponder.strategy",
                    param=f"{_STRATEGY}.stages[{number}].accept.calibrated_on",
                    code="invalid_value",
                )
    prompts = terms.calibrations.prompts
    if own.strategy is None and prompts and prompt_hash(next(iter(body.prompt_document().values()))) in prompts:
        raise InvalidInput(
            "this problem is in the batch that the cascade is calibrated on: calibrate on other problems",
            param=f"body.{body.prompt_field}",
            code="calibrated_on_itself",
        )


def _check_strategy(strategy: AnyStrategy, body: AnyBody, models: Sequence[ServedModel]) -> None:
    if len({model.fingerprint for model in models}) > 1:
        _check_tokenizers(body)
    if strategy.needs_turns and isinstance(body, CompletionBody):
        raise InvalidInput(
            f"{strategy.name} goes on in further turns, which a text completion has not: take {CHAT}",
            param=_STRATEGY,
            code="invalid_value",
        )
    n, most = body.n or 1, strategy.num_candidates
    if most is not None and n > most:
        raise InvalidInput(f"n is {n}, but {strategy.name} has {most} candidates", param="body.n", code="invalid_value")
    if not isinstance(strategy, Cascade):
        _check_reward_model(strategy, models[0], _STRATEGY)


def _check_reward_model(strategy: AnyStrategy, model: ServedModel, param: str) -> None:
    if strategy.needs_scores and not model.has_reward_model:
        raise InvalidInput(
            f"{strategy.name} needs a reward model, and the workers of {model.name} have none",
            param=param,
            code="no_reward_model",
        )


def _check_tokenizers(body: AnyBody) -> None:
    """Refuses token ids where models with different tokenizers would read them."""
    sampling = body.sampling()
    named = [name for name in ("logit_bias", "stop_token_ids") if sampling.get(name)]
    if isinstance(body, CompletionBody) and isinstance(body.prompt_document()["prompt"], list):
        named.append("prompt")
    if named:
        raise InvalidInput(
            f"{named[0]} holds the token ids of one model, and the stages of a cascade have several: leave it out, or "
            "give text",
            param=f"body.{named[0]}",
            code="invalid_value",
        )


def _check_text(body: AnyBody) -> None:
    """Refuses a prompt of token ids, which another model could not read to judge its answers."""
    if isinstance(body, CompletionBody) and isinstance(body.prompt_document()["prompt"], list):
        raise InvalidInput(
            "the prompt holds the token ids of one model, and another model is to judge the answers: give text",
            param="body.prompt",
            code="invalid_value",
        )


def _check_length(body: AnyBody, model: ServedModel) -> None:
    num, unit, characters = body.prompt_size
    if cannot_fit(num, characters, model.context_length):
        of = f" of {characters} characters" if characters else ""
        raise InvalidInput(
            f"{num} {unit}{of} cannot fit into the {model.context_length} tokens of {model.name}'s context",
            param=f"body.{body.prompt_field}",
            code="context_length_exceeded",
        )


def _budget(own: LineOptions, terms: Terms) -> JsonObject:
    """Merges budgets field by field, the line's first."""
    return terms.budget_document | (own.budget.model_dump(exclude_none=True) if own.budget else {})


def _effort(body: AnyBody, own: LineOptions) -> JsonObject:
    """Returns the limits that the line's reasoning effort means, less those that its budget has itself.

    They go before the batch's. The worker takes one of them, because only it knows whether its model thinks.
    """
    if not isinstance(body, Body):
        return {}
    named = own.budget.model_dump(exclude_none=True) if own.budget else {}
    effort = {name: limit for name, limit in body.effort().items() if name not in named}
    return {"effort": effort} if effort else {}


def _structure(body: AnyBody, own: LineOptions, terms: Terms) -> JsonObject:
    """Returns what the answer is held to: the line's structure or response format, or else its batch's structure."""
    form = body.response_format if body.response_format and body.response_format.type != "text" else None
    if form is None and own.structure is None:
        structure = terms.options.structure
        return _held(body, structure.document()) if structure is not None else {}
    if form is None:
        assert own.structure is not None
        document, param = own.structure.document(), "body.ponder.structure"
        param += "".join(f".{kind}" for kind in document)
    elif own.structure is not None:
        raise InvalidInput(
            "an answer has one form: leave out response_format or ponder.structure",
            param="body.ponder.structure",
            code="conflicting_structure",
        )
    elif not form.is_enforced:
        return {}
    else:
        param = "body.response_format" + (".json_schema.schema" if form.type == "json_schema" else "")
        document = {"json_schema": form.wanted_schema}
    check_structure(document, terms.limits, param)
    return _held(body, document)


def _held(body: AnyBody, structure: JsonObject) -> JsonObject:
    if isinstance(body, Body) and body.continue_final_message:
        raise InvalidInput(
            "an answer is held to a structure from its beginning: leave out continue_final_message, or the structure",
            param="body.continue_final_message",
            code="conflicting_structure",
        )
    return {"structure": structure}
