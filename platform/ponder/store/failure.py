"""What went wrong, in words that may stand in a log or be shown to anybody: no prompt, no password."""

from __future__ import annotations

import re
from pathlib import Path

from pg8000.exceptions import Error as DriverError

from ponder.errors import InvalidInput, PonderError

_LOGIN = re.compile(r"://[^/\s@]*@")
_LONGEST = 300
_QUOTES_VALUES = "22"
"""The class of SQLSTATE whose messages quote what was refused."""


def brief(error: BaseException) -> str:
    """Type and message where the message cannot hold a user's words, else type and place.

    Of what Postgres says, neither the statement's parameters nor its details.
    """
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {_LOGIN.sub('://…@', _said(original))[:_LONGEST]}"


def place(error: BaseException) -> str:
    """The file, with its package, and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{'/'.join(Path(trace.tb_frame.f_code.co_filename).parts[-3:])}:{trace.tb_lineno}"


def _said(error: BaseException) -> str:
    answer = error.args[0] if error.args else None
    if isinstance(error, DriverError) and isinstance(answer, dict):
        code = str(answer.get("C"))
        return code if code.startswith(_QUOTES_VALUES) else f"{code} {answer.get('M')}"
    is_ours = isinstance(error, PonderError) and not isinstance(error, InvalidInput)
    return str(error) if is_ours or isinstance(error, (ImportError, OSError, DriverError)) else f"at {place(error)}"
