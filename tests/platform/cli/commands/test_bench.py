"""`ponder bench` against the real API and a worker without an engine."""

from __future__ import annotations

import csv
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ponder.api.routes.measuring import bench_runs
from ponder.bench.execution import Execution
from ponder.bench.suite import Suite, WorkerSetting
from ponder.bench.summary_table import verdict_rows
from ponder.client import Client
from ponder.errors import SetupError

SUITE = """
name = "sums"
description = "Two & two <make> four."
models = ["demo"]
budgets = [0, 64]
seeds = [0, 1]

[[data]]
name = "sums"
path = "sums.jsonl"
prompt = "q"
answer = "a"
level = "level"
verifier = "exact"
"""

CASCADE = """{name = "cascade", stages = [
    {strategy = "self_consistency", accept = {by = "agreement"}}, {model = "absent"}
]}"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"q": f"3 + {n}?", "a": "7", "level": n % 2} for n in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.toml").write_text(SUITE)
    return tmp_path / "sums.toml"


class _Tags(HTMLParser):
    """Collects the names of tags, and the text of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_run_is_measured_reported_kept_and_compared(suite: Path, ponder: Any, worker: Any) -> None:
    code, out, said = ponder("bench", "run", str(suite), "-o", "out", "--format", "json")
    assert code == 0, said
    run = json.loads(out)
    assert [cell["key"]["budget_tokens"] for cell in run["cells"]] == [None, 64]
    for cell in run["cells"]:
        assert (cell["accuracy"]["pass_1"]["value"], cell["accuracy"]["num_jobs"]) == (1.0, 8)
        assert cell["bill"]["direct"] > 0
    assert json.loads(Path("out/run.json").read_text())["cells"] == run["cells"]
    rows = list(csv.DictReader(Path("out/cells.csv").read_text().splitlines()))
    assert [row["key.budget_tokens"] for row in rows] == ["", "64"]

    page = _Tags()
    written = Path("out/report.html").read_text()
    page.feed(written)
    assert page.tags.count("svg") >= 3
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert set(re.findall(r"https?://[^\"]+", written)) == {"http://www.w3.org/2000/svg"}
    assert "Two & two <make> four." in page.text

    _, listed, _ = ponder("bench", "list")
    assert listed.splitlines()[1].split("\t")[:2] == [run["id"], "sums"]
    _, shown, _ = ponder("bench", "show", run["id"])
    assert "64 tokens" in shown
    code, compared, _ = ponder("bench", "compare", f"{run['id']}:1", f"{run['id']}:2")
    assert code == 0
    assert "4 problems, 8 pairs of jobs" in compared
    assert re.search(r"accuracy\t1\t1\t.*no different in these problems", compared)


def test_what_cannot_be_run_is_refused_before_anything_is_submitted(suite: Path, ponder: Any, worker: Any) -> None:
    code, _, said = ponder("bench", "run", str(suite), "--model", "bigger")
    assert (code, "no worker serves bigger now (models with one: demo)" in said) == (2, True)
    code, _, said = ponder("bench", "run", str(suite), "--data", "elsewhere")
    assert (code, "elsewhere/sums.jsonl: there is no such file" in said) == (2, True)
    code, _, said = ponder("bench", "run", "checkup")
    assert (code, "this suite starts workers of its own" in said) == (1, True)
    _, listed, _ = ponder("batches", "--format", "json")
    assert json.loads(listed) == []


def test_a_run_that_cannot_be_kept_is_written_all_the_same(
    suite: Path, ponder: Any, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_runs, "_MOST", 0)
    code, out, said = ponder("bench", "run", str(suite), "-o", "out", "--problems", "1")
    assert code != 0
    assert "ponder bench delete" in said
    assert "64 tokens" in out
    assert len(json.loads(Path("out/run.json").read_text())["cells"]) == 2


def test_a_cell_that_is_refused_costs_the_run_nothing_else(suite: Path, ponder: Any, worker: Any) -> None:
    suite.write_text(f'strategies = ["direct", {CASCADE}]\n{SUITE}')
    code, out, said = ponder("bench", "run", str(suite), "-o", "out", "--problems", "1", "--format", "json")
    assert code == 0, said
    run = json.loads(out)
    assert [cell["key"]["strategy"] for cell in run["cells"]] == ["direct", "direct"]
    assert len(run["skipped"]) == 2
    assert all("served the model absent" in reason for reason in run["skipped"].values())


def test_a_run_of_which_every_cell_is_refused_says_why(suite: Path, ponder: Any, worker: Any) -> None:
    suite.write_text(f"strategies = [{CASCADE}]\n{SUITE}".replace("budgets = [0, 64]\n", ""))
    code, _, said = ponder("bench", "run", str(suite), "-o", "out", "--problems", "1")
    assert code != 0
    assert "served the model absent" in said


def test_the_shipped_suites_are_listed(ponder: Any) -> None:
    _, listed, _ = ponder("bench", "list", "--suites")
    assert {"demo", "gsm8k", "math500", "aime", "gpqa", "humaneval"} <= {
        row.split("\t")[0] for row in listed.splitlines()
    }


def test_a_setting_of_the_workers_that_cannot_run_here_is_left_out_with_its_reason(
    suite: Path, base_url: str, operator_key: str, worker: Any
) -> None:
    settings = ({"name": "as shipped"}, {"name": "int8"}, {"name": "steps"}, {"name": "fp8"})
    found = Suite.model_validate(tomllib.loads(SUITE) | {"workers": settings, "budgets": (0,)})

    def stack(setting: WorkerSetting | None) -> Client:
        if setting is not None and "8" in setting.name:
            raise SetupError("this processor cannot")
        return Client.of(base_url, operator_key)

    _, run = Execution(found, suite.parent, stack, lambda *progress: None).run()
    assert run.skipped == {"int8": "this processor cannot", "fp8": "this processor cannot"}
    assert [cell.key.setting for cell in run.cells] == ["as shipped", "steps"]
    rows = verdict_rows(run)
    assert [row["kept accuracy?"] for row in rows] == ["baseline", "too few problems to tell"]
