"""Dashboards and alert rules use metrics that ponder has, and leave none of them out."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine

from ponder.api.routes.metrics import Meter
from ponder.embedded.redis import EmbeddedRedis
from ponder_worker.engine.latency import Latencies
from ponder_worker.parent.notices.notice import Notice
from ponder_worker.parent.worker_metrics import JobMetrics, WorkerMetrics
from ponder_worker.protocol import EngineMetrics, Histogram

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
RULES = ROOT / "deploy/prometheus/rules.yml"
_METRIC = re.compile(r"\bponder[_:][a-z0-9_]+")
_TYPE = re.compile(r"^# TYPE (\S+) (\w+)$", re.MULTILINE)
_LABEL_SETS = re.compile(r"\{[^}]*\}|\b(?:by|on|without) \([^)]*\)")


@dataclass(frozen=True)
class Expression:
    place: str
    text: str

    @property
    def metrics(self) -> set[str]:
        return set(_METRIC.findall(_LABEL_SETS.sub("", self.text)))


class _Everything(dict[str, int | float]):
    """The numbers of an engine that has every metric."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> float:
        return 1.0


def expressions() -> Iterator[Expression]:
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            yield from (Expression(f"{file.name}: {panel['title']}", one["expr"]) for one in panel["targets"])
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from (Expression(f"{RULES.name}: {rule['alert']}", rule["expr"]) for rule in group["rules"])


def series(exposed: str) -> set[str]:
    """Returns the names that a query can use, of all metrics in the text that Prometheus scrapes."""
    names: set[str] = set()
    for name, kind in _TYPE.findall(exposed):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    return {name for name in names if not name.endswith("_created")}


@pytest.fixture
def of_api(engine: Engine, redis_server: EmbeddedRedis) -> set[str]:
    return series(generate_latest(Meter(engine, redis_server.url).registry).decode())


@pytest.fixture
def of_worker() -> set[str]:
    latencies = {name: Histogram((0, 0), 0.0) for name in Latencies().as_numbers()}
    numbers = _Everything(redis_up=1, held_jobs=1, room_tokens=1)
    registry = CollectorRegistry()
    notice = Notice.preempting("aws", "interruption", 118.0)
    registry.register(
        WorkerMetrics(lambda: EngineMetrics(numbers, latencies, (1.0,)), lambda: [notice], JobMetrics().collect)
    )
    return series(generate_latest(registry).decode())


def test_every_metric_of_a_dashboard_or_a_rule_is_one_that_ponder_has(of_api: set[str], of_worker: set[str]) -> None:
    unknown = {one.place: missing for one in expressions() if (missing := one.metrics - of_api - of_worker)}
    assert not unknown


def test_every_metric_is_in_a_dashboard_or_a_rule(of_api: set[str], of_worker: set[str]) -> None:
    used = {metric for one in expressions() for metric in one.metrics}
    of_histograms = {name for name in of_api | of_worker if name.endswith(("_sum", "_count"))}
    assert not (of_api | of_worker) - used - of_histograms


def test_the_metric_that_keda_scales_by_is_one_of_the_api(of_api: set[str]) -> None:
    template = (ROOT / "deploy/helm/ponder/templates/keda.yaml").read_text()
    assert set(re.findall(r"ponder_\w+", template)) <= of_api


def test_of_figures_that_every_process_of_the_api_reports_only_one_counts() -> None:
    """Two processes report the same backlog: a sum would be twice as much."""
    shared = r"ponder_(?:backlog|queued|open|live|deadline|submitted|spent|preemptions|fleet|autoscaler)\w+"
    over_time = r"(?:(?:rate|increase|max_over_time)\()?"
    for one in expressions():
        found = re.findall(rf"(?:(max|min)(?: by \([^)]*\))? ?\({over_time})?({shared})", one.text)
        assert all(aggregate for aggregate, _ in found), one.place


@pytest.mark.slow
def test_prometheus_understands_every_query(charts_python: Path) -> None:
    filled = [re.sub(r"\$\w+", ".*", one.text) for one in expressions()]
    program = "import json, sys, promql_parser\nfor query in json.load(sys.stdin):\n    promql_parser.parse(query)"
    done = subprocess.run(
        [charts_python, "-c", program], input=json.dumps(filled), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_can_be_imported_and_its_panels_do_not_overlap(file: Path) -> None:
    dashboard: dict[str, Any] = json.loads(file.read_text())
    assert dashboard["uid"] == f"ponder-{file.stem}"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) <= variables
    assert all(panel["description"] for panel in panels)


def test_every_rule_says_how_grave_it_is_what_is_wrong_and_what_follows() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert {"summary", "description"} == rule["annotations"].keys()
