"""The routes of /v1/prices, the price book."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import Field

from ponder.api.auth import Operator, Tenant
from ponder.api.services import Ponder, unix
from ponder.domain.batch.submission import StorableBody
from ponder.domain.money import NANODOLLARS, nanodollars
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput
from ponder.ledger.price_book import Billing, Price, list_prices, set_price

router = APIRouter(prefix="/v1/prices", tags=["administration"])

_CLOCK_DIFFERENCE_S = 60
"""A caller's clock may be this much behind."""


class NewPrice(StorableBody):
    """A price for incarnations that begin from `valid_from` (Unix seconds, by default now) on."""

    machine: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")
    market: Literal["on_demand", "spot"]
    dollars_per_hour: Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$")]
    source: str = Field(min_length=1, max_length=500)
    valid_from: int | None = Field(default=None, ge=0, le=253_402_300_799)
    billed_by: Literal["second", "minute", "hour"] = "second"
    minimum_s: int = Field(default=0, ge=0, le=31_622_400)
    region: str | None = Field(default=None, min_length=1, max_length=100)
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")


@router.get("")
def get_prices(ponder: Ponder, _caller: Tenant, history: bool = False) -> JsonObject:
    """Lists the prices in force, or with `history` every entry."""
    with ponder.engine.connect() as connection:
        return {"object": "list", "data": [_object(price) for price in list_prices(connection, history=history)]}


@router.put("")
def put_price(body: NewPrice, ponder: Ponder, _caller: Operator) -> JsonObject:
    if body.valid_from is not None and body.valid_from < time.time() - _CLOCK_DIFFERENCE_S:
        raise InvalidInput("a price cannot begin in the past", param="valid_from", code="invalid_value")
    with ponder.engine.begin() as connection:
        price = set_price(
            connection,
            body.machine,
            body.market,
            nanodollars(body.dollars_per_hour),
            source=body.source,
            valid_from=None if body.valid_from is None else datetime.fromtimestamp(body.valid_from, UTC),
            billing=Billing(body.billed_by, body.minimum_s),
            region=body.region,
            currency=body.currency,
        )
        return _object(price)


def _object(price: Price) -> JsonObject:
    return {
        "object": "price",
        "machine": price.machine,
        "market": price.market,
        "dollars_per_hour": f"{(Decimal(price.nanodollars_per_hour) / NANODOLLARS).normalize():f}",
        "nanodollars_per_hour": price.nanodollars_per_hour,
        "valid_from": unix(price.valid_from),
        "source": price.source,
        "billed_by": price.billed_by,
        "minimum_s": price.minimum_s,
        "region": price.region,
        "currency": price.currency,
    }
