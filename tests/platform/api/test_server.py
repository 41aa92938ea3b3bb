"""Every answer is hardened; clients that only hold connections open lose them, and others are still served."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from ponder.api.limit import MAX_BODY_BYTES
from ponder.api.server import PROGRESS_BYTES, server_config
from ponder.settings import Settings

PATIENCE_S = 1.0


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body (but not at /unread), works for the query's seconds, and answers at length at /long."""
    assert scope["type"] == "http"
    num_bytes, more = 0, scope["path"] != "/unread"
    while more:
        message = await receive()
        num_bytes += len(message.get("body", b""))
        more = message.get("more_body", False)
    await asyncio.sleep(float(scope["query_string"] or 0))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(200 if scope["path"] == "/long" else 0):
        await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
    await send({"type": "http.response.body", "body": str(num_bytes).encode()})


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """Serves `app` and returns its port."""
    with ExitStack() as stack:

        def start(max_connections: int = 100) -> int:
            settings = Settings(max_connections=max_connections, client_timeout_s=PATIENCE_S)
            server = uvicorn.Server(server_config(app, settings, host="127.0.0.1", port=0))
            thread = threading.Thread(target=server.run)
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            return int(server.servers[0].sockets[0].getsockname()[1])

        yield start


def closed_after(connection: socket.socket, drip: bytes = b"", *, within_s: float = 8.0) -> float | None:
    """Seconds until the server closes a connection on which `drip` is sent every tenth of a second."""
    began = time.monotonic()
    connection.settimeout(0.1)
    while (passed_s := time.monotonic() - began) < within_s:
        try:
            if drip:
                connection.sendall(drip)
            if not connection.recv(1 << 16):
                return passed_s
        except TimeoutError:
            continue
        except ConnectionError:
            return passed_s
    return None


@pytest.mark.parametrize(
    ("said", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"x"),
        (b"GET /first HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nX: ", b"x"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n", b"x"),
        (b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["nothing", "headers", "headers of a second request", "a body", "a body that nobody reads", "chunks"],
)
def test_a_request_that_is_never_finished_ends_its_connection(
    serve: Callable[..., int], said: bytes, drip: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", serve())) as connection:
        connection.sendall(said)
        ended = closed_after(connection, drip)
    assert ended is not None
    assert ended > PATIENCE_S * 0.9


def test_an_answer_that_nobody_reads_ends_its_connection(serve: Callable[..., int]) -> None:
    with socket.create_connection(("127.0.0.1", serve())) as connection:
        connection.sendall(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(PATIENCE_S + 2)
        num_bytes = 0
        try:
            while piece := connection.recv(1 << 20):
                num_bytes += len(piece)
        except ConnectionError:
            pass
    assert num_bytes < 200 << 16


def test_a_long_body_a_slow_answer_and_a_slow_reader_are_waited_for(serve: Callable[..., int]) -> None:
    port = serve()

    def pieces() -> Iterator[bytes]:
        for _ in range(6):
            time.sleep(PATIENCE_S / 3)  # together twice as long as it waits for nothing
            yield bytes(PROGRESS_BYTES)

    assert httpx2.post(f"http://127.0.0.1:{port}/", content=pieces()).text == str(6 * PROGRESS_BYTES)
    assert httpx2.get(f"http://127.0.0.1:{port}/?{PATIENCE_S * 3}", timeout=20).text == "0"
    with httpx2.stream("GET", f"http://127.0.0.1:{port}/long", timeout=20) as answer:
        num_bytes = 0
        for number, piece in enumerate(answer.iter_raw(1 << 20)):
            num_bytes += len(piece)
            time.sleep(PATIENCE_S / 3 if number < 6 else 0)
    assert num_bytes == (200 << 16) + 1


def test_a_full_server_closes_an_idle_connection_for_a_new_request(serve: Callable[..., int]) -> None:
    port = serve(max_connections=5)
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(5)]
        for connection in idle:
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert httpx2.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S / 2).text == "0"
        assert closed_after(idle[0], within_s=PATIENCE_S / 4) is not None


def test_a_server_that_is_working_for_all_its_connections_refuses_another(serve: Callable[..., int]) -> None:
    port = serve(max_connections=3)
    with ExitStack() as stack:
        busy = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
        for connection in busy:
            connection.sendall(b"GET /?2 HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(0.2)
        answer = httpx2.get(f"http://127.0.0.1:{port}/")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["error"]["code"] == "too_many_connections"
        assert "PONDER_MAX_CONNECTIONS" in answer.json()["error"]["message"]
        for connection in busy:
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.system
def test_more_connections_than_open_files_neither_lock_others_out_nor_fill_the_log(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PONDER_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "PONDER_PORT": str(port)}
    log = tmp_path / "serve.log"
    with log.open("wb") as output, ExitStack() as stack:
        process = subprocess.Popen(
            ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", sys.executable, "-m", "ponder.cli", "serve"],
            env=environment,
            stderr=output,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        url = f"http://127.0.0.1:{port}/healthz"
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(httpx2.TransportError):
                httpx2.get(url)
                break
            time.sleep(0.2)
        for _ in range(400):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            with suppress(ConnectionError):
                connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(3):
            assert httpx2.get(url, timeout=5).json() == {"status": "ok"}
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            with suppress(ConnectionError):
                connection.sendall(b"\0\r\n\r\n")
        assert httpx2.get(url, timeout=5).json() == {"status": "ok"}
    assert log.stat().st_size < 20_000


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/v1/batches/", "/v1/files/", "/v1/keys/", "/healthz/", "//v1/batches"])
def test_a_path_with_an_extra_slash_is_not_found(http: httpx2.Client, method: str, path: str) -> None:
    answer = http.request(method, path, headers={"Host": "evil.example"})
    assert answer.status_code == 404
    assert "evil.example" not in str(answer.headers)
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/batch_00"),
        ("PATCH", "/v1/batches"),
        ("GET", "/nowhere"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ],
)
def test_every_answer_has_headers_that_keep_browsers_from_rendering_or_storing_it(
    http: httpx2.Client, method: str, path: str
) -> None:
    headers = http.request(method, path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_a_refusal_that_reaches_no_route_has_these_headers_too(http: httpx2.Client) -> None:
    answer = http.post("/v1/keys", content=b"x" * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.headers["X-Content-Type-Options"]) == (413, "nosniff")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
def test_no_page_loads_scripts_from_elsewhere(http: httpx2.Client, path: str) -> None:
    assert http.get(path).status_code == 404
