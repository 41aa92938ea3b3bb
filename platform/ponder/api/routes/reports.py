"""The routes of /v1/reports."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from ponder.api.auth import Tenant, chosen_tenant
from ponder.api.services import Ponder, Services, identifier
from ponder.domain.dimension import KNOWN, read_dimensions, read_filter, read_moment
from ponder.domain.money import NANODOLLARS, nanodollars
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput, NotFound
from ponder.ledger.cost_report import CostRow, cost_report, unassigned
from ponder.ledger.interval import CONFIDENCE, Comparison, Interval, compare
from ponder.ledger.pairing import pair
from ponder.ledger.price_book import Billing
from ponder.ledger.reporting import LATENCY, QUALITY, Report, Selection, report, waste_report
from ponder.ledger.what_if import MachinePrices, TokenPrices, what_if

router = APIRouter(prefix="/v1/reports", tags=["reports"])

_MILLION = 1_000_000
_Text = Annotated[str | None, Query(max_length=100)]
_Dollars = Annotated[str | None, Query(pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$")]


def read_selection(
    *,
    caller: Tenant,
    by: Annotated[str, Query(max_length=500, description=f"dimensions, separated by commas: {KNOWN}")] = "",
    batch_id: Annotated[list[str] | None, Query(max_length=1_000)] = None,
    tenant: Annotated[str | None, Query(max_length=100, description="for operators: another tenant or `all`")] = None,
    since: Annotated[str | None, Query(max_length=40, description="an ISO date or time, UTC by default")] = None,
    until: Annotated[str | None, Query(max_length=40, description="the same; itself not included")] = None,
) -> Selection:
    """Reads what every report takes. Raises InvalidInput, and Forbidden for another tenant."""
    return Selection(
        by=read_dimensions(by),
        tenant_id=chosen_tenant(tenant, caller),
        batch_ids=None if batch_id is None else tuple(identifier(one, "batch") for one in batch_id),
        since=read_moment(since, "since"),
        until=read_moment(until, "until"),
    )


Selected = Annotated[Selection, Depends(read_selection)]


@router.get("/cost")
def cost(ponder: Ponder, caller: Tenant, selection: Selected) -> JsonObject:
    """Reports the cost of tasks by group, in nano-dollars, with the 95 % interval of the cost per successful task.

    For an operator who names no batch and no time, `unassigned_nanodollars` is the overhead that no job bears.
    """
    is_whole = selection.batch_ids is None and selection.since is None and selection.until is None
    with ponder.engine.connect() as connection:
        rows = cost_report(connection, selection)
        rest = unassigned(connection) if caller.is_operator and is_whole else None
    return _list(selection, [_cost(row) for row in rows]) | {"unassigned_nanodollars": rest}


@router.get("/cost/comparison")
def cost_comparison(
    ponder: Ponder,
    selection: Selected,
    a: Annotated[str, Query(max_length=500, description="DIMENSION=VALUE,… or the id of a batch")],
    b: Annotated[str, Query(max_length=500, description="the same")],
) -> JsonObject:
    """Compares the cost per successful task of two sets of jobs: A's divided by B's, with its 95 % interval.

    Problems that both answered are paired.
    """
    one, other = (replace(selection, by=(), where=read_filter(side, name)) for name, side in (("a", a), ("b", b)))
    return compare_costs(ponder, one, other)


def compare_costs(ponder: Services, one: Selection, other: Selection) -> JsonObject:
    """Compares two selections without groups. Raises NotFound where one of them chooses no job."""
    with ponder.engine.connect() as connection:
        first, second = cost_report(connection, one), cost_report(connection, other)
        pairing = pair(connection, one, other) if first and second else None
    for param, rows in (("a", first), ("b", second)):
        if not rows:
            raise NotFound(f"{param}: there is no such job", param=param)
    compared = compare(first[0].sums, second[0].sums, None if pairing is None else pairing.variance)
    return {
        "object": "cost_comparison",
        "a": _cost(first[0]),
        "b": _cost(second[0]),
        **_comparison(compared),
        "paired_by": None if pairing is None else pairing.by,
        "paired_problems": 0 if pairing is None else pairing.num_paired,
    }


@router.get("/waste")
def waste(ponder: Ponder, selection: Selected) -> JsonObject:
    """Reports where the money went, by group and kind. `chosen` ended in an answer; everything else is waste."""
    with ponder.engine.connect() as connection:
        rows = waste_report(connection, selection)
    return _list(
        selection,
        [{**row.group, "kind": row.kind, "nanodollars": row.nanodollars, "share": row.share} for row in rows],
    )


@router.get("/latency")
def latency(ponder: Ponder, selection: Selected) -> JsonObject:
    """Reports p50, p95 and p99 of the seconds that settled jobs took."""
    return _measured(ponder, LATENCY, selection)


@router.get("/quality")
def quality(ponder: Ponder, selection: Selected) -> JsonObject:
    """Reports verdicts, rates of failures, retries and time-outs, and tokens a job, of ended jobs."""
    return _measured(ponder, QUALITY, selection)


def read_prices(
    *,
    machine: _Text = None,
    market: Annotated[Literal["on_demand", "spot"] | None, Query()] = None,
    dollars_per_hour: _Dollars = None,
    speed: Annotated[str, Query(pattern=r"^(measured|[0-9]{1,6}(\.[0-9]{1,6})?)$")] = "1",
    billed_by: Annotated[Literal["second", "minute", "hour"] | None, Query()] = None,
    minimum_s: Annotated[int, Query(ge=0, le=31_622_400)] = 0,
    input_dollars: _Dollars = None,
    output_dollars: _Dollars = None,
    cached_dollars: _Dollars = None,
) -> MachinePrices | TokenPrices:
    """Reads other prices, of machines or of tokens. Raises InvalidInput without any, or with both."""
    tokens = _token_prices(input_dollars, output_dollars, cached_dollars)
    if speed != "measured" and not Fraction(speed):
        raise InvalidInput("speed must be more than 0, or measured", param="speed", code="invalid_value")
    machines = MachinePrices(
        machine=machine,
        market=market,
        nanodollars_per_hour=None if dollars_per_hour is None else nanodollars(dollars_per_hour),
        speed="measured" if speed == "measured" else Fraction(speed),
        billing=Billing(billed_by or "second", minimum_s) if billed_by or minimum_s else None,
    )
    if (tokens is not None) == (machines != MachinePrices()):
        raise InvalidInput(
            "name another machine, market, price, speed or billing, or else prices of tokens",
            param="output_dollars" if tokens else "machine",
            code="invalid_value",
        )
    return tokens or machines


OtherPrices = Annotated[MachinePrices | TokenPrices, Depends(read_prices)]


@router.get("/what-if")
def what_if_report(ponder: Ponder, selection: Selected, prices: OtherPrices) -> JsonObject:
    """Reports what the same work would have cost on another machine or market, billed otherwise, or by the token.

    `input_dollars`, `output_dollars` and `cached_dollars` are for a million tokens.
    """
    with ponder.engine.connect() as connection:
        rows = what_if(connection, selection, prices)
    return _list(
        selection,
        [
            {
                **row.group,
                "settled": row.num_settled,
                "passed": row.num_passed,
                "nanodollars": row.nanodollars,
                "other_nanodollars": row.other_nanodollars,
                "ratio": row.ratio,
                "cost_per_successful_task": row.cost_per_success,
                "other_cost_per_successful_task": row.other_cost_per_success,
                "by_judge": row.num_by_judge,
                "passed_by_judge": row.num_passed_by_judge,
            }
            for row in rows
        ],
    )


def _measured(ponder: Ponder, wanted: Report, selection: Selection) -> JsonObject:
    with ponder.engine.connect() as connection:
        rows = report(connection, wanted, selection)
    return _list(selection, [{**row.group, **row.numbers} for row in rows])


def _list(selection: Selection, rows: list[JsonObject]) -> JsonObject:
    return {"object": "list", "by": list(selection.by), "data": rows}


def _token_prices(input_: str | None, output: str | None, cached: str | None) -> TokenPrices | None:
    """Returns the price list; a cached token costs what any other of the prompt does unless the list says."""
    if input_ is None and output is None and cached is None:
        return None
    if input_ is None or output is None:
        missing = "input_dollars" if input_ is None else "output_dollars"
        raise InvalidInput(f"{missing} is missing", param=missing, code="missing_required_parameter")
    per_token = Fraction(NANODOLLARS, _MILLION)
    return TokenPrices(*(Fraction(price) * per_token for price in (input_, output, cached or input_)))


def _cost(row: CostRow) -> JsonObject:
    return {
        **row.group,
        "jobs": row.num_jobs,
        "settled": row.num_settled,
        "passed": row.num_passed,
        "accuracy": row.accuracy,
        **_ends("accuracy", row.accuracy_interval),
        "completion_tokens": row.completion_tokens,
        "tokens_per_job": row.tokens_per_job,
        "direct_nanodollars": row.direct_nanodollars,
        "loaded_nanodollars": row.loaded_nanodollars,
        "cost_per_job": row.nanodollars_per_job,
        "cost_per_successful_task": row.cost_per_successful_task,
        **_ends("cost_per_successful_task", row.interval),
        "oracle": row.num_oracle,
        "by_judge": row.num_by_judge,
        "passed_by_judge": row.num_passed_by_judge,
        "compared": row.num_compared,
        "agreement": row.agreement,
    }


def _comparison(compared: Comparison) -> JsonObject:
    return {
        "ratio": compared.ratio,
        **_ends("ratio", compared.interval),
        "p_value": compared.p_value,
        "confidence": CONFIDENCE,
        "may_be_chance": compared.may_be_chance,
    }


def _ends(name: str, interval: Interval | None) -> JsonObject:
    return {f"{name}_low": interval and interval.low, f"{name}_high": interval and interval.high}
