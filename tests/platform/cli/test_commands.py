from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ponder.cli import exit_code
from ponder.cli.commands import watch
from ponder.cli.main import run
from ponder.jobs.dispatching.finish import finish

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
        "a quote is opened in it and never closed",
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


def test_every_accuracy_is_marked_if_a_search_could_see_the_reference(
    ponder: Ponder, worker: Worker, problems: Path
) -> None:
    batch = ponder("submit", str(problems), *FIELDS, "--oracle", "--max-rounds", "3")[1].strip()
    watched = json.loads(ponder("watch", batch, "--format", "json")[1])
    assert watched["ponder"]["num_oracle"] == 4
    assert watched["ponder"]["options"]["max_rounds"] == 3
    assert "what the reference says" in ponder("show", f"{batch}/row-1")[1]
    bodies = [json.loads(line)["response"]["body"] for line in ponder("results", batch)[1].splitlines()]
    assert [body["ponder"]["oracle"] for body in bodies] == [True] * 4
    _, printed, said = ponder("report", "cost")
    assert printed.splitlines()[0].endswith("oracle")
    assert printed.splitlines()[1].endswith("4")
    assert "what the reference says" in said


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
        (["run", str(problems)], "--prompt question --answer answer"),
        (["run", str(problems), *FIELDS, "-o", str(tmp_path / "no" / "out")], "cannot be written"),
        (["submit", str(problems), *FIELDS, "--window", "9 years"], "window"),
        (["submit", str(problems), *FIELDS, "--metadata", "x"], "KEY=VALUE"),
        (["submit", str(problems), *FIELDS, "--width", "3"], "--strategy"),
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
