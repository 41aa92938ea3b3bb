"""The connection of a webhook goes to the address that was checked, with the certificate of the name."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver, receiving

from ponder.jobs.webhooks.sender import Sender, Undelivered

HIDDEN = "the URL's host has no address that webhooks may go to"


class Names:
    """Name servers that answer each question with the next of some addresses."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.answers.pop(0)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def post(url: str, *, allows_private: bool = True, tls: ssl.SSLContext | None = None) -> None:
    with ThreadPoolExecutor(1) as resolver:
        sender = Sender(tls or ssl.create_default_context(), resolver, allows_private, timeout_s=5)
        asyncio.run(sender.post(url, b"{}", {"webhook-id": "msg_1"}))


def named(receiver: Receiver, host: str) -> str:
    return receiver.url.replace("127.0.0.1", host)


def test_a_name_is_asked_for_once_so_that_it_cannot_change_after_the_check(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    monkeypatch.setattr("ponder.jobs.webhooks.sender.socket.getaddrinfo", names)
    url = named(receiver, "rebinding.example")
    post(url)
    assert names.asked == ["rebinding.example"]
    (received,) = receiver.received
    assert received.headers["Host"] == url.split("/")[2]


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["169.254.169.254"], ["fd00:ec2::254"]])
def test_a_name_with_any_private_address_is_refused(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.jobs.webhooks.sender.socket.getaddrinfo", Names(addresses))
    with pytest.raises(Undelivered) as refused:
        post("https://inside.example/hook", allows_private=False)
    assert str(refused.value) == HIDDEN


@pytest.mark.parametrize("fault", [socket.gaierror(-2, "Name not known to 10.0.0.2"), UnicodeError("too long")])
def test_a_tenant_does_not_learn_what_the_operators_name_servers_say(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr("ponder.jobs.webhooks.sender.socket.getaddrinfo", fail)
    with pytest.raises(Undelivered) as refused:
        post("https://inside.example/hook", allows_private=False)
    assert str(refused.value) == HIDDEN


def test_the_next_address_is_tried_where_one_refuses_connections(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponder.jobs.webhooks.sender.socket.getaddrinfo", Names(["127.0.0.9", "127.0.0.1"]))
    post(named(receiver, "two.example"))
    assert len(receiver.received) == 1


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.0.0.1/", "https://[::ffff:127.0.0.1]/"])
def test_a_stored_url_is_checked_again(url: str) -> None:
    with pytest.raises(Undelivered, match="PONDER_WEBHOOK_PRIVATE"):
        post(url, allows_private=False)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1"])
def test_other_spellings_of_a_private_address_are_found_out(host: str) -> None:
    with pytest.raises(Undelivered):
        post(f"https://{host}/", allows_private=False)


def test_an_unknown_name_and_a_closed_port_are_errors_of_the_attempt(free_port: int) -> None:
    for url in ("https://nothing.invalid/", f"http://127.0.0.1:{free_port}/"):
        with pytest.raises(Undelivered):
            post(url)


def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    post(receiver.url)
    assert len(receiver.received) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_the_certificate_must_be_that_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hook.example"]
    names = ["-addext", "subjectAltName=DNS:hook.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names], check=True, capture_output=True)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("ponder.jobs.webhooks.sender.socket.getaddrinfo", Names(*[["127.0.0.1"]] * 3))
    with receiving(tls=server_side) as receiver:
        url = receiver.url.replace("http:", "https:")
        post(url.replace("127.0.0.1", "hook.example"), tls=trusting)
        assert len(receiver.received) == 1
        for host, context in {"other.example": trusting, "hook.example": ssl.create_default_context()}.items():
            with pytest.raises(Undelivered, match="certificate verify failed"):
                post(url.replace("127.0.0.1", host), tls=context)
        assert len(receiver.received) == 1
