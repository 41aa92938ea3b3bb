"""A local HTTP server that answers as the Hugging Face Hub does: revisions, trees, files, and refusals."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = "acme/tiny"


class Hub:
    """Repositories of one commit a branch. Answers are those of https://huggingface.co/docs/hub/api."""

    def __init__(self) -> None:
        self.branches: dict[str, Path] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.refusal: tuple[int, str] | None = None
        """A status and an error code for every request, as for gated and private repositories."""
        self.url = ""

    def commit(self, branch: str) -> str:
        return hashlib.sha1(f"{branch}{self.branches[branch]}".encode()).hexdigest()

    def folder(self, revision: str) -> Path | None:
        if revision in self.branches:
            return self.branches[revision]
        return next((folder for name, folder in self.branches.items() if self.commit(name) == revision), None)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        if self.refusal is not None:
            status, code = self.refusal
            return status, {"X-Error-Code": code, "X-Error-Message": "no"}, b"{}"
        parts = path.partition("?")[0].strip("/").split("/")
        if "/".join(parts[:2]) != REPOSITORY and "/".join(parts[2:4]) != REPOSITORY:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        folder = self.folder(parts[5] if parts[0] == "api" else parts[3])
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if parts[0] == "api":
            return 200, {"Content-Type": "application/json"}, json.dumps(self._listing(parts, folder)).encode()
        file = folder.joinpath(*parts[4:])
        if not file.is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        body = file.read_bytes()
        commit = next(self.commit(name) for name, place in self.branches.items() if place == folder)
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{_oid(body)}"'}, body

    def _listing(self, parts: list[str], folder: Path) -> Any:
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if parts[4] == "tree":
            return [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _oid(f.read_bytes())} for f in files
            ]
        (branch,) = [name for name, place in self.branches.items() if place == folder]
        return {"id": REPOSITORY, "sha": self.commit(branch), "siblings": [{"rfilename": f.name} for f in files]}

    def fetched(self) -> set[str]:
        """The names of all files whose contents were sent."""
        return {path.rsplit("/", 1)[1] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path}


@contextmanager
def hub() -> Iterator[Hub]:
    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.requests.append((self.command, self.path, self.headers.get("Authorization")))
            status, headers, body = found.answer(self.path)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def _oid(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()
