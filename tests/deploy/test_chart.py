"""The Helm chart: what it makes of several files of values, seen by Kubernetes's schemas and by ponder itself."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from kubernetes_api import Cluster, service_account, serving

from ponder.cli.main import cli
from ponder.fleet.provider import Order, Pool
from ponder.fleet.providers.kubernetes import Kubernetes
from ponder.settings import Settings

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/ponder"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())

Manifest = dict[str, Any]

LLAMA = {"model": "Llama-3.3-70B", "source": "meta-llama/Llama-3.3-70B-Instruct", "machine": "h200", "gpus": 2}
QWEN = {
    "model": "qwen",
    "source": "/models/qwen",
    "rewardModel": "/models/prm",
    "machine": "l4",
    "modelsClaim": "models",
}
SPOT_NODES = {
    "nodeSelector": {"cloud.google.com/gke-spot": "true"},
    "tolerations": [
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"},
    ],
}
POOLS = [{**model, "market": market} for model in (LLAMA, QWEN) for market in ("spot", "on_demand")]
SETS: dict[str, Mapping[str, Any]] = {
    "defaults": {},
    "two models on both markets": {
        "pools": POOLS,
        "markets": {"spot": SPOT_NODES},
        "autoscaler": {"max": 8, "maxDollarsPerHour": 40, "drainSeconds": 0, "registerWithinSeconds": 2_400},
        "settings": {
            "PONDER_LOG_LEVEL": "debug",
            "PONDER_SHARD_TOKENS": 2_000_000,
            "PONDER_WEBHOOK_PRIVATE": True,
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        },
        "images": {"pullSecrets": [{"name": "registry"}]},
    },
    "KEDA": {"pools": POOLS, "autoscaler": {"enabled": False}, "keda": {"enabled": True}},
    "fixed numbers": {"pools": [{**QWEN, "market": "spot", "replicas": 3}], "autoscaler": {"enabled": False}},
    "no GPU": {
        "pools": [{**QWEN, "market": "spot", "gpus": 0, "image": "ponder-worker:0.1.0", "args": ["--threads", "4"]}]
    },
}
REFUSED = {
    "two masters": ({"keda": {"enabled": True}, "pools": POOLS}, "the pools can have only one master"),
    "no bound": ({"autoscaler": {"max": None}, "pools": POOLS}, "must say how much the workers may cost"),
    "a pool twice": ({"pools": [POOLS[0], POOLS[0]]}, "two pools of Llama-3.3-70B on h200 (spot)"),
    "no machine": ({"pools": [{"model": "m", "source": "m", "market": "spot"}]}, "machine"),
    "an unknown market": ({"pools": [{**QWEN, "market": "reserved"}]}, "market"),
    "no time to register": (
        {"autoscaler": {"registerWithinSeconds": 0}, "pools": POOLS},
        "registerWithinSeconds",
    ),
    "an unknown field": ({"pools": [{**QWEN, "market": "spot", "gpu": 2}]}, "gpu"),
}

SCALED_OBJECT = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"], "additionalProperties": False,
                                   "properties": {"name": {"type": "string"}}},
                "minReplicaCount": {"type": "integer", "minimum": 0},
                "maxReplicaCount": {"type": "integer", "minimum": 1},
                "pollingInterval": {"type": "integer", "minimum": 1},
                "cooldownPeriod": {"type": "integer", "minimum": 0},
                "advanced": {"type": "object"},
                "triggers": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "prometheus"},
                            "metricType": {"enum": ["AverageValue", "Value"]},
                            "metadata": {
                                "type": "object",
                                "required": ["serverAddress", "query", "threshold"],
                                "additionalProperties": {"type": "string"},
                            },
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip
"""The fields of https://keda.sh/docs/latest/reference/scaledobject-spec/ that the chart uses."""


def test_the_default_values_are_valid_and_the_chart_has_the_version_of_the_package() -> None:
    jsonschema.validate(VALUES, json.loads((CHART / "values.schema.json").read_text()))
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    tags = {image.rpartition(":")[2] for name, image in VALUES["images"].items() if name in ("server", "worker")}
    assert {chart["version"], chart["appVersion"], *tags} == {PROJECT["version"]}


def test_a_pool_may_have_every_value_that_all_pools_have() -> None:
    fields = json.loads((CHART / "values.schema.json").read_text())["definitions"]["pool"]["properties"].keys()
    assert VALUES["pool"].keys() <= fields


@pytest.fixture(scope="module")
def renderings(charts_python: Path) -> dict[str, dict[str, Any]]:
    sets = {**SETS, **{name: values for name, (values, _) in REFUSED.items()}}
    command = [charts_python, ROOT / "tests/support/render_chart.py", CHART]
    done = subprocess.run(command, input=json.dumps(sets), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(params=SETS)
def manifests(request: pytest.FixtureRequest, renderings: dict[str, dict[str, Any]]) -> list[Manifest]:
    rendering = renderings[request.param]
    assert rendering["error"] is None
    return list(rendering["manifests"])


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def workers(manifests: list[Manifest]) -> list[Manifest]:
    return [one for one in of_kind(manifests, "Deployment") if "ponder.io/model" in one["metadata"]["labels"]]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yields the name, the pod's spec and the only container of everything that runs."""
    for manifest in of_kind(manifests, "Deployment", "Job"):
        spec = manifest["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        yield manifest["metadata"]["name"], spec, container


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_kubernetes_accepts_every_manifest(name: str, renderings: dict[str, dict[str, Any]]) -> None:
    rendering = renderings[name]
    assert (rendering["error"], rendering["refused"]) == (None, [])
    assert set(rendering["unknown"]) == ({"ScaledObject"} if name == "KEDA" else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_values_that_cannot_work_are_refused_with_the_reason(name: str, renderings: dict[str, dict[str, Any]]) -> None:
    assert REFUSED[name][1] in renderings[name]["error"]


@pytest.mark.slow
def test_every_container_runs_a_command_that_ponder_has(manifests: list[Manifest]) -> None:
    for name, _, container in pods(manifests):
        command, *arguments = container["args"]
        found = cli.get_command(click.Context(cli), command)
        assert found is not None, f"{name}: `ponder {command}` does not exist"
        found.make_context(command, arguments, resilient_parsing=False)


@pytest.mark.slow
def test_every_variable_is_one_that_the_settings_read_and_no_secret_is_a_value(manifests: list[Manifest]) -> None:
    known = {f"PONDER_{field}".upper() for field in Settings.model_fields}
    secret = {f"PONDER_{name}" for name in ("DATABASE_URL", "REDIS_URL", "OPERATOR_KEY", "WEBHOOK_KEY")} | {"HF_TOKEN"}
    for name, _, container in pods(manifests):
        variables = {variable["name"]: variable for variable in container["env"]}
        assert {variable for variable in variables if variable.startswith("PONDER_")} <= known, name
        for variable in secret & variables.keys():
            assert variables[variable]["valueFrom"]["secretKeyRef"]["name"] == "ponder"
        assert not [word for word in container["args"] if re.search(r"postgres|rediss?://", word)]
    assert not of_kind(manifests, "Secret")


@pytest.mark.slow
def test_settings_reach_every_service_as_they_are_written(renderings: dict[str, dict[str, Any]]) -> None:
    for _, _, container in pods(renderings["two models on both markets"]["manifests"]):
        values = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert (values["PONDER_LOG_LEVEL"], values["PONDER_SHARD_TOKENS"]) == ("debug", "2000000")
        assert values["PONDER_WEBHOOK_PRIVATE"] == "true"
        assert values["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"


@pytest.mark.slow
def test_every_pod_is_confined(manifests: list[Manifest]) -> None:
    for name, spec, container in pods(manifests):
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert (spec.get("automountServiceAccountToken") is False) is (name != "ponder-autoscaler")
        assert spec["enableServiceLinks"] is False, "a Service `ponder` would set PONDER_PORT"
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


@pytest.mark.slow
def test_the_user_of_a_pod_is_the_one_of_the_image(manifests: list[Manifest]) -> None:
    uid = re.search(r"useradd .*--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert uid is not None
    assert {spec["securityContext"]["runAsUser"] for _, spec, _ in pods(manifests)} == {int(uid[1])}


@pytest.mark.slow
def test_a_probe_asks_what_the_service_offers(manifests: list[Manifest]) -> None:
    routes = (ROOT / "platform/ponder/api/routes/health.py").read_text()
    for name, spec, container in pods(manifests):
        probes = [container[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in container]
        assert probes or name == "ponder-migrate"
        alive = [variable["value"] for variable in container["env"] if variable["name"] == "PONDER_ALIVE_FILE"]
        for probe in probes:
            if "httpGet" in probe:
                assert f'@router.get("{probe["httpGet"]["path"]}")' in routes
                continue
            assert alive[0] in probe["exec"]["command"][-1]
            assert Path(alive[0]).parent in {Path(mount["mountPath"]) for mount in container["volumeMounts"]}
        assert not [
            mount for mount in container["volumeMounts"] if mount["name"] not in {v["name"] for v in spec["volumes"]}
        ]


@pytest.mark.slow
def test_a_worker_has_its_grace_after_sigterm_and_nothing_before_it(manifests: list[Manifest]) -> None:
    for worker in workers(manifests):
        spec = worker["spec"]["template"]["spec"]
        assert spec["terminationGracePeriodSeconds"] >= 15
        assert spec["shareProcessNamespace"], "its orphans are reaped"
        assert "lifecycle" not in spec["containers"][0]


@pytest.mark.slow
def test_budgets_and_services_select_the_pods_of_one_deployment(manifests: list[Manifest]) -> None:
    labels = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"].items()
        for manifest in of_kind(manifests, "Deployment")
    }
    for manifest in of_kind(manifests, "PodDisruptionBudget", "Service", "Deployment"):
        selector = manifest["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        assert [name for name, given in labels.items() if wanted <= given] == [manifest["metadata"]["name"]]


@pytest.mark.slow
def test_the_autoscaler_is_told_of_every_pool(renderings: dict[str, dict[str, Any]]) -> None:
    manifests = renderings["two models on both markets"]["manifests"]
    assert {word for word in autoscaler_arguments(manifests) if word.startswith("--m")} == {
        "--min=0", "--max=8", "--max-dollars-per-hour=40", "--model=Llama-3.3-70B", "--model=qwen",
        "--machine=h200:spot", "--machine=h200:on_demand", "--machine=l4:spot", "--machine=l4:on_demand",
    }  # fmt: skip
    assert {"--drain-s=0", "--register-within-s=2400"} < set(autoscaler_arguments(manifests))
    assert {worker["spec"]["replicas"] for worker in workers(manifests)} == {0}, "it drains only what it has ordered"


@pytest.mark.slow
def test_the_autoscalers_provider_finds_every_pool_and_does_only_what_its_role_allows(
    renderings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    manifests = renderings["two models on both markets"]["manifests"]
    cluster = Cluster(replicas={worker["metadata"]["name"]: 0 for worker in workers(manifests)})
    (template,) = [word for word in autoscaler_arguments(manifests) if word.startswith("--deployment=")]
    with serving(cluster) as address:
        provider = Kubernetes(
            deployment=template.removeprefix("--deployment="),
            api_server=address,
            service_account=service_account(tmp_path / "account"),
        )
        for number, one in enumerate(POOLS):
            pool = Pool(one["model"], one["machine"], one["market"])
            provider.start(Order(f"fleet-{number}", pool, 1))
            (pod,) = provider.workers(pool)
            provider.stop(Order(f"fleet-{number}", pool, 0, pod))
        provider.close()
    scale, on_pods = of_kind(manifests, "Role")[0]["rules"]
    for method, path in cluster.requests:
        kind, _, name = path.partition("/namespaces/ponder/")[2].partition("?")[0].partition("/")
        verb = method.lower() if method != "GET" else "get" if name else "list"
        if kind == "deployments":
            assert name.removesuffix("/scale") in scale["resourceNames"]
            assert verb in scale["verbs"]
        else:
            assert (on_pods["resources"], verb in on_pods["verbs"]) == ([kind], True)


def autoscaler_arguments(manifests: list[Manifest]) -> list[str]:
    ((_, _, container),) = [one for one in pods(manifests) if one[0] == "ponder-autoscaler"]
    return list(container["args"])


@pytest.mark.slow
def test_a_worker_registers_under_the_name_of_its_pod(manifests: list[Manifest]) -> None:
    for _, _, container in pods(workers(manifests)):
        assert "--worker-name=$(POD_NAME)" in container["args"]
        assert {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}} in container["env"]


@pytest.mark.slow
def test_spot_workers_go_to_spot_machines_and_gpus_to_those_that_ask(renderings: dict[str, dict[str, Any]]) -> None:
    for worker in workers(renderings["two models on both markets"]["manifests"]):
        spec, is_spot = worker["spec"]["template"]["spec"], worker["metadata"]["labels"]["ponder.io/market"] == "spot"
        assert (SPOT_NODES["nodeSelector"].items() <= (spec["nodeSelector"] or {}).items()) is is_spot
        keys = [toleration["key"] for toleration in spec["tolerations"]]
        assert keys == ["nvidia.com/gpu", *(["cloud.google.com/gke-spot"] if is_spot else [])]
        is_llama = "llama" in worker["metadata"]["name"]
        assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == (2 if is_llama else 1)
    (without,) = workers(renderings["no GPU"]["manifests"])
    assert "nvidia.com/gpu" not in without["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.slow
def test_keda_scales_every_pool_by_its_backlog(renderings: dict[str, dict[str, Any]]) -> None:
    manifests = renderings["KEDA"]["manifests"]
    scaled = of_kind(manifests, "ScaledObject")
    for one in scaled:
        jsonschema.validate(one, SCALED_OBJECT)
    assert {one["spec"]["scaleTargetRef"]["name"] for one in scaled} == {
        w["metadata"]["name"] for w in workers(manifests)
    }
    assert {worker["spec"]["replicas"] for worker in workers(manifests)} == {0}
    assert not [name for name, _, _ in pods(manifests) if "autoscaler" in name]
    assert {one["spec"]["triggers"][0]["metadata"]["threshold"] for one in scaled} == {"2000000"}
    queries = {one["spec"]["triggers"][0]["metadata"]["query"] for one in scaled}
    backlog = 'ponder_backlog_runnable_tokens{model="Llama-3.3-70B",lane=~"interactive|batch"}'
    assert f"sum(max by (lane) ({backlog}))" in queries


@pytest.mark.slow
def test_without_a_scaler_a_pool_has_the_number_of_workers_that_it_says(renderings: dict[str, dict[str, Any]]) -> None:
    (worker,) = workers(renderings["fixed numbers"]["manifests"])
    assert worker["spec"]["replicas"] == 3
