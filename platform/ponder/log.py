"""The logs of all services: one JSON object per line, or readable text on a terminal. They never contain prompts,
answers or passwords.

docs/operations.md lists the fields.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from ponder.errors import InvalidInput
from ponder.failure import message, original, places, without_logins

_FIRST = ("time", "level", "service", "event")
_QUIET = {
    # A broken connection is logged as an error where it was used.
    "sqlalchemy.pool": logging.CRITICAL,
    # A traceback when Redis goes away. Another line says that it cannot be reached.
    "celery.worker.consumer.consumer": logging.ERROR,
    # Celery logs each message twice, and httpx2 each request.
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "httpx2": logging.WARNING,
    # Two lines without information before every migration, even if there is nothing to migrate.
    "alembic.runtime.migration": logging.WARNING,
}

SAMPLED = ("uvicorn.error", "asyncio", "ponder.api.error_answers")
"""Loggers that strangers can make write a line with each request."""
_SAMPLE, _SAMPLE_S = 20, 60.0

_log = structlog.get_logger(__name__)


def configure(service: str, level: str, **ids: str | None) -> None:
    """Sends all logs to stderr, including those of libraries, warnings and uncaught exceptions.

    `ids` (incarnation, …) appear in every line of this process. Raises InvalidInput for an unknown level.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        raise InvalidInput(f"{level!r} is not a log level: use debug, info, warning or error", param="PONDER_LOG_LEVEL")

    known = {"service": service} | {name: value for name, value in ids.items() if value is not None}

    def identify(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
        return {**known, **fields}

    collect: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        identify,
    ]
    render: list[Processor] = [_with_exception, _in_order, structlog.processors.JSONRenderer(ensure_ascii=False)]
    if sys.stderr.isatty():
        render = [structlog.dev.ConsoleRenderer(timestamp_key="time", exception_formatter=_draw_exception)]
    structlog.configure(
        processors=[*collect, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=collect,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _scrub, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
    for name in SAMPLED:
        logging.getLogger(name).filters = [_Sample()]
    _catch_all()


class _Sample(logging.Filter):
    """A filter that passes the first 20 lines per minute of each place in the code, then one line that says so."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = (record.pathname, record.lineno)
        began_at, num_lines = self._windows.get(place, (record.created, 0))
        if record.created - began_at >= _SAMPLE_S:
            began_at, num_lines = record.created, 0
        self._windows[place] = (began_at, num_lines + 1)
        if num_lines == _SAMPLE:
            left_s = round(_SAMPLE_S - (record.created - began_at))
            _log.warning("lines_left_out", like=f"{record.module}:{record.lineno}", for_s=left_s)
        return num_lines < _SAMPLE


def _catch_all() -> None:
    """Logs warnings and uncaught exceptions, which Python would print."""
    logging.captureWarnings(True)

    def uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            _log.critical("uncaught", exc_info=error)

    sys.excepthook = uncaught
    threading.excepthook = lambda given: _log.critical(
        "uncaught", exc_info=given.exc_value, thread=given.thread.name if given.thread else None
    )
    sys.unraisablehook = lambda given: _log.error("unraisable", exc_info=given.exc_value)


def _scrub(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    return {name: without_logins(value) if isinstance(value, str) else value for name, value in fields.items()}


def _in_order(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    return {**{name: fields[name] for name in _FIRST}, **fields}


def _with_exception(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Turns `exc_info` into the single field `exception`."""
    error = _error(fields.pop("exc_info", None))
    return fields if error is None else {**fields, "exception": _structured(error)}


def _error(given: Any) -> BaseException | None:
    """Returns the exception in `exc_info`, which may be a flag, a tuple or an exception."""
    if given is True:
        return sys.exc_info()[1]
    if isinstance(given, tuple):
        given = given[1]
    return given if isinstance(given, BaseException) else None


def _structured(error: BaseException) -> dict[str, Any]:
    """Returns an exception as fields, with the message only if it cannot quote a user, and without source lines."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return {
        "type": type(original(error)).__name__,
        "message": message(error),
        "places": places(error),
        "cause": None if cause is None else _structured(cause),
    }


def _draw_exception(stream: TextIO, info: ExcInfo) -> None:
    """Writes a traceback as Python does, but without a message that may quote a user."""
    _, error, trace = info
    stream.write("\n" + "".join(traceback.format_tb(trace)))
    stream.write(f"{type(original(error)).__name__}: {message(error) or 'its message may quote a prompt'}\n")
