"""Whatever a metadata service answers, asking it ends in time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from metadata_server import MetadataServer, drip, metadata_server, send

from ponder_worker.parent.notices.metadata_service import Answer, MetadataService, NoAnswer


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with metadata_server() as server:
        yield server


def _ask(url: str, within_s: float = 5.0, **more: Any) -> Answer:
    return asyncio.run(MetadataService(url).ask("GET", "/a", headers={}, within_s=within_s, **more))


def test_an_answer_comes_with_its_status_its_headers_and_its_text(server: MetadataServer) -> None:
    server.instead = lambda handler: send(handler, (404, {"ETag": "e"}, b" none\n"))

    answer = _ask(server.url, params={"b": "c d"})

    assert (answer.status, answer.headers["etag"], answer.text) == (404, "e", "none")
    assert server.requests == [("GET", "/a?b=c+d")]


def test_a_redirect_is_not_followed_and_no_proxy_is_asked(
    server: MetadataServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.instead = lambda handler: send(handler, (302, {"Location": server.url + "/elsewhere"}, b""))

    assert _ask(server.url).status == 302
    assert len(server.requests) == 1


def test_an_endless_answer_and_one_that_never_comes_end_in_time(server: MetadataServer) -> None:
    for behave in (drip, lambda handler: time.sleep(5) is None):
        server.instead = behave
        began_at = time.monotonic()
        with pytest.raises(NoAnswer, match=r"within 0\.3 s"):
            _ask(server.url, within_s=0.3)
        assert time.monotonic() - began_at < 2


def test_a_huge_answer_is_not_read_to_its_end(server: MetadataServer) -> None:
    server.instead = lambda handler: send(handler, (200, {}, bytes(64 * 1024 * 1024)))

    with pytest.raises(NoAnswer, match="longer"):
        _ask(server.url)


def test_what_is_no_http_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        async def ask() -> None:
            asked = asyncio.create_task(MetadataService(url).ask("GET", "/", headers={}, within_s=5))
            connection, _ = await asyncio.to_thread(listening.accept)
            with connection:
                connection.sendall(b"\x00\xffSSH-2.0\r\n\r\n")
                await asked

        with pytest.raises(NoAnswer, match="Protocol"):
            asyncio.run(ask())
    with pytest.raises(NoAnswer, match="Connect"):
        _ask(url)
