"""An imitation of the parts of Kubernetes' API that a provider uses, with a ReplicaSet controller in it."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "token-1"
_COST = "controller.kubernetes.io/pod-deletion-cost"


@dataclass
class Cluster:
    """One namespace. `failure` is answered instead of anything else: a status, or `silence` or `noise`."""

    namespace: str = "ponder"
    replicas: dict[str, int] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    token: str = TOKEN
    failure: int | str | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def scale(self, deployment: str, replicas: int) -> None:
        """Does what the controller does: the pods that are cheapest to delete go first, then the newest."""
        self.replicas[deployment] = replicas
        own = [name for name, pod in self.pods.items() if pod["deployment"] == deployment]
        for _ in range(replicas - len(own)):
            name = f"{deployment}-7d9f8-{next(self._numbers):05d}"
            self.pods[name] = {"deployment": deployment, "cost": 0, "phase": "Running"}
        by_cost = sorted(own, key=lambda name: (self.pods[name]["cost"], [-ord(letter) for letter in name]))
        for name in by_cost[: max(0, len(own) - replicas)]:
            del self.pods[name]

    def delete(self, pod: str) -> None:
        """Deletes a pod, which the controller replaces if there are too few now."""
        deployment = self.pods.pop(pod)["deployment"]
        self.scale(deployment, self.replicas[deployment])

    def pod_list(self, selector: str) -> dict[str, Any]:
        items = [
            {"metadata": {"name": name, "namespace": self.namespace}, "status": {"phase": pod["phase"]}}
            for name, pod in self.pods.items()
            if selector == f"app={pod['deployment']}"
        ]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items}

    def scale_object(self, deployment: str) -> dict[str, Any]:
        number = self.replicas[deployment]
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": deployment, "namespace": self.namespace, "resourceVersion": "7"},
            "spec": {"replicas": number} if number else {},
            "status": {"replicas": number, "selector": f"app={deployment}"},
        }


@contextmanager
def serving(cluster: Cluster) -> Iterator[str]:
    """Yields the address of its API server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_PATCH(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            cluster.requests.append((self.command, url.path))
            if cluster.failure == "silence":
                time.sleep(2)
                return
            if cluster.failure == "noise":
                self._send(200, b"<html>a proxy</html>", "text/html")
                return
            if isinstance(cluster.failure, int):
                self._refuse(cluster.failure, "the server is currently unable to handle the request")
                return
            if self.headers["Authorization"] != f"Bearer {cluster.token}":
                self._refuse(401, "Unauthorized")
                return
            self._route(url.path, parse_qs(url.query), json.loads(body) if body else None)

        def _route(self, path: str, query: dict[str, list[str]], patch: Any) -> None:
            parts = path.strip("/").split("/")
            if patch is not None and self.headers["Content-Type"] != "application/merge-patch+json":
                self._refuse(415, "the body of the request was in an unknown format")
            elif parts[:3] == ["apis", "apps", "v1"] and parts[5:6] == ["deployments"] and parts[7:] == ["scale"]:
                if parts[4] != cluster.namespace or parts[6] not in cluster.replicas:
                    self._refuse(404, f'deployments.apps "{parts[6]}" not found')
                    return
                if patch is not None:
                    cluster.scale(parts[6], patch["spec"]["replicas"])
                self._object(cluster.scale_object(parts[6]))
            elif parts[:2] == ["api", "v1"] and parts[4:] == ["pods"]:
                self._object(cluster.pod_list(query["labelSelector"][0]))
            elif parts[:2] == ["api", "v1"] and parts[4:5] == ["pods"]:
                if parts[5] not in cluster.pods:
                    self._refuse(404, f'pods "{parts[5]}" not found')
                    return
                if patch is None:
                    cluster.delete(parts[5])
                    self._object({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": parts[5]}})
                    return
                cluster.pods[parts[5]]["cost"] = int(patch["metadata"]["annotations"][_COST])
                self._object({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": parts[5]}})
            else:
                self._refuse(404, "the server could not find the requested resource")

        def _refuse(self, code: int, message: str) -> None:
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
            self._object(status | {"message": message, "code": code}, code)

        def _object(self, document: dict[str, Any], code: int = 200) -> None:
            self._send(code, json.dumps(document).encode(), "application/json")

        def _send(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def service_account(folder: Path) -> Path:
    """Makes the files that a pod finds under /var/run/secrets/kubernetes.io/serviceaccount, but for the authority."""
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("ponder\n")
    return folder
