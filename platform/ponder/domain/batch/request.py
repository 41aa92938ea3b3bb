"""Reads a line of a batch file as the request of a job, checked against the models that are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ponder.domain.batch.body import FIELDS, KEPT, UNSUPPORTED, Body, Message, asks_nothing
from ponder.domain.batch.options import LineOptions
from ponder.domain.batch.refusal import explain
from ponder.domain.batch.terms import ENDPOINT, ServedModel, Terms
from ponder.domain.batch.verification import Verification
from ponder.domain.budget import TOKENS_BY_EFFORT
from ponder.domain.context import cannot_fit
from ponder.domain.state import Lane
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import Strategy
from ponder.errors import InvalidInput, InvalidLine, UnknownModel

__all__ = ["ENDPOINT", "JobRequest", "ServedModel", "Terms", "parse", "refuse_told"]

MAX_CUSTOM_ID = 512
_MAX_CODE = 100
_NOTHING = LineOptions()
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


def parse(value: Mapping[str, Any], number: int, terms: Terms) -> JobRequest:
    """Reads a decoded line. Raises InvalidLine with a code, the field's path and the remedy, but never a prompt."""
    custom_id = value.get("custom_id")
    try:
        _check_line(value, terms)
        assert isinstance(custom_id, str)
        return _request(custom_id, _body(value["body"]), terms)
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


def _body(body: JsonObject) -> Body:
    others = sorted(body.keys() - FIELDS)
    for name in others:
        if asks_nothing(name, body[name]):
            continue
        if name not in UNSUPPORTED:
            raise InvalidInput(f"body.{name} is not a known field", param=f"body.{name}", code="unknown_field")
        raise InvalidInput(f"{name} is not supported", param=f"body.{name}", code="unsupported_field")
    try:
        return Body.model_validate({name: item for name, item in body.items() if name in FIELDS} if others else body)
    except ValidationError as error:
        raise explain(error, "body") from None


def _request(custom_id: str, body: Body, terms: Terms) -> JobRequest:
    model = _model(body, terms)
    own = body.ponder or _NOTHING
    strategy = own.strategy or terms.strategy
    _check_strategy(strategy, body.n or 1, model)
    _check_length(body.messages, model)
    if own.priority and terms.options.priority and own.priority != terms.options.priority:
        raise InvalidInput(
            f"the batch's priority is {terms.options.priority}", param="body.ponder.priority", code="invalid_priority"
        )
    verification = Verification.of(body, own, terms)
    document = {
        "messages": [_message(message) for message in body.messages],
        "sampling": _sampling(body),
        "n": body.n or 1,
        "strategy": own.strategy.model_dump() if own.strategy else terms.strategy_document,
        "budget": _budget(body, own, terms),
        **verification.document(),
        "kept": {name: kept for name in KEPT if (kept := getattr(body, name)) is not None},
    }
    level = (body.metadata or {}).get("level")
    return JobRequest(
        custom_id=custom_id,
        model=model,
        document=document,
        strategy=strategy.name,
        level=None if level is None else str(level)[:256],
        priority=own.priority,
        oracle=verification.oracle,
    )


def _model(body: Body, terms: Terms) -> ServedModel:
    name = terms.options.model or body.model
    if name is None:
        raise InvalidInput("body.model is missing", param="body.model", code="missing_required_parameter")
    model = terms.models.get(name)
    if model is None:
        known = ", ".join(sorted(terms.models)[:5]) or "none: start a worker"
        raise UnknownModel(
            f"no worker has served the model {name} yet (known: {known})", param="body.model", code="model_not_found"
        )
    return model


def _check_strategy(strategy: Strategy, n: int, model: ServedModel) -> None:
    most = strategy.num_candidates
    if most is not None and n > most:
        raise InvalidInput(f"n is {n}, but {strategy.name} has {most} candidates", param="body.n", code="invalid_value")
    if strategy.needs_scores and not model.has_reward_model:
        raise InvalidInput(
            f"{strategy.name} needs a reward model, and the workers of {model.name} have none",
            param="body.ponder.strategy",
            code="no_reward_model",
        )


def _check_length(messages: Sequence[Message], model: ServedModel) -> None:
    characters = sum(len(message.content) for message in messages)
    if cannot_fit(len(messages), characters, model.context_length):
        raise InvalidInput(
            f"{len(messages)} messages of {characters} characters cannot fit into the {model.context_length} tokens of "
            f"{model.name}'s context",
            param="body.messages",
            code="context_length_exceeded",
        )


def _message(message: Message) -> dict[str, str]:
    """Translates `developer`, OpenAI's newer word, to `system`, which chat templates know."""
    return {"role": "system" if message.role == "developer" else message.role, "content": message.content}


def _sampling(body: Body) -> JsonObject:
    limits = {limit for limit in (body.max_tokens, body.max_completion_tokens) if limit is not None}
    if len(limits) > 1:
        raise InvalidInput(
            "max_tokens and max_completion_tokens differ: give only one", param="body.max_tokens", code="invalid_value"
        )
    return {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": limits.pop() if limits else None,
        "stop": body.stop,
        "seed": body.seed,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "logprobs": bool(body.logprobs),
    }


def _budget(body: Body, own: LineOptions, terms: Terms) -> JsonObject:
    """Merges budgets field by field: the line's first, then its reasoning effort, then the batch's."""
    if own.budget is None and body.reasoning_effort is None:
        return terms.budget_document
    effort = {"tokens": TOKENS_BY_EFFORT[body.reasoning_effort]} if body.reasoning_effort else {}
    return terms.budget_document | effort | (own.budget.model_dump(exclude_none=True) if own.budget else {})
