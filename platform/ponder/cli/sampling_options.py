"""The options of `run` and `submit` that become fields of every line's body, by the names that vLLM gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import click

from ponder.domain.batch.endpoint import CHAT, Endpoint
from ponder.domain.budget import ReasoningEffort
from ponder.wire import Json


def json_object(context: click.Context, option: click.Parameter, given: str | None) -> Any:
    """Reads a JSON object. The server reports what is wrong in it."""
    if given is None:
        return None
    try:
        value = json.loads(given)
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.BadParameter("a JSON object is expected")
    return value


def _ids(context: click.Context, option: click.Parameter, given: str | None) -> list[int] | None:
    try:
        return None if given is None else [int(token) for token in given.split(",")]
    except ValueError:
        raise click.BadParameter("token ids are expected, with commas between them: 151643,151645") from None


OPTIONS = [
    click.option("--max-tokens", type=click.IntRange(1), help="The most tokens per sample."),
    click.option("--min-tokens", type=click.IntRange(0), help="The fewest tokens per sample."),
    click.option("--temperature", type=click.FloatRange(0, 2), help="[default: the model's own]"),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True)),
    click.option("--top-k", type=click.IntRange(-1), help="Sample among the K likeliest tokens; 0 is off."),
    click.option("--min-p", type=click.FloatRange(0, 1), help="... among those with this share of the likeliest's."),
    click.option("--repetition-penalty", type=click.FloatRange(0.01, 100), help="1 is off."),
    click.option("--stop-token-ids", metavar="ID,ID", callback=_ids, help="Token ids that end a sample, too."),
    click.option("--ignore-eos", is_flag=True, default=None, help="Go on past the model's own end."),
    click.option("--logit-bias", metavar="JSON", callback=json_object,
                 help='Added to the logits of tokens: {"50256": -100}.'),
    click.option("--top-logprobs", type=click.IntRange(0, 20),
                 help="Return log-probabilities, also of the K likeliest tokens at each place."),
    click.option("--seed", type=int, help="The same seed gives the same search."),
    click.option("--reasoning-effort", type=click.Choice(get_args(ReasoningEffort)),
                 help="A limit of thinking tokens, or of the problem's tokens if the model does not think."),
    click.option("--chat-template-kwargs", metavar="JSON", callback=json_object,
                 help='Passed to the chat template: {"enable_thinking": false}.'),
    click.option("--add-generation-prompt/--no-add-generation-prompt", default=None,
                 help="Whether the prompt opens the model's turn.  [default: it does]"),
    click.option("--response-format", metavar="JSON", callback=json_object,
                 help='OpenAI\'s: {"type": "json_object"}, or a JSON schema that answers are held to.'),
    click.option("--continue-final-message", is_flag=True, default=None,
                 help="Continue the last message, which is the assistant's."),
]  # fmt: skip

_FIELDS = ("max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty",
           "stop_token_ids", "ignore_eos", "logit_bias", "top_logprobs", "seed",
           "reasoning_effort", "chat_template_kwargs", "response_format",
           "add_generation_prompt", "continue_final_message")  # fmt: skip


def body_of(given: Mapping[str, Any], endpoint: Endpoint) -> Json:
    """Returns the fields that were given a value, as the endpoint names them."""
    body = {name: given[name] for name in _FIELDS if given[name] is not None}
    if "top_logprobs" not in body:
        return body
    return body | {"logprobs": True} if endpoint == CHAT else body | {"logprobs": body.pop("top_logprobs")}
