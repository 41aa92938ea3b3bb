"""Estimates of batches that are not submitted."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import text


def upload(http: httpx2.Client, lines: list[Any]) -> str:
    content = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
    answer = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("problems.jsonl", content)})
    return str(answer.raise_for_status().json()["id"])


def ask(http: httpx2.Client, file_id: str, workers: int | None = None, **ponder: Any) -> httpx2.Response:
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h", "ponder": ponder}
    return http.post("/v1/estimates", json=body, params={} if workers is None else {"workers": workers}, timeout=60)


def test_an_estimate_rests_on_settled_jobs_and_submits_nothing(
    http: httpx2.Client, engine: Any, line: Any, submitted: Any, worker: Any, passed: Any
) -> None:
    submitted([line(f"a{number}") for number in range(40)])
    worker.validate()
    worker.work(passed)
    file_id = upload(http, [line(f"b{number}") for number in range(100)])
    found = ask(http, file_id, workers=4).raise_for_status().json()
    with engine.connect() as connection:
        (used,) = connection.execute(text("SELECT sum(completion_tokens) AS generated, count(*) AS jobs FROM usage"))
        assert connection.execute(text("SELECT count(*) FROM batches")).scalar_one() == 1, "nothing was submitted"
    assert (found["object"], found["jobs"], found["refused_lines"]) == ("estimate", 100, 0)
    generated = found["generated_tokens"]
    assert generated["low"] <= 100 * used.generated / used.jobs <= generated["high"]
    assert generated["rests_on"] == "100 jobs: 40 settled of the same strategy and level"
    assert found["prompt_tokens"]["estimate"] > 0
    assert found["reward_tokens"]["estimate"] == 0, "the strategy direct asks no reward model"
    for name in ("direct_nanodollars", "loaded_nanodollars", "wall_seconds", "wall_seconds_asked"):
        assert 0 < found[name]["low"] <= found[name]["estimate"] <= found[name]["high"], name
    assert found["loaded_nanodollars"]["estimate"] >= found["direct_nanodollars"]["estimate"]
    one, four = found["wall_seconds"], found["wall_seconds_asked"]
    assert (one["workers"], four["workers"]) == (1, 4)
    assert four["estimate"] == pytest.approx(one["estimate"] / 4, rel=0.01)


def test_without_any_settled_job_tokens_rest_on_the_general_prior_and_money_is_unknown(
    http: httpx2.Client, line: Any, worker: Any
) -> None:
    found = ask(http, upload(http, [line(max_tokens=50)])).raise_for_status().json()
    assert "general prior" in found["generated_tokens"]["rests_on"]
    assert found["generated_tokens"]["high"] <= 50
    assert found["direct_nanodollars"]["estimate"] is None
    assert "run some first" in found["direct_nanodollars"]["rests_on"]


def test_refused_lines_are_counted_with_the_first_reason(http: httpx2.Client, line: Any, worker: Any) -> None:
    found = ask(http, upload(http, [line("a"), b"{", line("b", n=1_000)])).raise_for_status().json()
    assert (found["jobs"], found["refused_lines"]) == (1, 2)
    assert found["first_refusal"].startswith("line 2: the line is not JSON")


def test_a_file_of_which_no_line_can_become_a_job_is_refused(http: httpx2.Client, line: Any, worker: Any) -> None:
    answer = ask(http, upload(http, [line(model="nobody's")]))
    assert answer.status_code == 400
    assert "no worker has served the model nobody's" in answer.json()["error"]["message"]
    assert ask(http, upload(http, [b""])).status_code == 400


def test_others_files_and_options_that_contradict_are_refused(
    http: httpx2.Client, stranger: httpx2.Client, line: Any, worker: Any
) -> None:
    file_id = upload(http, [line()])
    assert ask(stranger, file_id).status_code == 404
    answer = ask(http, file_id, strategy="nonsense")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("ponder.strategy")
    assert ask(http, file_id, workers=0).status_code == 400


def test_what_takes_too_long_to_check_is_ended(http: httpx2.Client, line: Any, worker: Any, monkeypatch: Any) -> None:
    file_id = upload(http, [line()])
    monkeypatch.setattr("ponder.jobs.estimating.appraise._PATIENCE_S", 0.01)
    answer = ask(http, file_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_expensive")


def test_a_long_file_is_estimated_from_a_part_of_it(http: httpx2.Client, line: Any, worker: Any) -> None:
    lines = [line(f"a{number}", metadata={"level": "12"[number % 2]}) for number in range(20_001)]
    found = ask(http, upload(http, lines)).raise_for_status().json()
    assert found["read_lines"] < 7_000
    assert found["jobs"] == pytest.approx(20_001, rel=0.001)
    assert [part["jobs"] for part in found["parts"]] == pytest.approx([10_000, 10_000], rel=0.02)
