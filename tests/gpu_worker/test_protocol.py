"""The messages between the two processes of a worker: what survives the trip, and what is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponder.domain.state import Lane
from ponder.jobs.tick_report import Usage, Work
from ponder.processor import Precision
from ponder_worker.protocol import (
    Admit,
    AdmittedJob,
    Ask,
    Choice,
    Command,
    Drain,
    Drop,
    End,
    EngineMetrics,
    Event,
    Failed,
    Histogram,
    InvalidMessage,
    JobError,
    JobResult,
    Learn,
    Loading,
    Ready,
    Report,
    ReportRequest,
    Verdict,
    decode_command,
    decode_event,
    encode,
)

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
ints, finite = st.integers(), st.floats(allow_nan=False, allow_infinity=False)
storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
any_text = st.text(st.characters() | st.sampled_from("\0\ud800\udfff\\u"))


def strategies(text: st.SearchStrategy[str], number: st.SearchStrategy[float]) -> dict[type, st.SearchStrategy[Any]]:
    """One strategy for each type of message. number: of the documents, and of a score."""
    scalar = st.none() | st.booleans() | ints | number | text
    nested = scalar | st.lists(scalar, max_size=2) | st.dictionaries(text, st.lists(scalar, max_size=2), max_size=2)
    document = st.dictionaries(text, nested, max_size=2)
    sums = st.dictionaries(text, finite, max_size=2)
    by_batch = st.dictionaries(text, sums, max_size=2)

    def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
        return st.lists(values, max_size=2).map(tuple)

    job = st.builds(AdmittedJob, ints, text, text, st.sampled_from(Lane), document, some(document))
    choice = st.builds(Choice, text, st.none() | text, text, st.none() | number, st.none() | document)
    error = st.none() | st.builds(JobError, text, text)
    usage = st.builds(Usage, ints, ints, ints, ints, ints, ints)
    result = st.builds(JobResult, ints, error, st.none() | text, some(choice), usage, document, sums)
    weights = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
    work = st.builds(Work, ints, weights, st.sampled_from(["work", "recomputed", "speculated"]))
    histograms = st.dictionaries(text, st.builds(Histogram, some(ints), finite), max_size=2)
    metrics = st.builds(EngineMetrics, st.dictionaries(text, ints | finite, max_size=2), histograms, some(finite))
    return {
        Admit: st.builds(Admit, some(job), by_batch),
        Drop: st.builds(Drop, some(ints)),
        End: st.builds(End, st.dictionaries(ints, st.sampled_from(["dollars", "deadline"]), max_size=2)),
        Learn: st.builds(Learn, by_batch),
        Verdict: st.builds(Verdict, ints, ints, st.none() | st.booleans(), text),
        ReportRequest: st.just(ReportRequest()),
        Drain: st.just(Drain()),
        Loading: st.builds(Loading, text, some(st.builds(Precision, text, text))),
        Ready: st.builds(Ready, text, ints, st.booleans(), ints),
        Failed: st.builds(Failed, text),
        Ask: st.builds(Ask, ints, ints, st.none() | text),
        Report: st.builds(
            Report,
            num_steps=ints,
            awaits_verdicts=st.booleans(),
            work=some(work),
            idle_fraction=finite,
            deltas=st.dictionaries(ints, document, max_size=2),
            results=some(result),
            room_tokens=ints,
            num_jobs=ints,
            is_last=st.booleans(),
            metrics=metrics,
        ),
    }


STORABLE = st.one_of(*strategies(storable, finite).values())
ANYTHING = st.one_of(*strategies(any_text, st.floats()).values())


def decode(message: Command | Event, data: bytes) -> Command | Event:
    return decode_command(data) if isinstance(message, get_args(Command)) else decode_event(data)


def strings(value: Any) -> list[str]:
    """All texts in a message, the keys of its documents among them."""
    match value:
        case str():
            return [value]
        case dict():
            return strings([*value.keys(), *value.values()])
        case list() | tuple():
            return [text for item in value for text in strings(item)]
    return []


def floats(value: Any) -> list[float]:
    match value:
        case float():
            return [value]
        case dict():
            return floats(list(value.values()))
        case list() | tuple():
            return [number for item in value for number in floats(item)]
    return []


def test_every_type_of_message_is_tried() -> None:
    assert strategies(storable, finite).keys() == {*get_args(Command), *get_args(Event)}


@settings(max_examples=300)
@given(STORABLE)
def test_every_message_survives_the_trip(message: Command | Event) -> None:
    assert decode(message, encode(message)) == message


@given(ANYTHING)
def test_what_postgres_cannot_store_does_not_get_through(message: Command | Event) -> None:
    arrived = asdict(decode(message, encode(message)))
    assert not any(UNSTORABLE.search(text) for text in strings(arrived))
    assert all(map(math.isfinite, floats(arrived)))


def test_unstorable_characters_are_replaced_and_the_rest_of_the_text_stays() -> None:
    tree = {"text": "a\0b \ud800\U0001f600 \\u0000", "score": math.nan, "logprobs": [-math.inf, -0.1]}
    result = JobResult(1, JobError("c\0", "\udfff"), tree=tree)
    report = Report(0, False, (), 0.0, {}, (result,), 0, 0, False, EngineMetrics())
    arrived = decode_event(encode(report))
    assert isinstance(arrived, Report)
    assert arrived.results[0].tree == {
        "text": "a\ufffdb \ufffd\U0001f600 \\u0000",
        "score": None,
        "logprobs": [None, -0.1],
    }
    assert arrived.results[0].error == JobError("c\ufffd", "\ufffd")


@given(STORABLE, st.data())
def test_a_message_with_a_field_too_many_too_few_or_of_another_type_is_refused(
    message: Command | Event, data: st.DataObject
) -> None:
    fields = json.loads(encode(message))
    name = data.draw(st.sampled_from(sorted(fields)))
    without_type = {field: fields[field] for field in fields if field != "type"}
    for wrong in (fields | {"surplus": 1}, fields | {name: [[]]}, fields | {"type": "dance"}, without_type, [fields]):
        with pytest.raises(InvalidMessage):
            decode(message, json.dumps(wrong).encode())


@given(STORABLE)
def test_a_message_that_goes_the_other_way_is_refused(message: Command | Event) -> None:
    other = decode_event if isinstance(message, get_args(Command)) else decode_command
    with pytest.raises(InvalidMessage):
        other(encode(message))


@given(STORABLE, st.integers(min_value=1, max_value=40))
def test_half_a_message_is_refused(message: Command | Event, num_missing: int) -> None:
    with pytest.raises(InvalidMessage):
        decode(message, encode(message)[:-num_missing])


@given(st.binary())
def test_what_is_no_message_is_refused(data: bytes) -> None:
    for read in (decode_command, decode_event):
        with pytest.raises(InvalidMessage):
            read(data)


def test_a_refusal_names_the_field_and_repeats_no_text() -> None:
    with pytest.raises(InvalidMessage, match=r"ask\.number: .*valid integer") as refused:
        decode_event(b'{"type": "ask", "job_id": 1, "number": "secret", "answer": "secret"}')
    assert "secret" not in str(refused.value)


def test_a_lone_surrogate_or_nul_in_foreign_bytes_is_refused() -> None:
    for escape in (b"\\ud800", b"\\u0000"):
        with pytest.raises(InvalidMessage):
            decode_event(b'{"type": "failed", "message": "a' + escape + b'b"}')
