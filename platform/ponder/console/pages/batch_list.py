"""The page of all batches of a tenant."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from ponder.api.page import After
from ponder.api.routes.batches import list_batches
from ponder.api.services import Ponder
from ponder.console.rendering import render
from ponder.console.session import SignedIn

router = APIRouter()

_ROWS = 50


@router.get("/")
def batch_list(request: Request, ponder: Ponder, visitor: SignedIn, after: After = None) -> Response:
    batches = list_batches(ponder, visitor.viewed, limit=_ROWS, after=after)
    return render(request, "batches.html", visitor, batches=batches)
