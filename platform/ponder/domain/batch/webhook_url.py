"""The URL that a webhook goes to, and the addresses that none goes to."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

_MOST_CHARACTERS = 2_048

# Python 3.11 takes these for public. The single address is the one where Azure serves its machines' metadata.
_SPECIAL_V4 = tuple(map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
_UNICAST_V6 = IPv6Network("2000::/3")
# Parts of it that are not public, or that are translated to IPv4 addresses.
_SPECIAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


def is_public(address: str) -> bool:
    """Returns whether an IP address is one of the public Internet.

    Loopback, private, link-local, shared, multicast and reserved addresses are not, and none of those that clouds serve
    metadata at. Neither are IPv6 addresses that stand for IPv4 ones.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return ip.is_global and not ip.is_multicast and not any(ip in network for network in _SPECIAL_V4)
    return ip in _UNICAST_V6 and not any(ip in network for network in _SPECIAL_V6)


def refusal(url: str, *, allows_private: bool) -> str | None:
    """Returns why no webhook goes to a URL, as far as it shows without asking a name server. None: it may."""
    if allows_private:
        return None
    parts = urlsplit(url)
    if parts.scheme != "https":
        return "only https is allowed here (the operator's PONDER_WEBHOOK_PRIVATE)"
    address = _address(parts)
    if address is not None and not is_public(str(address)):
        return f"{address} is not a public address (the operator's PONDER_WEBHOOK_PRIVATE)"
    return None


def _address(parts: SplitResult) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(parts.hostname or "")
    except ValueError:
        return None


def _checked(url: str) -> str:
    fault = _fault(url)
    if fault is not None:
        raise PydanticCustomError("webhook_url", "{fault}: give one such as https://example.com/hook", {"fault": fault})
    return url


def _fault(url: str) -> str | None:
    if not url.isascii() or not url.isprintable() or " " in url:
        return "the URL has a space or a character that is not ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "this is not a URL"
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        return "this is not an http(s) URL"
    if parts.username is not None or parts.password is not None:
        return "the URL must not name a user: requests are signed"
    return "the URL must not have a fragment" if parts.fragment else None


WebhookUrl = Annotated[str, Field(max_length=_MOST_CHARACTERS), AfterValidator(_checked)]
