"""What the engine process tells of traced jobs, over a real pipe."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

from ponder_worker.engine_process.span_recorder import SpanRecorder
from ponder_worker.protocol import Ask, EndedSpan, Report, ReportRequest, Verdict

from ..process import Process, job

ATTEMPT = 2**64 - 1


def _spans(reports: list[Report], job_id: int) -> list[EndedSpan]:
    return [span for report in reports for span in report.spans if span.job_id == job_id]


def test_a_search_has_a_round_with_its_prefill_and_its_scoring(shared_process: Process) -> None:
    traced = replace(job(701, {"name": "best_of_n", "n": 4}), attempt_span=ATTEMPT)
    began_s = time.monotonic()
    shared_process.admit(traced, job(702, {"name": "best_of_n", "n": 4}))
    _, reports = shared_process.finish(2)
    assert _spans(reports, 702) == []
    spans = {span.name: span for span in _spans(reports, 701)}
    assert spans.keys() == {"round", "prefill", "scoring"}
    assert spans["round"].parent_id == ATTEMPT
    assert spans["prefill"].parent_id == spans["scoring"].parent_id == spans["round"].span_id
    assert spans["round"].facts == {"ponder.round": 1}
    assert spans["prefill"].facts.keys() == {"ponder.tokens.prompt", "ponder.tokens.cached"}
    assert spans["prefill"].ended_s < spans["scoring"].began_s
    assert len({span.span_id for span in spans.values()}) == 3
    for span in spans.values():
        assert began_s < spans["round"].began_s <= span.began_s <= span.ended_s <= spans["round"].ended_s
    num_scores = sum(int(one.facts.get("ponder.scores", 0)) for one in _spans(reports, 701))
    assert num_scores == 4


def test_each_round_that_a_verifier_asks_for_is_a_span_and_so_is_its_verdict(shared_process: Process) -> None:
    verifier = {"verifier": {"name": "exact"}, "max_rounds": 3, "oracle": True, "reference": "4"}
    shared_process.admit(replace(job(703, {"name": "direct"}, **verifier), attempt_span=ATTEMPT))
    reports: list[Report] = []
    shared_process.send(ReportRequest())
    while not any(report.results for report in reports):
        event = shared_process.receive()
        if isinstance(event, Ask):
            shared_process.send(Verdict(event.job_id, event.number, passed=False))
        elif isinstance(event, Report):
            reports.append(event)
            time.sleep(0.05)
            if not event.results:
                shared_process.send(ReportRequest())
    spans = _spans(reports, 703)
    assert Counter(span.name for span in spans) == {"round": 3, "verification": 2, "prefill": 1}
    rounds = [span.span_id for span in spans if span.name == "round"]
    assert [span.parent_id for span in spans if span.name == "verification"] == rounds[:2]
    assert {span.facts["ponder.verdict"] for span in spans if span.name == "verification"} == {"failed"}


def test_a_drained_process_tells_what_was_under_way() -> None:
    ended: list[EndedSpan] = []
    recorder = SpanRecorder(1, ATTEMPT, ended.append)
    recorder.begin_round(1)
    recorder.begin_prefill(9, lambda: False)
    recorder.look(None)
    recorder.begin_score()
    recorder.begin_score()
    recorder.end_score()
    assert ended == []
    recorder.close()
    recorder.close()
    assert [span.name for span in ended] == ["prefill", "scoring", "round"]
    assert ended[1].facts == {"ponder.scores": 2}
