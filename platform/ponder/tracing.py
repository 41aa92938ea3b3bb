"""Whether this process traces, and by what."""

from __future__ import annotations

import structlog

from ponder.failure import brief
from ponder.settings import Settings
from ponder.trace import Tracer

_log = structlog.get_logger(__name__)


def start_tracing(service: str, settings: Settings, *, instance: str | None = None) -> Tracer | None:
    """Returns the tracer of a service, or None if there is to be none. Only a tracer loads OpenTelemetry's SDK.

    `instance` tells processes of the same service apart. Call it once the logs are configured.
    """
    if not settings.is_traced:
        return None
    try:
        from ponder.otel import otlp_tracer
    except ModuleNotFoundError:
        _log.warning("traces_off", reason="OTEL_… asks for traces, which need `pip install 'ponder[otel]'`")
        return None
    try:
        tracer = otlp_tracer(service, instance)
    except Exception as error:  # no service may stay away because of a setting of its traces
        _log.warning("traces_off", reason=f"the SDK refuses a variable OTEL_…: {brief(error)}")
        return None
    _log.info("traces_on")
    return tracer
