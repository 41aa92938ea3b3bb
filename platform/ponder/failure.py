"""What went wrong, in words that may stand in a log or be shown to anybody: no prompt, no password."""

from __future__ import annotations

import re
from pathlib import Path

from ponder.errors import InvalidInput, PonderError

_LOGIN = re.compile(r"://[^/\s@]*@")
_LONGEST = 300
_QUOTES_VALUES = "22"
"""The class of SQLSTATE whose messages quote what was refused."""
_QUOTE_SERVERS = ("pg8000", "redis", "kombu")
"""Packages whose errors hold what a server said or where it is, and nothing of a user's."""


def brief(error: BaseException) -> str:
    """Returns type and message where the message cannot hold a user's words, else type and place."""
    return f"{type(original(error)).__name__}: {message(error) or f'at {place(error)}'}"


def message(error: BaseException) -> str | None:
    """Returns the error's text, or None where it may quote a user. Leaves out Postgres's parameters and details."""
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
    """Returns the driver's own error where SQLAlchemy wrapped one."""
    wrapped = getattr(error, "orig", None)
    return wrapped if isinstance(wrapped, BaseException) else error


def without_logins(text: str) -> str:
    """Returns the text with user and password taken out of every URL."""
    return _LOGIN.sub("://…@", text)


def place(error: BaseException) -> str:
    """The file, with its package, and the line that raised it."""
    found = places(error)
    return found[-1] if found else "an unknown place"


def places(error: BaseException) -> list[str]:
    """From the outermost frame to the one that raised it."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        found.append(f"{'/'.join(Path(trace.tb_frame.f_code.co_filename).parts[-3:])}:{trace.tb_lineno}")
        trace = trace.tb_next
    return found
