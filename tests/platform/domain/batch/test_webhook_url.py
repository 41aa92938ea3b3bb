from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ponder.domain.batch.webhook_url import WebhookUrl, is_public, refusal

_URL = TypeAdapter(WebhookUrl)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "198.18.0.1", "203.0.113.7"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::"),
        *("2001:db8::1", "2001::1", "2001:0:7f00:1::1"),
    ],
)
def test_an_address_outside_the_public_internet_is_recognised(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2001:4860:4860::8888", "2606:4700::1111", "172.15.0.1"])
def test_a_public_address_is_one(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("", "hook", "/hook", "ftp://example.com/", "file:///etc/passwd", "https://", "https:///x", "https://:80/"),
        *("https://user@example.com/", "https://user:pass@example.com/", "https://example.com/#x", "https://a b/"),
        *("https://example.com:99999/", "https://example.com:0/", "https://[::1", "https://exämple.com/"),
        *("https://example.com/\r\nHost: x", "https://example.com/" + "x" * 2_048, "javascript:alert(1)"),
    ],
)
def test_what_is_no_url_of_a_receiver_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        _URL.validate_python(url)


@pytest.mark.parametrize("url", ["https://example.com", "https://example.com:8443/a?b=c&d=%20", "http://[::1]:80/"])
def test_other_urls_are_taken_as_they_are(url: str) -> None:
    assert _URL.validate_python(url) == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/", "only https"),
        ("https://127.0.0.1/", "127.0.0.1 is not a public address"),
        ("https://[::1]/", "::1 is not a public address"),
        ("https://169.254.169.254/latest/meta-data", "169.254.169.254 is not a public address"),
    ],
)
def test_a_literal_private_address_and_plain_http_need_the_operators_leave(url: str, reason: str) -> None:
    assert reason in str(refusal(url, allows_private=False))
    assert refusal(url, allows_private=True) is None
    assert refusal("https://example.com/", allows_private=False) is None
