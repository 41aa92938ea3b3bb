"""The page of settings: keys, budgets, retention, the webhook, prices, and for operators the tenants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Form, Query, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from ponder.api.page import After
from ponder.api.routes import budgets, keys, prices, prunes, tenants, webhook
from ponder.api.services import Ponder, Services
from ponder.console.rendering import render
from ponder.console.session import Changing, SignedIn, Visitor
from ponder.console.spec_form import number, seconds_of_days
from ponder.domain.batch.refusal import explain
from ponder.domain.budget import RenewingBudget
from ponder.domain.role import Role
from ponder.domain.storable import JsonObject
from ponder.errors import Forbidden, InvalidInput

router = APIRouter()

_NUM_KEYS = 50
_NUM_BUDGETS = 20
"""Keys whose budgets are shown."""
_NUM_TENANTS = 100

_Body = TypeVar("_Body", bound=BaseModel)
Text = Annotated[str, Form(max_length=2_000)]
Id = Annotated[str, Form(max_length=100)]


@router.get("/settings")
def settings_page(request: Request, ponder: Ponder, visitor: SignedIn, after: After = None) -> Response:
    values = _keys(ponder, visitor, after) | _budgets(ponder, visitor) | _retention(ponder, visitor)
    values |= _webhook(ponder, visitor) | _prices(ponder, visitor) | _tenants(ponder, visitor)
    return render(request, "settings.html", visitor, **_NOTHING_TOLD | values)


_NOTHING_TOLD: JsonObject = {
    "told": "",
    "new_key": None,
    "preview": None,
    "secret": None,
    "edited": None,
}


@router.post("/settings/keys")
def create_key(
    request: Request, ponder: Ponder, visitor: Changing, *, name: Text = "", role: Text = Role.SUBMIT, tenant: Text = ""
) -> Response:
    """Makes a key, which the answer shows once."""
    values = {"name": name.strip(), "role": role} | ({"tenant": tenant.strip()} if tenant.strip() else {})
    try:
        made = keys.create_key(_read(keys.NewKey, values), ponder, visitor.viewed)
    except InvalidInput as error:
        return _refusal(request, visitor, "keys", error)
    return _section(request, visitor, "keys", _keys(ponder, visitor), new_key=made)


@router.post("/settings/keys/revoke")
def revoke_key(request: Request, ponder: Ponder, visitor: Changing, key: Id) -> Response:
    keys.revoke_key(key, ponder, visitor.viewed)
    return _section(request, visitor, "keys", _keys(ponder, visitor), told="The key is revoked.")


@router.post("/settings/budgets")
def change_budget(
    request: Request,
    ponder: Ponder,
    visitor: Changing,
    *,
    owner: Id,
    dollars_per_day: Text = "",
    tokens_per_day: Text = "",
    dollars_per_month: Text = "",
    tokens_per_month: Text = "",
) -> Response:
    """Sets what a key or tenant may spend. An empty field is no limit."""
    _check_operator(visitor)
    given = {
        "dollars_per_day": dollars_per_day,
        "tokens_per_day": tokens_per_day,
        "dollars_per_month": dollars_per_month,
        "tokens_per_month": tokens_per_month,
    }
    try:
        body = _read(
            RenewingBudget, {name: number(text, name) if text.strip() else None for name, text in given.items()}
        )
        change = budgets.change_key_budget if owner.startswith("key_") else budgets.change_tenant_budget
        changed = change(owner, body, ponder, visitor.own)
    except InvalidInput as error:
        is_here = owner.startswith("key_") or owner == visitor.viewed.tenant_id
        return _refusal(request, visitor, "budgets" if is_here else "tenants", error)
    told = "The budget is set."
    if changed["tenant"] != visitor.viewed.tenant_id:
        edited = _edited(ponder, visitor, changed["tenant"])
        return _section(request, visitor, "tenants", _tenants(ponder, visitor), told=told, edited=edited)
    return _section(request, visitor, "budgets", _budgets(ponder, visitor), told=told)


@router.post("/settings/retention")
def set_retention(request: Request, ponder: Ponder, visitor: Changing, tenant: Id, days: Text = "") -> Response:
    """Sets how long results of a tenant's new batches are kept. An empty field means for ever."""
    _check_operator(visitor)
    is_own = tenant == visitor.viewed.tenant_id
    try:
        expiry = {"anchor": "created_at", "seconds": seconds_of_days(days, "days")} if days.strip() else None
        tenants.set_retention(tenant, _read(tenants.Retention, {"output_expires_after": expiry}), ponder, visitor.own)
    except InvalidInput as error:
        return _refusal(request, visitor, "retention" if is_own else "tenants", error)
    told = "New batches keep their results this long."
    if is_own:
        return _section(request, visitor, "retention", _retention(ponder, visitor), told=told)
    edited = _edited(ponder, visitor, tenant)
    return _section(request, visitor, "tenants", _tenants(ponder, visitor), edited=edited, told=told)


@router.post("/settings/prune")
def prune(
    request: Request, ponder: Ponder, visitor: Changing, older_than_days: Text = "", confirmed: Text = ""
) -> Response:
    """Shows what would be discarded, or with `confirmed` discards it."""
    try:
        older_than_s = seconds_of_days(older_than_days, "older_than_days") if older_than_days.strip() else None
        body = _read(prunes.Prune, {"dry_run": not confirmed, "older_than_s": older_than_s})
        found = prunes.prune(body, ponder, visitor.viewed)
    except InvalidInput as error:
        return _refusal(request, visitor, "retention", error)
    found |= {"older_than_days": older_than_days.strip()}
    return _section(request, visitor, "retention", _retention(ponder, visitor), preview=found)


@router.post("/settings/webhook")
def set_webhook(request: Request, ponder: Ponder, visitor: Changing, url: Text = "") -> Response:
    """Sets where events go, or with an empty field nowhere."""
    try:
        made = webhook.set_webhook(_read(webhook.NewUrl, {"url": url.strip() or None}), ponder, visitor.viewed)
    except InvalidInput as error:
        return _refusal(request, visitor, "webhook", error)
    told = "The webhook is set." if made["url"] else "The webhook is off."
    return _section(request, visitor, "webhook", _webhook(ponder, visitor), told=told, secret=made.get("secret"))


@router.post("/settings/webhook/secret")
def new_secret(request: Request, ponder: Ponder, visitor: Changing) -> Response:
    made = webhook.new_secret(ponder, visitor.viewed)
    return _section(request, visitor, "webhook", _webhook(ponder, visitor), secret=made["secret"])


@router.post("/settings/prices")
def put_price(
    request: Request,
    ponder: Ponder,
    visitor: Changing,
    *,
    machine: Text = "",
    market: Text = "",
    dollars_per_hour: Text = "",
    source: Text = "",
    billed_by: Text = "second",
    minimum_s: Text = "",
    region: Text = "",
) -> Response:
    """Adds a price from now on."""
    _check_operator(visitor)
    values: JsonObject = {
        "machine": machine.strip(),
        "market": market,
        "dollars_per_hour": dollars_per_hour.strip(),
        "source": source.strip(),
        "billed_by": billed_by,
        "region": region.strip() or None,
    }
    try:
        values["minimum_s"] = number(minimum_s, "minimum_s") if minimum_s.strip() else 0
        prices.put_price(_read(prices.NewPrice, values), ponder, visitor.own)
    except InvalidInput as error:
        return _refusal(request, visitor, "prices", error)
    return _section(request, visitor, "prices", _prices(ponder, visitor), told="The price holds from now on.")


@router.post("/settings/tenants")
def create_tenant(
    request: Request, ponder: Ponder, visitor: Changing, name: Text = "", quota_tokens: Text = ""
) -> Response:
    _check_operator(visitor)
    try:
        body = _read(tenants.NewTenant, {"name": name.strip()} | _quota(quota_tokens))
        made = tenants.create_tenant(body, ponder, visitor.own)
    except InvalidInput as error:
        return _refusal(request, visitor, "tenants", error)
    told, edited = "The tenant has been created. Create a key for it above.", _edited(ponder, visitor, made["id"])
    return _section(request, visitor, "tenants", _tenants(ponder, visitor), told=told, edited=edited)


@router.get("/settings/tenants")
def edit_tenant(
    request: Request, ponder: Ponder, visitor: SignedIn, tenant: Annotated[str, Query(max_length=100)]
) -> Response:
    """Shows a tenant's quota, retention and budget to an operator."""
    _check_operator(visitor)
    return _section(request, visitor, "tenants", _tenants(ponder, visitor), edited=_edited(ponder, visitor, tenant))


@router.post("/settings/tenants/quota")
def set_quota(request: Request, ponder: Ponder, visitor: Changing, tenant: Id, quota_tokens: Text = "") -> Response:
    """Sets the tokens that a tenant may have in flight. An empty field is no limit."""
    _check_operator(visitor)
    try:
        tenants.set_quota(tenant, _read(tenants.Quota, _quota(quota_tokens)), ponder, visitor.own)
    except InvalidInput as error:
        return _refusal(request, visitor, "tenants", error)
    edited = _edited(ponder, visitor, tenant)
    return _section(request, visitor, "tenants", _tenants(ponder, visitor), edited=edited, told="The quota is set.")


def _check_operator(visitor: Visitor) -> None:
    if not visitor.own.is_operator:
        raise Forbidden("this needs an operator's key")


def _read(body: type[_Body], values: Mapping[str, Any]) -> _Body:
    """Reads a form as the API reads the body of a request. Raises InvalidInput."""
    try:
        return body.model_validate(values)
    except ValidationError as error:
        raise explain(error) from None


def _quota(written_tokens: str) -> JsonObject:
    return {"quota_tokens": number(written_tokens, "quota_tokens") if written_tokens.strip() else None}


def _section(request: Request, visitor: Visitor, name: str, values: JsonObject, **told: Any) -> Response:
    return render(request, f"settings/{name}.html", visitor, **_NOTHING_TOLD | values | told)


def _refusal(request: Request, visitor: Visitor, name: str, error: InvalidInput) -> Response:
    """Says what is wrong above a section, whose forms stay as they were filled in."""
    page = render(request, "parts/told.html", visitor, told="", problem=error.message)
    page.headers.update({"HX-Retarget": f"#{name}-told", "HX-Reswap": "innerHTML"})
    return page


def _keys(ponder: Services, visitor: Visitor, after: str | None = None) -> JsonObject:
    page = keys.list_keys(ponder, visitor.viewed, _NUM_KEYS, after)
    roles = [role.value for role in Role if visitor.own.is_operator or role is not Role.OPERATOR]
    return {"keys": page, "roles": roles}


def _budgets(ponder: Services, visitor: Visitor) -> JsonObject:
    tenant_id = visitor.viewed.tenant_id
    own = [
        key
        for key in keys.list_keys(ponder, visitor.viewed, _NUM_KEYS, None)["data"]
        if key["tenant"] == tenant_id and key["revoked_at"] is None
    ]
    of_keys = [(key, budgets.key_budget(key["id"], ponder, visitor.viewed)) for key in own[:_NUM_BUDGETS]]
    return {"tenant_budget": budgets.tenant_budget(tenant_id, ponder, visitor.viewed), "key_budgets": of_keys}


def _retention(ponder: Services, visitor: Visitor) -> JsonObject:
    return {"tenant": tenants.get_tenant(visitor.viewed.tenant_id, ponder, visitor.viewed)}


def _webhook(ponder: Services, visitor: Visitor) -> JsonObject:
    return {"webhook": webhook.get_webhook(ponder, visitor.viewed)}


def _prices(ponder: Services, visitor: Visitor) -> JsonObject:
    return {"prices": prices.get_prices(ponder, visitor.viewed)["data"]}


def _tenants(ponder: Services, visitor: Visitor) -> JsonObject:
    if not visitor.own.is_operator:
        return {"tenants": None}
    return {"tenants": tenants.list_tenants(ponder, visitor.own, _NUM_TENANTS, None)}


def _edited(ponder: Services, visitor: Visitor, tenant_id: str) -> JsonObject:
    """Returns a tenant with its budget, for an operator's form."""
    found = tenants.get_tenant(tenant_id, ponder, visitor.own)
    return found | {"budget": budgets.tenant_budget(tenant_id, ponder, visitor.own)}
