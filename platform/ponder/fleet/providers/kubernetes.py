"""Replicas of a Deployment for each pool, through the API server of the cluster that the autoscaler runs in."""

from __future__ import annotations

import re
import ssl
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from ponder.errors import SetupError
from ponder.fleet.provider import Order, Pool, ProviderFailed

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API_SERVER = "https://kubernetes.default.svc"
_MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_ENDED = ("Succeeded", "Failed")


class Kubernetes:
    """Scales the Deployment that is called like `deployment`, with {model}, {machine} and {market} of the pool in it.

    A worker is a pod, whose name it registers under. Where one is to be stopped, its pod is marked as the cheapest to
    delete before the Deployment gets a replica less, as the documentation of ReplicaSets advises ("Pod deletion cost").
    It is deleted by name afterwards, because another one may have gone instead, or the number be the same again. The
    service account needs `get` and `patch` of deployments/scale, and `list`, `patch` and `delete` of pods.
    """

    names_workers = True

    def __init__(
        self,
        *,
        deployment: str,
        namespace: str | None = None,
        offers: Collection[tuple[str, str]] = (),
        api_server: str = API_SERVER,
        service_account: Path = SERVICE_ACCOUNT,
        timeout_s: float = 10.0,
    ) -> None:
        self._deployment = deployment
        self._account = service_account
        self._namespace = namespace or _own_namespace(service_account)
        self._offers = offers
        authority = service_account / "ca.crt"
        verify = ssl.create_default_context(cafile=str(authority)) if authority.is_file() else True
        self._connect = partial(httpx2.Client, base_url=api_server, timeout=timeout_s, verify=verify, trust_env=False)
        self._http = self._connect()

    def offers(self, machine: str, market: str) -> bool:
        return not self._offers or (machine, market) in self._offers

    def start(self, order: Order) -> None:
        self._scale(order)

    def stop(self, order: Order) -> None:
        if order.worker is None:
            self._scale(order)
            return
        pod = f"/api/v1/namespaces/{self._namespace}/pods/{order.worker}"
        self._ask("PATCH", pod, {"metadata": {"annotations": {_DELETION_COST: "-1000"}}}, may_lack=True)
        self._scale(order)
        self._ask("DELETE", pod, may_lack=True)

    def workers(self, pool: Pool) -> frozenset[str]:
        """Returns the pods of the Deployment that have not ended, those included that are on their way out."""
        scale = self._ask("GET", self._scale_path(pool))
        selector = (scale.get("status") or {}).get("selector", "")
        pods = self._ask("GET", f"/api/v1/namespaces/{self._namespace}/pods", query={"labelSelector": selector})
        return frozenset(
            pod["metadata"]["name"]
            for pod in pods.get("items", ())
            if (pod.get("status") or {}).get("phase") not in _ENDED
        )

    def close(self) -> None:
        """Leaves the replicas: the next autoscaler goes on with them."""
        self._http.close()
        self._http = self._connect()

    def _scale(self, order: Order) -> None:
        self._ask("PATCH", self._scale_path(order.pool), {"spec": {"replicas": order.num_workers}})

    def _scale_path(self, pool: Pool) -> str:
        name = deployment_name(self._deployment, pool)
        return f"/apis/apps/v1/namespaces/{self._namespace}/deployments/{name}/scale"

    def _ask(
        self,
        method: str,
        path: str,
        patch: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        may_lack: bool = False,
    ) -> dict[str, Any]:
        """Returns the object in the answer, or an empty one for something that `may_lack`."""
        headers = {"Authorization": f"Bearer {self._token()}"} | (_MERGE_PATCH if patch is not None else {})
        try:
            response = self._http.request(method, path, json=patch, params=query, headers=headers)
            answer = response.json() if response.content else {}
        except (httpx2.HTTPError, ValueError) as error:
            raise ProviderFailed(f"the API server does not answer {method} {path}: {error}") from error
        if response.status_code == 404 and may_lack:
            return {}
        if not response.is_success:
            said = answer.get("message") if isinstance(answer, dict) else None
            raise ProviderFailed(f"{method} {path}: {response.status_code} {said or response.reason_phrase}")
        return answer if isinstance(answer, dict) else {}

    def _token(self) -> str:
        """Reads the token for every request, because the kubelet renews it."""
        try:
            return (self._account / "token").read_text().strip()
        except OSError as error:
            raise ProviderFailed(f"there is no token of a service account: {error}") from error


def deployment_name(pattern: str, pool: Pool) -> str:
    return pattern.format(model=_label(pool.model), machine=_label(pool.machine), market=_label(pool.market))


def _own_namespace(service_account: Path) -> str:
    try:
        return (service_account / "namespace").read_text().strip()
    except OSError as error:
        raise SetupError(
            f"there is no service account of Kubernetes in {service_account}: run the autoscaler in the cluster"
        ) from error


def _label(text: str) -> str:
    """Returns a text as a part of an object's name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
