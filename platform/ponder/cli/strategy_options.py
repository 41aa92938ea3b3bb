"""Reads the strategy and its parameters from the options of `run` and `submit`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
from pydantic import ValidationError

from ponder.domain.batch.refusal import explain
from ponder.domain.strategy import STRATEGY
from ponder.wire import Json

_SHORT = ("n", "width", "select")
"""Parameters with an option of their own."""


def strategy_of(given: Mapping[str, Any]) -> Json | None:
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
    known = [field for field in type(STRATEGY.validate_python(strategy)).model_fields if field != "name"]
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
