"""The options that `run` and `submit` share, and what they say in a request."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from pydantic import ValidationError

from ponder.cli import sampling_options
from ponder.cli.amount import Duration
from ponder.domain.batch.endpoint import ENDPOINTS
from ponder.domain.batch.refusal import explain
from ponder.domain.strategy import STRATEGY, STRATEGY_NAMES, STRATEGY_SPECS, Select
from ponder.domain.verifier import PLAIN_VERIFIER_NAMES
from ponder.wire import Json

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SHORT = ("n", "width", "select")
"""Parameters of strategies with an option of their own."""

_OPTIONS = [
    click.argument("file", type=click.Path(path_type=Path)),
    click.option("--model", help="The model that answers. Overrides the model in OpenAI lines."),
    click.option("--prompt", metavar="FIELD", help="Plain data sets: the field with the problem."),
    click.option("--answer", metavar="FIELD", help="... with the expected answer, for reports; never shown to models."),
    click.option("--id", "id_field", metavar="FIELD", help="... with a unique id.  [default: row-1, row-2, …]"),
    click.option("--level", metavar="FIELD", help="... with the difficulty, for `ponder report cost --by level`."),
    click.option("--encoding", metavar="NAME", callback=lambda context, option, given: _encoding(given),
                 help="The encoding of FILE: utf-16, latin-1, cp1252 …  [default: utf-8]"),
    click.option("--system", metavar="TEXT", help="... a system message before every problem."),
    click.option("--endpoint", type=click.Choice(ENDPOINTS),
                 help="... what answers: a chat, or the completion of the field's text.  [default: a chat]"),
    click.option("--strategy", type=click.Choice(STRATEGY_NAMES), help="The search strategy.  [default: direct]"),
    click.option("--n", type=click.IntRange(1), help="The number of samples, paths or tries per problem."),
    click.option("--width", type=click.IntRange(1), help="Searches over steps: the number of steps tried per path."),
    click.option("--select", type=click.Choice(get_args(Select)), help="best_of_n: the choice rule."),
    click.option("--param", multiple=True, metavar="NAME=VALUE",
                 help="Another parameter of the strategy, JSON or text: exploration=0.5; repeatable."),
    click.option("--budget-tokens", type=click.IntRange(1), help="The most tokens a problem may generate in total."),
    click.option("--budget-thinking", type=click.IntRange(1), help="The most thinking tokens per sample."),
    click.option("--budget-dollars", type=click.FloatRange(0, min_open=True), help="The most a problem may cost."),
    click.option("--deadline", "deadline_s", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                 help="Settle a problem with what it has by then, counted from submission."),
    *sampling_options.OPTIONS,
    click.option("--structure", metavar="JSON", callback=sampling_options.json_object,
                 help='What answers are held to: {"regex": "…"}, {"choice": ["…", …]} or {"grammar": "…"}.'),
    click.option("--verifier", metavar="NAME|JSON", callback=lambda context, option, given: _verifier(given),
                 help=f"The judge of answers: {', '.join(PLAIN_VERIFIER_NAMES)}, or the JSON of a verifier.  "
                 "[default: math, if there is an expected answer]"),
    click.option("--max-rounds", type=click.IntRange(1, 100),
                 help="The most tries while the verifier says no, for a verifier that needs no --answer."),
    click.option("--oracle", is_flag=True,
                 help="Let the search use --answer: accuracy is then pass@k, and reports say so."),
    click.option("--max-dollars", type=click.FloatRange(0, min_open=True), help="The most the whole batch may cost."),
    click.option("--max-tokens-total", type=click.IntRange(1), help="The most tokens the whole batch may generate."),
    click.option("--pilot", type=click.IntRange(1, 10_000), metavar="N",
                 help="Run N problems first, drawn at random, and estimate the whole batch by them. It goes on "
                 "unless the estimate exceeds --max-dollars."),
    click.option("--confirm", is_flag=True, help="... and unless you say yes to the estimate."),
    click.option("--webhook", metavar="URL", help="Where its events go.  [default: your tenant's webhook]"),
    click.option("--priority", type=click.Choice(["interactive", "batch"]), help="[default: batch]"),
    click.option("--window", default="24h", show_default=True, help="The time until it expires: 1h … 14d."),
    click.option("--output-expires-after", type=Duration(), metavar="DURATION",
                 help="Delete results, prompts and files so long after its end: 30d.  [default: the tenant's]"),
    click.option("--strict", is_flag=True, help="Fail the whole batch if a line is bad."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch; repeatable."),
    click.option("--idempotency-key", metavar="KEY", help="A repeated key and file return the same batch."),
]  # fmt: skip


def submission_options(command: _Command) -> _Command:
    """Adds FILE and the options about it to a command, which gets them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def ponder_object(given: Mapping[str, Any]) -> Json:
    """Returns the batch's `ponder` object. Raises InvalidInput or click's UsageError for contradictions."""
    options: Json = {}
    strategy = _strategy(given)
    if strategy is not None:
        options["strategy"] = strategy
    limits = {"tokens": "budget_tokens", "thinking_tokens": "budget_thinking", "dollars": "budget_dollars"}
    budget = {name: given[option] for name, option in limits.items() if given[option]}
    budget |= present(given, "deadline_s")
    if budget:
        options["budget"] = budget
    options |= batch_budget(given) | _pilot(given)
    options |= {flag: True for flag in ("oracle", "strict") if given[flag]}
    return options | present(given, "structure", "verifier", "max_rounds", "webhook", "priority")


def batch_budget(given: Mapping[str, Any]) -> Json:
    """Returns the limits of a whole batch as a part of its `ponder` object, or nothing if none is given."""
    limits = {"dollars": given["max_dollars"], "tokens": given["max_tokens_total"]}
    budget = {name: limit for name, limit in limits.items() if limit is not None}
    return {"batch_budget": budget} if budget else {}


def _pilot(given: Mapping[str, Any]) -> Json:
    """Returns the pilot as a part of the batch's `ponder` object. Raises click's UsageError."""
    if given["pilot"] is None:
        if given["confirm"]:
            raise click.UsageError("--confirm belongs to a --pilot N: name the number of problems that run first")
        return {}
    return {"pilot": {"jobs": given["pilot"], "confirm": given["confirm"]}}


def _strategy(given: Mapping[str, Any]) -> Json | None:
    """Returns the request's `strategy`, or None if none is named. Raises click's UsageError or InvalidInput.

    For a strategy without an n of its own, --n is the number of choices.
    """
    short = {name: given[name] for name in _SHORT if given[name] is not None}
    params = _params(given["param"])
    if given["strategy"] is None:
        if params or short.keys() - {"n"}:
            raise click.UsageError("--width, --select and --param belong to a --strategy: name it")
        return None
    strategy = {"name": given["strategy"]}
    known = [field for field in STRATEGY_SPECS[given["strategy"]].model_fields if field != "name"]
    if "n" not in known:
        short.pop("n", None)
    unknown = [name for name in (*short, *params) if name not in known]
    if unknown:
        has = f"its parameters are {', '.join(known)}" if known else "it has no parameters"
        raise click.UsageError(f"{given['strategy']} has no {unknown[0]}: {has}")
    strategy |= short | params
    try:
        STRATEGY.validate_python(strategy)
    except ValidationError as error:
        raise explain(error, "strategy") from None
    return strategy


def _params(pairs: Sequence[str]) -> Json:
    """Reads parameters. Values are JSON if they can be, else text."""
    params: Json = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name or name == "name":
            raise click.UsageError(f"--param {pair}: NAME=VALUE is expected")
        params[name] = value
        with contextlib.suppress(ValueError):
            params[name] = json.loads(value)
    return params


def _verifier(given: str | None) -> Any:
    """Reads a name, or an object such as {"name": "regex", "pattern": "…"}. The server reports what is wrong in it."""
    if given is None or not given.lstrip().startswith("{"):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise click.BadParameter(f"neither a verifier's name nor JSON: {error}") from None


def _encoding(given: str | None) -> str | None:
    try:
        b"".decode(given or "utf-8")
    except LookupError as error:
        raise click.BadParameter(str(error)) from None
    return given


def present(given: Mapping[str, Any], *names: str) -> Json:
    """Returns those of the options that were given a value."""
    return {name: given[name] for name in names if given[name] is not None}


def metadata_of(given: Mapping[str, Any], file: Path) -> dict[str, str]:
    metadata = {"file": file.name}
    for pair in given["metadata"]:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--metadata {pair}: KEY=VALUE is expected")
        metadata[key] = value
    return metadata
