"""A metadata service on this machine that answers as the clouds' documentation says, or as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Reply = tuple[int, Mapping[str, str], bytes]

NOTHING: Reply = (404, {"Content-Type": "text/html"}, b"<html>404 - Not Found</html>")


def ahead(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


class Ec2:
    """Tokens by PUT; without a valid one, 401; and 404 where there is no notice."""

    def __init__(self) -> None:
        self.documents: dict[str, str] = {"instance-id": "i-0123456789abcdef0"}
        self.num_tokens = 0
        self.oldest_valid = 1

    def preempt(self, seconds: float) -> None:
        at = f"{ahead(seconds):%Y-%m-%dT%H:%M:%SZ}"
        self.documents["spot/instance-action"] = json.dumps({"action": "terminate", "time": at})

    def recommend(self, seconds: float = 0) -> None:
        at = f"{ahead(seconds):%Y-%m-%dT%H:%M:%SZ}"
        self.documents["events/recommendations/rebalance"] = json.dumps({"noticeTime": at})

    def expire_tokens(self) -> None:
        self.oldest_valid = self.num_tokens + 1

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Any, body: bytes) -> Reply:
        if (method, path) == ("PUT", "/latest/api/token"):
            if not 1 <= int(headers.get("X-aws-ec2-metadata-token-ttl-seconds", "0")) <= 21_600:
                return 400, {}, b""
            self.num_tokens += 1
            return 200, {"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": "21600"}, f"token-{self.num_tokens}==".encode()
        token = headers.get("X-aws-ec2-metadata-token", "token-0==")
        if int(token.removeprefix("token-").removesuffix("==")) < self.oldest_valid:
            return 401, {}, b""
        found = self.documents.get(path.removeprefix("/latest/meta-data/"))
        return NOTHING if found is None else (200, {"Content-Type": "text/plain"}, found.encode())


class ComputeEngine:
    """Values with an ETag; a request to wait is held until its value differs from that of `last_etag`."""

    def __init__(self, longest_wait_s: float = 10.0) -> None:
        self.values = {"id": "12345", "preempted": "FALSE", "maintenance-event": "NONE"}
        self._longest_wait_s = longest_wait_s
        self._changed = threading.Condition()

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self.values[key] = value
            self._changed.notify_all()

    def preempt(self, seconds: float) -> None:
        self.set("preempted", "TRUE")

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Any, body: bytes) -> Reply:
        if headers.get("Metadata-Flavor") != "Google":
            return 403, {"Metadata-Flavor": "Google"}, b"missing Metadata-Flavor"
        key = path.removeprefix("/computeMetadata/v1/instance/")
        if key not in self.values:
            return NOTHING
        with self._changed:
            if query.get("wait_for_change") == "true":
                wait_s = min(float(query["timeout_sec"]), self._longest_wait_s)
                self._changed.wait_for(lambda: self._etag(key) != query["last_etag"], wait_s)
            return 200, {"Metadata-Flavor": "Google", "ETag": self._etag(key)}, self.values[key].encode()

    def _etag(self, key: str) -> str:
        return f"{key}-{self.values[key]}".lower()


class AzureMachine:
    """Scheduled events of this machine and of others; 400 without the header or a version."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.started: list[str] = []
        """The events that were acknowledged."""

    def preempt(self, seconds: float) -> None:
        self.schedule("Preempt", seconds)

    def schedule(self, kind: str, seconds: float, *, machine: str = "WestNO_0", status: str = "Scheduled") -> None:
        self.events.append(
            {
                "EventId": f"event-{len(self.events)}",
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": [machine],
                "EventStatus": status,
                "NotBefore": format_datetime(ahead(seconds), usegmt=True) if status == "Scheduled" else "",
                "Description": "",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
        )

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Any, body: bytes) -> Reply:
        if headers.get("Metadata") != "true" or not query.get("api-version"):
            return 400, {}, b'{"error": "Bad request"}'
        if (method, path) == ("GET", "/metadata/instance/compute"):
            return _json({"name": "WestNO_0", "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6", "location": "westus"})
        if path != "/metadata/scheduledevents":
            return NOTHING
        if method == "POST":
            self.started += [one["EventId"] for one in json.loads(body)["StartRequests"]]
            return 200, {}, b""
        return _json({"DocumentIncarnation": len(self.events), "Events": self.events})


AnyCloud = Ec2 | ComputeEngine | AzureMachine


def _json(document: object) -> Reply:
    return 200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(document).encode()


@dataclass
class MetadataServer:
    """The service of `cloud`. `instead` answers a request by itself, unless it returns False."""

    cloud: AnyCloud | None = None
    instead: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> bool:
    status, headers, body = reply
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


def drip(handler: BaseHTTPRequestHandler) -> bool:
    """Answers for ever, a little at a time."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


@contextmanager
def metadata_server(cloud: AnyCloud | None = None) -> Iterator[MetadataServer]:
    """Listens on a free port of this machine. Where no cloud is, it knows no path."""
    server = MetadataServer(cloud)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            server.requests.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            try:
                if not server.instead(self):
                    asked = (self.command, url.path, query, self.headers, body)
                    send(self, NOTHING if server.cloud is None else server.cloud.answer(*asked))
            except OSError:
                pass  # The client has gone.

        def do_GET(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    listening.block_on_close = False
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{listening.server_port}"
    try:
        yield server
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
