"""The span of a request that makes a batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

from ponder.api.services import Ponder
from ponder.trace import Span, TraceContext, Tracer


@dataclass(frozen=True, slots=True)
class RequestSpan:
    """The span `submission` of a batch, which begins with the request. caller_span: the id of the caller's span, if
    the request named one. tracer: None if this process does not trace, and then nothing is known.
    """

    tracer: Tracer | None
    context: TraceContext | None
    caller_span: int | None
    began_at: float

    @property
    def traceparent(self) -> str | None:
        return None if self.context is None else self.context.traceparent

    def end(self, batch_id: str, tenant_id: str) -> None:
        """Call it once the batch is there."""
        if self.tracer is None or self.context is None or not self.context.is_sampled:
            return
        self.tracer.export(
            Span(
                "submission",
                self.context.trace_id,
                self.caller_span,
                self.began_at,
                time.time(),
                span_id=self.context.span_id,
                attributes={"ponder.batch.id": batch_id, "ponder.tenant.id": tenant_id},
                is_remote=True,
            )
        )


async def _begin(ponder: Ponder, traceparent: Annotated[str | None, Header()] = None) -> RequestSpan:
    context, caller_span = (None, None) if ponder.tracer is None else ponder.tracer.receive(traceparent)
    return RequestSpan(ponder.tracer, context, caller_span, time.time())


Traced = Annotated[RequestSpan, Depends(_begin)]
