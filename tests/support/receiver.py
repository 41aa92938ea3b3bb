"""A receiver of webhooks on this machine that answers as it is told and verifies signatures by itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event = json.loads(self.body)
        assert isinstance(event, dict)
        return event

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def is_signed_with(self, secret: str) -> bool:
        """Verifies as the specification says, without ponder's code."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        assert 24 <= len(key) <= 64
        stamp = self.headers["webhook-timestamp"]
        assert abs(int(stamp) - time.time()) < 300
        content = f"{self.id}.{stamp}.".encode() + self.body
        right = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        return right in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """`answer` gets the handler of each request after it was recorded, and may answer anything."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: status(handler, 204)

    def wait(self, number: int, seconds: float = 20.0) -> list[Received]:
        give_up_at = time.monotonic() + seconds
        while len(self.received) < number:
            assert time.monotonic() < give_up_at, f"{len(self.received)} of {number} messages came"
            time.sleep(0.02)
        return self.received


def status(handler: BaseHTTPRequestHandler, code: int, **headers: str) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Listens on a free port of this machine, with `tls` by TLS. The URL says http all the same."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(Received(self.path, dict(self.headers.items()), body))
            receiver.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
