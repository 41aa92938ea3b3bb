"""Describes errors in words that may be logged or shown to anybody: no prompts and no passwords."""

from __future__ import annotations

import re
from pathlib import Path

from ponder.errors import InvalidInput, PonderError

_LOGIN = re.compile(r"://[^/\s@]*@")
_LONGEST = 300
_QUOTES_VALUES = "22"
"""The class of SQLSTATE whose messages quote the refused value."""
_QUOTE_SERVERS = ("pg8000", "redis", "kombu")
"""Packages whose errors contain a server's words or address, and nothing of a user's."""


def brief(error: BaseException) -> str:
    """Returns the error's type and message, or its type and place if the message may contain a user's words."""
    return f"{type(original(error)).__name__}: {message(error) or f'at {place(error)}'}"


def message(error: BaseException) -> str | None:
    """Returns the error's text, or None if it may quote a user. Leaves out Postgres's parameters and details."""
    error = original(error)
    is_from_server = type(error).__module__.partition(".")[0] in _QUOTE_SERVERS
    answer = error.args[0] if error.args else None
    if is_from_server and isinstance(answer, dict):
        code = str(answer.get("C"))
        return code if code.startswith(_QUOTES_VALUES) else f"{code} {answer.get('M')}"[:_LONGEST]
    is_ours = isinstance(error, PonderError) and not isinstance(error, InvalidInput)
    if is_from_server or is_ours or isinstance(error, (ImportError, OSError)):
        return without_logins(str(error))[:_LONGEST]
    return None


def original(error: BaseException) -> BaseException:
    """Returns the driver's own error if SQLAlchemy wrapped one, else the error itself."""
    wrapped = getattr(error, "orig", None)
    return wrapped if isinstance(wrapped, BaseException) else error


def without_logins(text: str) -> str:
    """Returns the text without the user and password of any URL."""
    return _LOGIN.sub("://…@", text)


def place(error: BaseException) -> str:
    """Returns the file, with its folders, and the line that raised the error."""
    found = places(error)
    return found[-1] if found else "an unknown place"


def places(error: BaseException) -> list[str]:
    """Returns all places of the traceback, from the outermost frame to the one that raised the error."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        found.append(f"{'/'.join(Path(trace.tb_frame.f_code.co_filename).parts[-3:])}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found
