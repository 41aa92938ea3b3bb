from __future__ import annotations

import gzip
import json
import re
import webbrowser
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text
from waiting import until

from ponder.api.routes import result_lines
from ponder.cli import exit_code
from ponder.cli.commands import watch
from ponder.cli.main import run
from ponder.fleet.problem import Bounds
from ponder.fleet.proposing.scope import LEADER, Scope, record_scope
from ponder.jobs.dispatching.finish import finish
from ponder.jobs.dispatching.sweep import sweep
from ponder.settings import Settings
from ponder.trace import trace_of

Ponder = Callable[..., tuple[int, str, str]]
Worker = Callable[[int], None]
FIELDS = ("--model", "demo", "--prompt", "question", "--answer", "answer")


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    rows = [
        {"question": f"Compute 3 + {number}.", "answer": str(3 + number), "level": number % 2} for number in range(4)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_submits_watches_and_fetches(ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    code, printed, said = ponder(
        "run", str(problems), *FIELDS, "--level", "level", "--strategy", "best_of_n", "-o", str(out)
    )
    assert code == exit_code.SETTLED
    assert printed == ""
    assert "completed" in said
    assert "4 of 4 jobs completed" in said
    assert "\x1b" not in said
    assert [line["custom_id"] for line in read(out)] == ["row-1", "row-2", "row-3", "row-4"]
    assert not (tmp_path / "out.errors.jsonl").exists()

    code, printed, _ = ponder("report", "cost", "--by", "strategy,level", "--format", "csv")
    assert code == exit_code.SETTLED
    header, *rows = printed.splitlines()
    assert header.startswith("strategy,level,jobs,settled,passed,accuracy")
    assert [row.split(",")[:5] for row in rows] == [
        ["best_of_n", "0", "2", "2", "2"],
        ["best_of_n", "1", "2", "2", "2"],
    ]
    assert json.loads(ponder("report", "cost", "--format", "json")[1])[0]["jobs"] == 4
    assert ponder("report", "cost")[1].splitlines()[1].split("\t")[:2] == ["best_of_n", "4"]


@pytest.mark.parametrize("command", ["run", "submit"])
def test_a_model_that_nobody_serves_is_refused_before_anything_is_uploaded(
    ponder: Ponder, worker: Worker, problems: Path, command: str
) -> None:
    code, _, said = ponder(command, str(problems), *FIELDS, "--model", "dmeo")
    assert code == exit_code.USAGE
    assert "no worker has served the model dmeo yet (known: demo) (--model)" in said
    assert json.loads(ponder("batches", "--format", "json")[1]) == []


def test_a_refused_row_is_reported_and_is_in_the_error_file_and_the_exit_code(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path
) -> None:
    problems.write_text(problems.read_text() + '{"question": "no answer"}\n')
    out = tmp_path / "out.jsonl"
    code, _, said = ponder("run", str(problems), *FIELDS, "-o", str(out))
    assert code == exit_code.SOME_JOBS_FAILED
    assert f"{problems}: 5 rows read, 4 submitted, 1 refused (line 5: it has no field 'answer')" in said
    assert len(read(out)) == 4
    assert [line["custom_id"] for line in read(tmp_path / "out.errors.jsonl")] == ["row-5"]


def test_the_sum_of_the_rows_is_always_printed(ponder: Ponder, problems: Path) -> None:
    assert f"{problems}: 4 rows read, 4 submitted, 0 refused\n" in ponder("submit", str(problems), *FIELDS)[2]


def test_every_refused_row_has_its_true_reason_in_the_error_file(
    ponder: Ponder, worker: Worker, tmp_path: Path
) -> None:
    path, out = tmp_path / "problems.csv", tmp_path / "out.jsonl"
    path.write_text(
        "question,answer\nWhat is 3 + 4?,7\n" + '"open,1\n\nragged\n,no question\n' * 5 + "3 + 4?,nan\n3 + 4?,7\n"
    )
    code, _, said = ponder("run", str(path), *FIELDS, "-o", str(out))
    assert code == exit_code.SOME_JOBS_FAILED
    assert f"{path}: 18 rows read, 2 submitted, 16 refused (line 3: a quote is" in said
    assert "… and 6 more, each with its reason in the batch's error file" in said
    assert len(read(out)) == 2
    errors = [line["error"] for line in read(tmp_path / "out.errors.jsonl")]
    assert [error["line"] for error in errors] == [line for line in range(3, 24) if line % 4]
    assert all(error["message"].startswith(f"problems.csv, line {error['line']}: ") for error in errors)
    reasons = {error["message"].partition(": ")[2].partition(" (")[0] for error in errors}
    assert reasons == {
        "a quote is closed in the middle of a cell",
        "a quote is opened in it but never closed",
        "it has 1 cell, but the header has 2",
        "its field 'question' is empty",
        "its field 'answer' is empty",
    }


def test_a_damaged_gz_is_one_sentence_and_nothing_is_submitted(ponder: Ponder, tmp_path: Path) -> None:
    rows = "".join(f'{{"question": "{n * 7919 % 1000} + {n}?", "answer": {n}}}\n' for n in range(5_000))
    whole = gzip.compress(rows.encode())
    path = tmp_path / "problems.jsonl.gz"
    for content, what in (
        (whole[:-9], "after row 5,000: the .gz ends too early"),
        (whole[: len(whole) // 2], "the .gz ends too early"),
        (whole[: len(whole) // 2] + b"\xff" * 99 + whole[len(whole) // 2 + 99 :], "the .gz is damaged"),
        (b"no gzip", "after row 0: the .gz is damaged"),
    ):
        path.write_bytes(content)
        code, printed, said = ponder("submit", str(path), *FIELDS)
        assert (code, printed, said.count("\n")) == (exit_code.USAGE, "", 1)
        assert said.startswith(f"error: {path}, after row ")
        assert what in said
        assert "nothing was submitted" in said
    assert json.loads(ponder("batches", "--format", "json")[1]) == []


def test_field_names_and_errors_reach_no_terminal_as_escape_sequences(ponder: Ponder, tmp_path: Path) -> None:
    path = tmp_path / "problems.csv"
    path.write_text("\x1b]0;owned\x07,\x9b31mred\nx,y\n")
    code, _, said = ponder("submit", str(path), "--model", "\x1b[2J")
    assert code == exit_code.USAGE
    assert r"the fields '\x1b]0;owned\x07', '\x9b31mred'" in said
    assert ponder("submit", str(path), "--prompt", "\x1b[2J")[2].count("\x1b") == 0


def test_failed_jobs_are_retried_as_a_batch_of_their_own(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path
) -> None:
    worker(2)
    batch = ponder("submit", str(problems), *FIELDS)[1].strip()
    code, _, said = ponder("watch", batch)
    assert code == exit_code.SOME_JOBS_FAILED
    assert "1 failed" in said
    assert json.loads(ponder("results", batch, "--errors")[1])["custom_id"] == "row-2"
    again = ponder("retry", batch)[1].strip()
    assert json.loads(ponder("watch", again, "--format", "json")[1])["request_counts"]["total"] == 1
    assert [row["id"] for row in json.loads(ponder("batches", "--format", "json")[1])] == [again, batch]


def test_a_job_is_shown_with_its_tree_attempts_and_cost(ponder: Ponder, worker: Worker, problems: Path) -> None:
    batch = json.loads(ponder("submit", str(problems), *FIELDS, "--format", "json")[1])["id"]
    ponder("watch", batch)
    code, printed, _ = ponder("show", f"{batch}/row-3")
    assert code == exit_code.SETTLED
    for said in (
        "row-3, line 3",
        "completed, verdict passed",
        "✓ -0.50  3 + 4 = 7 ⏎ Answer: 7  = 7",
        "✗ -4.00",
        "cpu (on_demand)",
        "settled",
    ):
        assert said in printed
    job_id = printed.split()[0]
    assert json.loads(ponder("show", job_id, "--format", "json")[1])["custom_id"] == "row-3"
    assert ponder("show", f"{batch}/none")[0] == exit_code.FAILED


def test_a_page_of_the_console_is_opened_signed_in(
    ponder: Ponder, worker: Worker, problems: Path, base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = ponder("submit", str(problems), *FIELDS)[1].strip()
    ponder("watch", batch)
    job = json.loads(ponder("show", f"{batch}/row-3", "--format", "json")[1])["id"]
    for what, path in (
        ("", "/"),
        (batch, f"/batches/{batch}"),
        (f"{batch}/row-3", f"/jobs/{job}"),
        (job, f"/jobs/{job}"),
    ):
        code, address, _ = ponder("open", "--print", *filter(None, [what]))
        assert code == exit_code.SETTLED
        signed_in = httpx2.get(address.strip())
        assert signed_in.headers["Location"] == path
        assert "ponder_session" in signed_in.headers["Set-Cookie"]
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)))
    said = ponder("open", batch)[2]
    assert opened[0] in said
    assert opened[0].startswith(f"{base_url}/sign-in/")


def test_a_page_of_nothing_is_not_opened(ponder: Ponder) -> None:
    for what in ("batch_0", "job_1", "batch_0/row-1", "nonsense"):
        assert ponder("open", "--print", what)[0] == exit_code.FAILED


def test_show_ends_with_the_address_of_the_page(ponder: Ponder, worker: Worker, problems: Path, base_url: str) -> None:
    batch = ponder("submit", str(problems), *FIELDS)[1].strip()
    ponder("watch", batch)
    assert ponder("show", batch)[1].endswith(f"{base_url}/batches/{batch}\n")
    assert f"{base_url}/jobs/job_" in ponder("show", f"{batch}/row-1")[1].splitlines()[-1]


def test_a_job_and_its_batch_say_what_their_traces_are_and_the_job_is_found_by_its_own(
    ponder: Ponder, world: Any
) -> None:
    batch = world.batch(tenant=world.sql("SELECT tenant_id FROM api_keys")[0].tenant_id)
    (job,) = world.jobs(batch)
    assert "trace" not in ponder("show", f"job_{job}")[1]
    world.sql("UPDATE batches SET traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'")
    trace = f"{trace_of(batch, job):032x}"
    assert f"trace     {trace}" in ponder("show", f"job_{job}")[1]
    assert ponder("show", trace)[1] == ponder("show", f"job_{job}")[1]
    assert "trace     4bf92f3577b34da6a3ce929d0e0e4736" in ponder("show", batch)[1]


def test_an_attempt_says_which_notice_ended_it_and_how_long_before(ponder: Ponder, world: Any) -> None:
    world.batch(tenant=world.sql("SELECT tenant_id FROM api_keys")[0].tenant_id)
    noticed, dead, told = world.worker(), world.worker(), world.worker()
    (job,) = world.claim_all(noticed)
    world.release(noticed, reason="aws notice, 118 s before")
    world.claim_all(dead)
    world.lapse(dead)
    sweep(world.engine, shard_tokens=1_000)
    world.claim_all(told)

    shown = ponder("show", f"job_{job}")[1]
    assert "preempted by aws notice, 118 s before" in shown
    assert "lost: its lease expired" in shown
    assert "running" in shown
    attempts = json.loads(ponder("show", f"job_{job}", "--format", "json")[1])["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["aws notice, 118 s before", "its lease expired", None]

    world.sql("UPDATE attempts SET ended_at = ended_at - interval '1 second' WHERE outcome = 'preempted'")
    attempts = json.loads(ponder("show", f"job_{job}", "--format", "json")[1])["attempts"]
    assert attempts[0]["reason"] is None, "it ended before its worker did"


def test_every_accuracy_is_marked_if_a_search_could_see_the_reference(
    ponder: Ponder, worker: Worker, problems: Path
) -> None:
    batch = ponder("submit", str(problems), *FIELDS, "--oracle", "--max-rounds", "3")[1].strip()
    watched = json.loads(ponder("watch", batch, "--format", "json")[1])
    assert watched["ponder"]["num_oracle"] == 4
    assert watched["ponder"]["options"]["max_rounds"] == 3
    assert "may have consulted the reference" in ponder("show", f"{batch}/row-1")[1]
    bodies = [json.loads(line)["response"]["body"] for line in ponder("results", batch)[1].splitlines()]
    assert [body["ponder"]["oracle"] for body in bodies] == [True] * 4
    _, printed, said = ponder("report", "cost")
    assert printed.splitlines()[0].endswith("oracle")
    assert printed.splitlines()[1].endswith("4")
    assert "may have consulted the reference" in said


def test_what_a_model_judged_is_kept_apart_in_every_table_where_there_is_any(
    ponder: Ponder, worker: Worker, problems: Path, engine: Engine
) -> None:
    plain = ponder("submit", str(problems), *FIELDS)[1].strip()
    ponder("watch", plain)
    assert "verdict passed\n" in ponder("show", f"{plain}/row-1")[1]
    reports = (["cost"], ["quality"], ["what-if", "--market", "on_demand"])
    for report in reports:
        _, printed, said = ponder("report", *report)
        assert "by judge" not in printed + said
        assert "agreement" not in printed + said
    batch = ponder("submit", str(problems), *FIELDS, "--verifier", "judge")[1].strip()
    ponder("watch", batch)
    with engine.begin() as connection:
        checked = "UPDATE jobs SET checked = CASE line WHEN 1 THEN 'passed' ELSE 'failed' END WHERE judged AND line < 3"
        connection.execute(text(checked))
        connection.execute(text("UPDATE usage SET judge_tokens = 5"))
    _, shown, _ = ponder("show", f"{batch}/row-2")
    assert "verdict passed by a judge; compared with the reference: failed" in shown
    assert "12 generated, 5 of them by judges" in shown
    assert "verdict passed by a judge\n" in ponder("show", f"{batch}/row-3")[1]
    for report in reports:
        _, printed, said = ponder("report", *report, "--by", "batch")
        header, *rows = (line.split("\t") for line in printed.splitlines())
        assert sorted(row[header.index("by judge")] for row in rows) == ["0", "4"]
        if "agreement" in header:
            assert sorted(row[header.index("agreement")] for row in rows) == ["50.0% of 2", "–"]
            assert "passed because a model said so" in said
    assert "by judge" in ponder("report", "cost", "--compare", batch, "strategy=direct")[1]


def test_a_verifier_with_parameters_is_given_as_json(ponder: Ponder, worker: Worker, problems: Path) -> None:
    verifier = '{"name": "regex", "pattern": "= 7$"}'
    batch = ponder("submit", str(problems), *FIELDS, "--verifier", verifier, "--max-rounds", "2")[1].strip()
    ponder("watch", batch)
    request = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])["request"]
    assert request["verifier"] == {"name": "regex", "pattern": "= 7$", "match": "part", "ignore_case": False}
    assert (request["max_rounds"], request["oracle"]) == (2, False)


def test_parameters_of_a_strategy_are_text_or_json(ponder: Ponder, worker: Worker, problems: Path) -> None:
    params = ["--param", "exploration=0.5", "--param", "separator=;", "--param", 'aggregate="min"']
    options = ["--strategy", "mcts", "--n", "3", "--width", "2", *params, "--budget-thinking", "99"]
    batch = ponder("submit", str(problems), *FIELDS, *options)[1].strip()
    ponder("watch", batch)
    request = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])["request"]
    assert request["strategy"] == {
        "name": "mcts", "n": 3, "width": 2, "exploration": 0.5, "separator": ";", "aggregate": "min", "max_rounds": 40
    }  # fmt: skip
    assert {name: limit for name, limit in request["budget"].items() if limit} == {"thinking_tokens": 99}


def test_the_stages_of_a_cascade_are_a_parameter_and_shown_with_the_job(
    ponder: Ponder, worker: Worker, problems: Path
) -> None:
    stages = '[{"strategy": "best_of_n", "accept": {"by": "reward"}}, {"model": "demo"}]'
    options = ["--strategy", "cascade", "--param", f"stages={stages}", "--param", "show_tried=true"]
    batch = ponder("submit", str(problems), *FIELDS, *options)[1].strip()
    ponder("watch", batch)
    shown = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])
    assert [stage["model"] for stage in shown["stages"]] == ["demo", "demo"]
    assert shown["request"]["strategy"]["stages"][0]["strategy"]["n"] == 8
    assert "stage 1" in ponder("show", f"{batch}/row-1")[1]


def test_options_about_sampling_are_fields_of_every_line(ponder: Ponder, worker: Worker, problems: Path) -> None:
    options = ["--top-k", "5", "--min-p", "0.1", "--repetition-penalty", "1.1", "--min-tokens", "2", "--ignore-eos"]
    options += ["--stop-token-ids", "7,8", "--logit-bias", '{"9": -1}']
    batch = ponder("submit", str(problems), *FIELDS, *options)[1].strip()
    ponder("watch", batch)
    sampling = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])["request"]["sampling"]
    sent = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "ignore_eos": True}
    sent |= {"stop_token_ids": [7, 8], "logit_bias": {"9": -1.0}}
    assert {name: sampling[name] for name in sent} == sent


def test_options_about_structure_hold_every_answer_to_it(ponder: Ponder, worker: Worker, problems: Path) -> None:
    def request(*options: str) -> Any:
        batch = ponder("submit", str(problems), *FIELDS, *options)[1].strip()
        ponder("watch", batch)
        return json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])["request"]

    assert request("--structure", '{"regex": "[0-9]+"}')["structure"] == {"regex": "[0-9]+"}
    formed = request("--response-format", '{"type": "json_object"}')
    assert formed["structure"] == {"json_schema": {"type": "object"}}
    assert ponder("submit", str(problems), *FIELDS, "--structure", "[0-9]+")[0] == exit_code.USAGE


def test_options_about_the_chat_template_are_fields_of_every_line(
    ponder: Ponder, worker: Worker, problems: Path
) -> None:
    options = ["--reasoning-effort", "low", "--chat-template-kwargs", '{"tone": "dry"}', "--no-add-generation-prompt"]
    batch = ponder("submit", str(problems), *FIELDS, *options, "--top-logprobs", "3")[1].strip()
    ponder("watch", batch)
    request = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])["request"]
    assert request["template"] == {
        "kwargs": {"reasoning_effort": "low", "enable_thinking": True, "tone": "dry"},
        "add_generation_prompt": False,
        "continue_final_message": False,
    }
    assert request["effort"] == {"tokens": 4096, "thinking_tokens": 4096}
    assert (request["sampling"]["logprobs"], request["sampling"]["top_logprobs"]) == (True, 3)


def test_a_data_set_can_be_completed_as_text(ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ["--endpoint", "/v1/completions", "--top-logprobs", "2", "--max-tokens", "9"]
    assert ponder("run", str(problems), *FIELDS, *options, "-o", str(out))[0] == exit_code.SETTLED
    body = read(out)[0]["response"]["body"]
    assert (body["object"], body["choices"][0]["text"]) == ("text_completion", "3 + 4 = 7\nAnswer: 7")
    batch = ponder("submit", str(problems), *FIELDS, *options)[1].strip()
    ponder("watch", batch)
    job = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])
    assert job["request"]["prompt"] == json.loads(problems.read_text().splitlines()[0])["question"]
    assert job["request"]["sampling"]["top_logprobs"] == 2
    assert job["request"]["prompt"] in ponder("show", f"{batch}/row-1")[1]


def test_batch_lines_name_their_endpoint_themselves(ponder: Ponder, worker: Worker, tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"model": "demo", "prompt": "Once"}
    path.write_text(json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}))
    assert ponder("run", str(path), "-o", str(out))[0] == exit_code.SETTLED
    assert read(out)[0]["response"]["body"]["object"] == "text_completion"


def test_n_is_the_number_of_choices_where_a_strategy_has_none_of_its_own(
    ponder: Ponder, worker: Worker, problems: Path
) -> None:
    batch = ponder("submit", str(problems), *FIELDS, "--strategy", "budget_forcing", "--n", "2")[1].strip()
    ponder("watch", batch)
    request = json.loads(ponder("show", f"{batch}/row-1", "--format", "json")[1])["request"]
    assert request["n"] == 2
    assert "n" not in request["strategy"]


def test_control_characters_are_shown_and_not_obeyed(ponder: Ponder, worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"question": "\x1b[31m1 + 1 :smile: [red]?", "answer": "\x1b]0;title\x07 2"}))
    batch = json.loads(ponder("submit", str(path), *FIELDS, "--format", "json")[1])["id"]
    ponder("watch", batch)
    printed = ponder("show", f"{batch}/row-1")[1]
    assert "\ufffd[31m1 + 1 :smile: [red]?" in printed
    assert "expected \ufffd]0;title" in printed


def test_the_same_idempotency_key_is_the_same_batch(ponder: Ponder, worker: Worker, problems: Path) -> None:
    ids = {ponder("submit", str(problems), *FIELDS, "--idempotency-key", "once")[1] for _ in range(2)}
    assert len(ids) == 1


def test_ctrl_c_stops_only_the_watching_and_says_how_to_go_on(
    ponder: Ponder, problems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    batch = ponder("submit", str(problems), *FIELDS)[1].strip()
    monkeypatch.setattr("ponder.cli.progress.follow", interrupt)
    code, _, said = ponder("watch", batch)
    assert code == exit_code.INTERRUPTED
    assert f"ponder watch {batch}" in said
    assert watch.PATIENCE_S > 60
    assert ponder("cancel", batch)[0] == exit_code.SETTLED


def test_results_are_followed_until_the_batch_has_ended(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path
) -> None:
    worker(2)
    batch = ponder("submit", str(problems), *FIELDS)[1].strip()
    code, printed, _ = ponder("results", batch, "--follow")
    assert code == exit_code.SETTLED
    assert [json.loads(line)["custom_id"] for line in printed.splitlines()] == ["row-1", "row-3", "row-4"]
    assert [json.loads(ponder("results", batch, "--follow", "--errors")[1])["custom_id"]] == ["row-2"]
    out = tmp_path / "out.jsonl"
    assert ponder("results", batch, "--follow", "-o", str(out), "--errors")[0] == exit_code.USAGE
    assert ponder("results", batch, "--follow", "-o", str(out))[0] == exit_code.SETTLED
    assert [line.get("cursor") for line in read(out)] == [None] * 3, "in the end it is the output file"
    assert [line["custom_id"] for line in read(tmp_path / "out.errors.jsonl")] == ["row-2"]
    assert ponder("results", "batch_00", "--follow")[0] == exit_code.FAILED


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the API say soon that no line comes."""
    monkeypatch.setattr(result_lines, "_HEARTBEAT_S", 0.2)


def test_whoever_follows_the_results_of_a_paused_batch_is_told_and_gets_them_later(
    ponder: Ponder, problems: Path, engine: Engine, impatient: None, request: pytest.FixtureRequest
) -> None:
    batch = ponder("submit", str(problems), *FIELDS)[1].strip()
    ponder("pause", batch)
    request.getfixturevalue("worker")  # only now, so that it has not run the jobs before

    def resume() -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE batches SET paused_at = NULL"))

    timer = Timer(4.0, resume)
    timer.start()
    code, printed, said = ponder("results", batch, "--follow")
    timer.join()
    assert (code, len(printed.splitlines())) == (exit_code.SETTLED, 4)
    assert said.count(f"waiting: the batch is paused: `ponder resume {batch}` continues it") == 1


def test_a_run_writes_while_it_runs_and_goes_on_after_ctrl_c_without_a_duplicate_line(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, key = tmp_path / "out.jsonl", ("--idempotency-key", "once")
    out.write_text("of an earlier batch\n")
    seen: list[str] = []

    def interrupt(*_: Any, each_round: Callable[[], None], **__: Any) -> None:
        until(lambda: _num_numbered(engine) == 4, 30)
        each_round()
        seen.append(out.read_text())
        out.write_text("".join(line + "\n" for line in seen[0].splitlines()[:2]) + '{"id": "torn')
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ponder.cli.progress.follow", interrupt)
        code, _, said = ponder("run", str(problems), *FIELDS, *key, "-o", str(out))
    assert code == exit_code.INTERRUPTED
    assert f"--follow -o {out}` goes on" in said
    assert [json.loads(line)["custom_id"] for line in seen[0].splitlines()] == ["row-1", "row-2", "row-3", "row-4"]

    assert ponder("run", str(problems), *FIELDS, *key, "-o", str(out))[0] == exit_code.SETTLED
    assert [line["custom_id"] for line in read(out)] == ["row-1", "row-2", "row-3", "row-4"]


def _num_numbered(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT coalesce(max(last_number), 0) FROM result_runs")).scalar_one())


def test_a_run_ends_at_its_budget_and_goes_on_once_it_is_raised(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path, impatient: None
) -> None:
    """The worker generates 12 tokens a job, and each reserves 20."""
    out = tmp_path / "out.jsonl"
    code, _, said = ponder(
        "run", str(problems), *FIELDS, "--budget-tokens", "20", "--max-tokens-total", "45", "-o", str(out)
    )
    assert code == exit_code.BUDGET_EXHAUSTED
    num_done = len(read(out))
    assert 0 < num_done < 4
    assert f"stopped at a budget: {num_done} of 4 jobs completed" in said
    batch_id = re.search(r"batch_\w+", said)
    assert batch_id is not None
    assert f"`ponder budget {batch_id[0]}` raises it" in said
    for more in ((), ("-o", str(tmp_path / "followed.jsonl"))):
        code, _, said = ponder("results", batch_id[0], "--follow", *more)
        assert code == exit_code.BUDGET_EXHAUSTED
        assert f"`ponder budget {batch_id[0]}` raises it" in said
    assert len(read(tmp_path / "followed.jsonl")) == num_done

    assert "of 45 tokens generated" in ponder("budget", batch_id[0])[2]
    assert "of 100 tokens generated" in ponder("budget", batch_id[0], "--max-tokens-total", "100")[2]
    assert ponder("watch", batch_id[0])[0] == exit_code.SETTLED
    assert ponder("results", batch_id[0], "-o", str(out))[0] == exit_code.SETTLED
    assert len(read(out)) == 4


def test_a_batch_can_be_paused_and_resumed(ponder: Ponder, problems: Path) -> None:
    batch_id = ponder("submit", str(problems), *FIELDS)[1].strip()
    code, _, said = ponder("pause", batch_id)
    assert (code, said) == (exit_code.SETTLED, f"{batch_id} is paused: `ponder resume {batch_id}` continues it\n")
    assert ponder("resume", batch_id) == (exit_code.SETTLED, "", f"{batch_id} continues\n")
    assert ponder("cancel", batch_id)[0] == exit_code.SETTLED
    assert ponder("pause", batch_id)[0] == exit_code.FAILED


def test_results_are_kept_for_as_long_as_the_batch_or_its_tenant_says_and_pruned_on_demand(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out.jsonl")
    run_it = ("run", str(problems), *FIELDS, "-o", out, "--format", "json")
    batch = json.loads(ponder(*run_it, "--output-expires-after", "1d12h")[1])
    assert batch["ponder"]["results_expire_at"] - batch["completed_at"] == 36 * 3600
    tenant = json.loads(ponder("tenant", "list", "--format", "json")[1])[0]
    code, _, said = ponder("tenant", "retention", tenant["id"], "30d")
    assert (code, said) == (exit_code.SETTLED, "home: results are kept 30 days\n")
    assert "30 days" in ponder("tenant", "list")[1]
    assert "for ever" in ponder("tenant", "retention", tenant["id"])[2]

    code, _, said = ponder("prune", "--dry-run", "--older-than", "0s")
    assert code == exit_code.SETTLED
    assert "would delete 1 batches with 4 lines, 2 files: 0.0 MB" in said
    assert "0 batches" in ponder("prune", "--older-than", "1h")[2]
    assert json.loads(ponder("prune", "--older-than", "0s", "--format", "json")[1])["lines"] == 4
    code, _, said = ponder("results", batch["id"], "--follow")
    assert code == exit_code.FAILED
    assert "expired on" in said
    code, _, said = ponder("prune", "--older-than", "soon")
    assert (code, "'soon' is no duration" in said) == (exit_code.USAGE, True)


def test_openai_lines_run_with_another_model(ponder: Ponder, worker: Worker, tmp_path: Path) -> None:
    body = {"model": "gpt-3.5-turbo-0125", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1000}
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(3)]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out.jsonl"
    assert ponder("run", str(path), "-o", str(out))[0] == exit_code.SOME_JOBS_FAILED
    assert len(read(tmp_path / "out.errors.jsonl")) == 3
    assert ponder("run", str(path), "--model", "demo", "-o", str(out))[0] == exit_code.SETTLED
    assert len(read(out)) == 3


def test_administration(ponder: Ponder) -> None:
    tenant = ponder("tenant", "create", "acme")[1].strip()
    assert tenant in ponder("tenant", "list")[1]
    key = ponder("key", "create", "ci", "--tenant", "acme", "--role", "read")[1].strip()
    assert key.startswith("pk-")
    rows = json.loads(ponder("key", "list", "--format", "json")[1])
    (made,) = [row for row in rows if row["name"] == "ci"]
    assert key not in json.dumps(rows)
    assert made["role"] == "read"
    assert ponder("key", "revoke", made["id"])[0] == exit_code.SETTLED
    assert ponder("price", "set", "h200", "spot", "2.5", "--source", "a test")[0] == exit_code.SETTLED
    prices = json.loads(ponder("price", "list", "--format", "json")[1])
    assert ("h200", "spot", 2_500_000_000) in [(p["machine"], p["market"], p["nanodollars_per_hour"]) for p in prices]
    assert ponder("price", "set", "h200", "spot", "cheap", "--source", "x")[0] == exit_code.USAGE


def test_mistakes_are_one_message_and_exit_code_two(ponder: Ponder, problems: Path, tmp_path: Path) -> None:
    for arguments, said in [
        (["run", str(tmp_path / "none.jsonl")], "there is no such file"),
        (["run", str(problems)], "Perhaps `--prompt question` and `--answer answer`"),
        (["run", str(problems), *FIELDS, "-o", str(tmp_path / "no" / "out")], "cannot be written"),
        (["submit", str(problems), *FIELDS, "--window", "9 years"], "window"),
        (["submit", str(problems), *FIELDS, "--metadata", "x"], "KEY=VALUE"),
        (["submit", str(problems), *FIELDS, "--width", "3"], "--strategy"),
        (["submit", str(problems), *FIELDS, "--stop-token-ids", "</s>"], "commas between"),
        (["submit", str(problems), *FIELDS, "--logit-bias", "[1]"], "a JSON object"),
        (["submit", str(problems), *FIELDS, "--logit-bias", "{1"], "not JSON"),
        (["submit", str(problems), *FIELDS, "--param", "n=3"], "--strategy"),
        (["submit", str(problems), *FIELDS, "--strategy", "mcts", "--param", "n"], "NAME=VALUE"),
        (
            ["submit", str(problems), *FIELDS, "--strategy", "mcts", "--param", "depth=3"],
            "mcts has no depth: its parameters are n, max_rounds, separator, aggregate, width, exploration",
        ),
        (
            ["submit", str(problems), *FIELDS, "--strategy", "direct", "--width", "2"],
            "direct has no width: it has no parameters",
        ),
        (
            ["submit", str(problems), *FIELDS, "--strategy", "rebase", "--param", "temperature=warm"],
            "strategy.temperature",
        ),
        (["submit", str(problems), *FIELDS, "--strategy", "cascade"], "strategy.stages: is missing"),
        (
            ["submit", str(problems), *FIELDS, "--strategy", "cascade", "--param", 'stages=[{}, {"model": "large"}]'],
            "stage 0 does not say when its answer is good enough",
        ),
        (["submit", str(problems), *FIELDS, "--verifier", "{name"], "nor JSON"),
        (["submit", str(problems), *FIELDS, "--verifier", "divination"], "verifier"),
        (["report", "cost", "--by", "colour"], "not one of strategy"),
    ]:
        code, printed, error = ponder(*arguments)
        assert (code, printed) == (exit_code.USAGE, ""), arguments
        assert said in error
        assert "Traceback" not in error


def test_a_watch_says_that_no_dispatcher_runs(ponder: Ponder, problems: Path, engine: Engine) -> None:
    batch_id = ponder("submit", str(problems), *FIELDS)[1].strip()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM dispatcher"))

    def end() -> None:
        assert run(["cancel", batch_id]) == exit_code.SETTLED
        with engine.begin() as connection:
            finish(connection)

    timer = Timer(2.0, end)
    timer.start()
    _, _, said = ponder("watch", batch_id)
    timer.join()
    assert "waiting: the dispatcher is not running: never seen: start one with `ponder dispatcher`" in said


def test_every_report_is_a_table_json_and_csv(ponder: Ponder, problems: Path, tmp_path: Path, worker: Worker) -> None:
    worker(2)
    ponder("run", str(problems), *FIELDS, "--strategy", "best_of_n", "-o", str(tmp_path / "out.jsonl"))
    for report in (["cost"], ["waste"], ["latency"], ["quality"], ["what-if", "--market", "on_demand"]):
        arguments = ["report", *report, "--by", "strategy,day"]
        code, printed, said = ponder(*arguments)
        assert code == exit_code.SETTLED, said
        assert printed.startswith("strategy\tday\t")
        rows = json.loads(ponder(*arguments, "--format", "json")[1])
        assert {row["strategy"] for row in rows} >= {"best_of_n"}
        header, *lines = ponder(*arguments, "--format", "csv")[1].splitlines()
        assert header.split(",") == list(rows[0])
        assert len(lines) == len(rows)
    assert ponder("report", "spending")[1].startswith("day\tcompleted\tfailed\tgenerated_tokens\tdirect\n")
    (spent,) = json.loads(ponder("report", "spending", "--by", "day,tenant", "--format", "json")[1])
    assert spent["completed"] + spent["failed"] == 4
    code, _, said = ponder("report", "cost", "--compare", "strategy=best_of_n", "strategy=best_of_n")
    assert code == exit_code.SETTLED
    assert "a success of A costs 1 times that of B" in said
    assert "may be chance" in said
    assert "paired by prompt: 4 problems are in both" in said
    assert ponder("report", "cost", "--since", "yesterday")[0] == exit_code.USAGE


def test_the_plan_of_the_fleet_is_a_table_and_json(ponder: Ponder, worker: Any, problems: Path) -> None:
    assert ponder("run", str(problems), *FIELDS, "-o", str(problems.parent / "out.jsonl"))[0] == exit_code.SETTLED
    code, said, _ = ponder("fleet", "plan", "--model", "demo")
    assert code == exit_code.SETTLED
    assert said.startswith("demo (f0): 0 tokens wait, 1 worker runs\n  no work waits")
    assert "alternative\tworkers\tuntil done\tdone in\tlate tokens\nnothing\t–" in said
    (planned,) = json.loads(ponder("fleet", "plan", "--min", "1", "--json")[1])
    assert [(one["num_workers"], one["reason"]) for one in planned["wanted"]] == [(1, "1 for the minimum of 1")]
    assert ponder("fleet", "plan", "--model", "nobody")[0] == exit_code.FAILED
    assert ponder("fleet", "plan", "--max-dollars-per-hour", "much")[0] == exit_code.USAGE
    assert ponder("fleet", "plan", "--min", "2", "--max", "1")[0] == exit_code.USAGE


def test_beside_an_autoscaler_the_plan_says_whose_it_is(
    ponder: Ponder, worker: Any, problems: Path, engine: Engine
) -> None:
    assert ponder("run", str(problems), *FIELDS, "-o", str(problems.parent / "out.jsonl"))[0] == exit_code.SETTLED
    assert "no autoscaler is active" in ponder("fleet", "plan")[2]
    places = frozenset({("cpu", "on_demand")})
    bounds = Bounds(max_workers=2, max_nanodollars_per_hour=500_000_000)
    with engine.connect() as active:
        active.execute(text(f"SELECT pg_advisory_lock({LEADER})"))
        record_scope(active, Scope((), bounds, places, places))
        active.commit()
        limits = "at most 2 workers, at most $0.50 an hour, on cpu (on_demand)"
        assert ponder("fleet", "plan")[2] == f"the active autoscaler's plan: {limits}\n"
        code, said, heading = ponder("fleet", "plan", "--min", "3", "--max", "9", "--machine", "cpu:on_demand")
        assert heading.startswith("what the active autoscaler would plan with these options: at least 3 of each model")
        assert (code, "cpu\ton_demand\t3\t3 for the minimum of 3" in said) == (exit_code.SETTLED, True)
        code, _, said = ponder("fleet", "plan", "--machine", "cpu")
        assert (code, "'cpu' is not MACHINE:on_demand or MACHINE:spot" in said) == (exit_code.USAGE, True)
        active.execute(text("SELECT pg_advisory_unlock_all()"))


def test_prices_are_imported_from_a_file_by_machine_market_and_gpu(ponder: Ponder, tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    header = "Cloud,GPU Type,GPU Arch,GPUs,GPU RAM,vCPUs,RAM,On-demand,Per-GPU,Spot,Name\n"
    file.write_text(
        header + "AWS,V100 (16 GB),Volta,4,64,32,244,12.24,3.06,3.67,p3.8xlarge\n"
        "FluidStack,H100 (80 GB),Hopper,1,80,48,256,4.76,4.76,,\n"
    )
    code, _, said = ponder("price", "import", str(file), "--source", "a list", "--billed-by", "hour")
    assert (code, "3 prices of 2 machines" in said) == (exit_code.SETTLED, True), said
    prices = json.loads(ponder("price", "list", "--format", "json")[1])
    made = {(p["machine"], p["market"]): (p["nanodollars_per_hour"], p["billed_by"]) for p in prices}
    assert made["aws-p3.8xlarge", "on_demand"] == (3_060_000_000, "hour")
    assert made["aws-p3.8xlarge", "spot"] == (917_500_000, "hour")
    assert made["fluidstack-h100-80-gb-1", "on_demand"] == (4_760_000_000, "hour")
    file.write_text(header + "AWS,V100 (16 GB),Volta,4,64,32,244,a lot,3.06,,p3.8xlarge\n")
    code, _, said = ponder("price", "import", str(file), "--source", "a list")
    assert (code, "line 2: On-demand" in said) == (exit_code.USAGE, True), said
    file.write_text("Cloud,GPUs\n")
    assert "no column GPU Type" in ponder("price", "import", str(file), "--source", "a list")[2]


def test_estimate_takes_what_run_takes_and_leaves_nothing_behind(
    ponder: Ponder, worker: Worker, problems: Path, tmp_path: Path, engine: Engine
) -> None:
    options = (*FIELDS, "--level", "level", "--strategy", "best_of_n")
    assert ponder("run", str(problems), *options, "-o", str(tmp_path / "out.jsonl"))[0] == exit_code.SETTLED
    code, printed, said = ponder("estimate", str(problems), *options, "--workers", "3")
    assert code == exit_code.SETTLED
    assert "4 rows read, 4 estimated, 0 refused" in said
    assert "4 jobs; nothing was submitted" in said
    header, *rows = [line.split("\t") for line in printed.splitlines()]
    assert header == ["total", "estimate", "low", "high", "rests on"]
    assert [row[0] for row in rows] == [
        "prompt tokens",
        "generated tokens",
        "reward tokens",
        "direct cost",
        "loaded cost",
        "time, 1 worker",
        "time, 3 workers",
    ]
    assert rows[1][4] == "4 jobs: 4 settled of the same strategy and level"
    assert rows[3][1].startswith("$")

    found = json.loads(ponder("estimate", str(problems), *options, "--json")[1])
    assert found["jobs"] == 4
    assert found["wall_seconds_asked"] is None
    assert {part["level"] for part in found["parts"]} == {"0", "1"}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM batches")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM files WHERE filename = 'estimate.jsonl' "
                                       "AND deleted_at IS NULL")).scalar_one() == 0  # fmt: skip


def test_an_operator_sets_and_lifts_the_budgets_of_tenants_and_keys(ponder: Ponder) -> None:
    tenant = ponder("tenant", "create", "shop")[1].strip()
    assert f"{tenant}: no budget" in ponder("tenant", "budget", tenant)[2]
    said = ponder("tenant", "budget", tenant, "--dollars-per-day", "2.5", "--tokens-per-month", "1000")[2]
    assert f"{tenant}: $0 of $2.50 spent; the day ends at " in said
    assert f"{tenant}: 0 of 1,000 tokens generated; the month ends at " in said
    said = ponder("tenant", "budget", tenant, "--tokens-per-day", "7", "--lift")[2]
    assert "0 of 7 tokens generated; the day ends at " in said
    assert "month" not in said
    key = json.loads(ponder("key", "create", "theirs", "--tenant", tenant, "--format", "json")[1])["id"]
    document = json.loads(ponder("key", "budget", key, "--dollars-per-month", "1", "--format", "json")[1])
    assert (document["key"], document["day"], document["month"]["limit_nanodollars"]) == (key, None, 10**9)


class TestWebhooks:
    @pytest.fixture
    def settings(self) -> Settings:
        return Settings(webhook_key=SecretStr("a key of the operator"))

    def test_a_webhook_is_set_shown_and_removed_and_its_secret_printed_once(
        self, ponder: Ponder, worker: Worker, problems: Path
    ) -> None:
        code, secret, said = ponder("tenant", "webhook", "https://example.com/hook")
        assert (code, secret[:6]) == (0, "whsec_")
        assert "events go to https://example.com/hook, 0 wait" in said
        assert ponder("tenant", "webhook")[1] == ""
        assert ponder("tenant", "webhook", "--new-secret")[1] not in ("", secret)
        assert "events go to nobody" in ponder("tenant", "webhook", "--remove")[2]
        assert ponder("tenant", "webhook", "https://example.com/hook", "--remove")[0] == 2
        batch = ponder("submit", str(problems), *FIELDS, "--webhook", "https://example.com/own")[1].strip()
        (document,) = json.loads(ponder("batches", "--format", "json")[1])
        assert (document["id"], document["ponder"]["options"]["webhook"]) == (batch, "https://example.com/own")
