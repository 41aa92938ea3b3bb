"""Jobs from a request to what is settled, in a real engine process with a small random model."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ponder.domain.batch.stages import lesson_scope
from ponder.domain.state import Lane
from ponder_worker.protocol import Admit, Drop, End

from ..process import SCORELESS, STRATEGIES, Process, error_of, job


def test_jobs_of_all_strategies_finish_with_an_answer_a_tree_and_a_bill(shared_process: Process) -> None:
    shared_process.admit(*(job(number, strategy) for number, strategy in enumerate(STRATEGIES)))
    finished, reports = shared_process.finish(len(STRATEGIES))
    weights = dict.fromkeys(finished, 0.0)
    for work in (work for report in reports for work in report.work):
        assert work.kind == "work", "nothing was lost, so nothing was computed again"
        weights[work.job_id] += work.weight
    for number, entry in finished.items():
        assert entry.error is None
        assert entry.finish_reason in ("stop", "length")
        (choice,) = entry.choices
        tree = entry.tree
        chosen = tree["candidates"][tree["chosen"]]
        assert choice.answer == chosen["answer"]
        assert choice.score == chosen["score"]
        assert (choice.score is None) == (STRATEGIES[number]["name"] in SCORELESS)
        made = sum(len(node["ids"]) for node in tree["nodes"])
        assert entry.usage.completion_tokens == made > 0
        assert entry.usage.prompt_tokens > 10
        assert (entry.usage.reward_tokens > 0) == (choice.score is not None)
        assert weights[number] > 0
    assert reports[-1].num_jobs == 0
    assert sum(report.num_steps for report in reports) > 24
    assert 0 <= reports[-1].idle_fraction <= 1


def test_bad_requests_fail_alone_and_say_why(shared_process: Process) -> None:
    shared_process.admit(
        job(10, {"name": "direct"}, prompt="x" * 2000),
        job(11, {"name": "guess"}),
        job(12, {"name": "direct"}),
        job(13, {"name": "direct"}, sampling={"temperature": -1.0}),
        job(14, {"name": "direct"}, messages=[{"role": "user"}]),
        replace(job(15, {"name": "direct"}), request={}),
        replace(job(16, {"name": "direct"}), deltas=({"nodes": [{"node": 7, "state": "?"}]},)),
    )
    finished, _ = shared_process.finish(7)
    assert {error_of(finished[number]).code for number in (15, 16)} == {"invalid_request"}
    assert error_of(finished[10]).code == "context_length_exceeded"
    assert "512" in error_of(finished[10]).message
    assert error_of(finished[11]).code == "invalid_request"
    assert error_of(finished[13]).code == "invalid_request"
    assert "temperature" in error_of(finished[13]).message
    assert finished[12].error is None
    assert not any("xxx" in repr(result) for result in finished.values())


def test_more_messages_than_the_context_has_tokens_are_refused_before_they_are_rendered(
    shared_process: Process,
) -> None:
    empty = [{"role": "user", "content": ""}]
    shared_process.admit(
        job(20, {"name": "direct"}, messages=empty * 250_000), job(21, {"name": "direct"}, messages=empty * 20)
    )
    finished, _ = shared_process.finish(2)
    error = error_of(finished[20])
    assert error.code == "context_length_exceeded"
    assert "250000 messages" in error.message
    assert "512 tokens" in error.message
    assert finished[21].error is None


_SLOW = (
    "{% if messages | length > 300 %}{% for i in range(90000) %}{% for j in range(90000) %}"
    "{% set x = messages[0].role %}{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"
)


def test_a_conversation_that_the_template_never_ends_with_fails_alone_and_holds_up_nobody(
    engine_options: dict[str, Any], tmp_path: Path
) -> None:
    folder = shutil.copytree(engine_options["model"], tmp_path / "model")
    (folder / "chat_template.jinja").write_text(_SLOW)
    process = Process(**engine_options | {"model": str(folder)})
    endless = job(0, {"name": "direct"}, messages=[{"role": "user", "content": "Compute"}] * 400)
    process.admit(endless, *(job(number, {"name": "direct"}) for number in range(1, 4)))
    finished, reports = process.finish(4)
    last = {result.job_id for result in reports[-1].results}
    assert 0 in last, "others waited for it"
    assert all(finished[number].error is None for number in (1, 2, 3))
    assert error_of(finished[0]).code == "invalid_conversation"
    assert "more than 5 s of processor time for 400 messages" in error_of(finished[0]).message
    assert reports[-1].num_jobs == 0
    process.close()


def test_openai_sampling_fields_are_honoured(shared_process: Process) -> None:
    greedy = {"temperature": 0.0}
    shared_process.admit(
        job(20, {"name": "direct"}, n=2, sampling=greedy),
        job(21, {"name": "direct"}, sampling={"seed": 5, "logprobs": True}),
        job(22, {"name": "direct"}, sampling={"seed": 5}),
        job(23, {"name": "direct"}, sampling={"seed": 6}),
        job(24, {"name": "direct"}, sampling=greedy | {"max_tokens": 5}),
        job(25, {"name": "direct"}, n=3),
        job(26, {"name": "direct"}, sampling=greedy | {"frequency_penalty": 2.0, "presence_penalty": 2.0}),
    )
    finished, _ = shared_process.finish(7)
    texts = {number: [choice.text for choice in entry.choices] for number, entry in finished.items()}
    assert texts[20][0] == texts[20][1]
    assert texts[21] == texts[22] != texts[23]
    assert texts[20][0].startswith(texts[24][0])
    assert finished[24].finish_reason == "length"
    assert finished[24].usage.completion_tokens == 5
    assert len(set(texts[25])) > 1
    assert texts[26] != texts[20][:1]
    logprobs = finished[21].choices[0].logprobs
    assert logprobs is not None
    content = logprobs["content"]
    made = bytes(byte for entry in content for byte in entry["bytes"])
    assert made.decode(errors="replace") == texts[21][0]
    assert all(entry["logprob"] <= 0 for entry in content)
    stop = texts[20][0][3]
    shared_process.admit(job(27, {"name": "direct"}, sampling=greedy | {"stop": [stop]}))
    (entry,) = shared_process.finish(1)[0].values()
    assert entry.choices[0].text == texts[20][0][: texts[20][0].index(stop)]
    assert entry.finish_reason == "stop"


def test_a_budget_is_never_passed(shared_process: Process) -> None:
    jobs = [
        job(30 + number, strategy, budget={"tokens": 50}, sampling={"max_tokens": None})
        for number, strategy in enumerate([*STRATEGIES, {"name": "adaptive", "n": 4}])
    ]
    whole = job(60, {"name": "best_of_n", "n": 8}, budget={"tokens": 100, "tokens_per_sample": 20})
    shared_process.admit(*jobs, whole)
    finished, _ = shared_process.finish(len(jobs) + 1)
    assert all(0 < entry.usage.completion_tokens <= 50 for number, entry in finished.items() if number < 60)
    assert finished[60].usage.completion_tokens <= 100
    assert len(finished[60].tree["nodes"]) >= 1 + 5
    assert finished[60].finish_reason == "budget"


def test_what_the_batch_has_learnt_decides_what_a_job_gets_and_it_teaches_the_batch(shared_process: Process) -> None:
    adaptive = {"name": "adaptive", "n": 8}
    scope = lesson_scope({"strategy": adaptive}, shared_process.ready.fingerprint)
    sums = {"solved": 1e6, "spent": 1e6} | {f"1.{bucket}.samples.tokens": 1e9 for bucket in range(3)}
    learned = {f"{scope}:{name}": number for name, number in sums.items()}
    jobs = [job(80 + number, adaptive, batch_id="hopeless" if number < 8 else "new") for number in range(16)]
    shared_process.send(Admit(tuple(jobs), {"hopeless": learned, "other": {"x": 1}}))
    finished, _ = shared_process.finish(16)
    num_nodes = {number: len(entry.tree["nodes"]) - 1 for number, entry in finished.items()}
    assert sum(num_nodes[number] == 1 for number in range(80, 88)) >= 6, "more had helped nobody"
    assert sum(num_nodes[number] > 2 for number in range(88, 96)) >= 6
    for entry in finished.values():
        assert entry.learned[f"{scope}:spent"] == entry.usage.completion_tokens
        assert 0 <= entry.learned[f"{scope}:solved"] <= 1


def test_dropped_jobs_are_forgotten_and_ended_ones_settle_with_what_there_is(shared_process: Process) -> None:
    long = {"max_tokens": 400}
    shared_process.admit(
        job(50, {"name": "direct"}, sampling=long),
        job(51, {"name": "self_consistency", "n": 3}, sampling=long),
    )
    while not shared_process.report().deltas:
        time.sleep(0.02)
    shared_process.send(Drop((50,)))
    shared_process.send(End({51: "deadline"}))
    finished, reports = shared_process.finish(1)
    assert set(finished) == {51}
    assert finished[51].finish_reason == "deadline"
    assert len(finished[51].choices) == 1
    assert finished[51].usage.completion_tokens < 1200
    assert reports[-1].num_jobs == 0


def test_what_the_chat_template_refuses_fails_with_a_clear_message(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('the roles must alternate') }}")
    process = Process(model=str(folder), num_threads=1)
    assert process.ready.has_reward_model is False
    process.admit(job(1, {"name": "direct"}))
    (entry,) = process.finish(1)[0].values()
    assert error_of(entry).code == "invalid_conversation"
    assert "chat template refuses the messages" in error_of(entry).message
    process.close()


def test_out_of_pages_everybody_finishes_and_what_is_computed_again_is_booked_as_such(tiny_llama: Path) -> None:
    process = Process(model=str(tiny_llama), num_threads=1, kv_bytes=512 * 16 * 20)  # 20 pages of 16 tokens
    assert process.ready.context_length == 320
    sampling = {"max_tokens": 100}
    process.admit(*(job(number, {"name": "self_consistency", "n": 4}, sampling=sampling) for number in range(4)))
    finished, reports = process.finish(4)
    assert [entry.error for entry in finished.values()] == [None] * 4
    assert sum(entry.usage.recomputed_tokens for entry in finished.values()) > 0
    again = sum(work.weight for report in reports for work in report.work if work.kind == "recomputed")
    counters = reports[-1].metrics.numbers
    assert counters["num_preemptions"] > 0
    told = sum(entry.usage.recomputed_tokens for entry in finished.values())
    assert told == counters["recomputed_tokens"]
    assert again > 0
    process.close()


def test_an_interactive_job_overtakes_a_full_batch(tiny_llama: Path, reward_llama: Path) -> None:
    """It passes the jobs that wait in the engine, and those that have arrived and not been started."""
    strategy = {"name": "best_of_n", "n": 2}
    process = Process(model=str(tiny_llama), reward_model=str(reward_llama), num_threads=1, max_sequences=2)
    process.admit(*(job(number, strategy) for number in range(40)))
    while process.report().num_steps == 0:
        time.sleep(0.02)
    process.admit(job(99, strategy, lane=Lane.INTERACTIVE))
    order: list[int] = []
    while 99 not in order:
        order += [result.job_id for result in process.report().results]
        time.sleep(0.02)
    process.close()
    assert len(order) < 20


def test_jobs_that_sample_in_waves_end_one_after_the_other(tiny_llama: Path) -> None:
    """The first answers come early, and a machine that vanishes leaves few half-grown trees behind."""
    strategy = {"name": "self_consistency", "n": 12, "early_stopping": "beta"}
    process = Process(model=str(tiny_llama), num_threads=1, max_sequences=8)
    process.admit(*(job(number, strategy) for number in range(16)))
    tokens_at_results: list[float] = []
    while len(tokens_at_results) < 16:
        report = process.report()
        tokens_at_results += [report.metrics.numbers["generated_tokens"]] * len(report.results)
        time.sleep(0.02)
    process.close()
    assert tokens_at_results[3] < tokens_at_results[-1] / 2


def test_a_job_reports_when_its_first_tokens_came_and_keeps_the_times_of_its_first_attempt(
    shared_process: Process,
) -> None:
    clock_s = 1_000_000.0 - time.monotonic()
    earlier = ({"nodes": [], "counts": {"first_token_ms": 7, "first_visible_token_ms": 8}},)
    jobs = (job(80, {"name": "direct"}), replace(job(81, {"name": "direct"}), deltas=earlier))
    shared_process.send(Admit(jobs, clock_s=clock_s))
    finished, _ = shared_process.finish(2)
    after_ms = (clock_s + time.monotonic()) * 1000
    first, resumed = finished[80], finished[81]
    assert first.first_token_ms is not None
    assert 1_000_000_000 <= first.first_token_ms <= after_ms
    assert first.first_visible_token_ms == first.first_token_ms, "this model does not think"
    assert first.tree["rounds"] == [0]
    assert (resumed.first_token_ms, resumed.first_visible_token_ms) == (7, 8)
