from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_api import Cluster, service_account, serving

from ponder.fleet.provider import Order, Pool, ProviderFailed
from ponder.fleet.providers.kubernetes import Kubernetes

POOL = Pool("Qwen/Qwen3-4B", "h200", "on_demand")
DEPLOYMENT = "ponder-qwen-qwen3-4b-on-demand"


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(replicas={DEPLOYMENT: 3})


@pytest.fixture
def account(tmp_path: Path) -> Path:
    return service_account(tmp_path / "account")


@pytest.fixture
def provider(cluster: Cluster, account: Path) -> Iterator[Kubernetes]:
    cluster.scale(DEPLOYMENT, 3)
    with serving(cluster) as address:
        deployment = "ponder-{model}-{market}"
        made = Kubernetes(deployment=deployment, api_server=address, service_account=account, timeout_s=0.5)
        yield made
        made.close()


def test_the_pod_that_was_drained_is_the_one_that_goes(provider: Kubernetes, cluster: Cluster) -> None:
    first, second, third = sorted(provider.workers(POOL))
    provider.stop(Order("fleet-1", POOL, 2, second))
    assert provider.workers(POOL) == {first, third}
    assert cluster.requests[-5:-2] == [
        ("PATCH", f"/api/v1/namespaces/ponder/pods/{second}"),
        ("PATCH", f"/apis/apps/v1/namespaces/ponder/deployments/{DEPLOYMENT}/scale"),
        ("DELETE", f"/api/v1/namespaces/ponder/pods/{second}"),
    ], "marked before there is a replica less"


def test_a_pod_whose_place_another_one_takes_goes_all_the_same(provider: Kubernetes, cluster: Cluster) -> None:
    first, second, third = sorted(provider.workers(POOL))
    provider.start(Order("fleet-4", POOL, 3))
    provider.stop(Order("fleet-2", POOL, 3, second))
    assert provider.workers(POOL) > {first, third}
    assert second not in cluster.pods
    assert len(cluster.pods) == 3


def test_a_pod_that_has_ended_is_no_worker(provider: Kubernetes, cluster: Cluster) -> None:
    first, second, third = sorted(provider.workers(POOL))
    cluster.pods[first]["phase"] = "Failed"
    cluster.pods[second]["phase"] = "Pending"
    assert provider.workers(POOL) == {second, third}


def test_a_renewed_token_is_used(provider: Kubernetes, cluster: Cluster, account: Path) -> None:
    cluster.token = "token-2"
    with pytest.raises(ProviderFailed, match="401 Unauthorized"):
        provider.workers(POOL)
    (account / "token").write_text("token-2\n")
    assert len(provider.workers(POOL)) == 3


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (403, "403 the server is currently unable"),
        (409, "409"),
        (500, "500"),
        ("silence", "does not answer PATCH"),
        ("noise", "does not answer PATCH"),
    ],
)
def test_what_the_api_server_says_is_passed_on(
    provider: Kubernetes, cluster: Cluster, failure: int | str, said: str
) -> None:
    cluster.failure = failure
    with pytest.raises(ProviderFailed, match=said):
        provider.start(Order("fleet-1", POOL, 4))


def test_a_deployment_that_does_not_exist_is_named(provider: Kubernetes, cluster: Cluster) -> None:
    with pytest.raises(ProviderFailed, match=r'404 deployments.apps "ponder-demo-spot" not found'):
        provider.start(Order("fleet-1", Pool("demo", "h200", "spot"), 1))
