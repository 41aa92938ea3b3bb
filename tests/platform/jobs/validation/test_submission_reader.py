"""Submissions are read in bounded time, and never for long in the process that serves others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from expensive import EXPENSIVE, expensive
from growth import MOST_GROWTH, growth
from hypothesis import given
from hypothesis import strategies as st

from ponder.domain.verifier_check import VerifierLimits
from ponder.errors import InvalidInput
from ponder.jobs.validation.check_limits import CheckLimits
from ponder.jobs.validation.limited_process import LimitedProcess
from ponder.jobs.validation.submission_reader import SubmissionReader, answer_body

_BODY: dict[str, Any] = {"input_file_id": "file-00", "completion_window": "24h"}


@pytest.fixture(scope="module")
def reader() -> Iterator[SubmissionReader]:
    reader = SubmissionReader(CheckLimits(line_s=0.3))
    yield reader
    reader.close()


def _with(verifier: dict[str, Any]) -> bytes:
    return json.dumps(_BODY | {"ponder": {"verifier": verifier}}).encode()


def _refused(reader: SubmissionReader, body: bytes) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        reader.read(body)
    return caught.value


@pytest.mark.parametrize("name", EXPENSIVE)
def test_a_body_of_any_kind_is_read_or_refused_within_its_limit(reader: SubmissionReader, name: str) -> None:
    for num_bytes in (2_000, 30_000, 900_000):
        body = expensive(name, num_bytes)
        began = time.process_time()
        try:
            reader.read(body)
        except InvalidInput as error:
            assert error.code != "invalid_json"  # noqa: PT017
        assert time.process_time() - began < 0.2  # what it costs us; the rest is the other process's


def test_a_body_that_takes_too_long_is_refused_by_name_and_the_next_one_is_read(reader: SubmissionReader) -> None:
    costly = "(?i)" + "[\x01-\U0010fffe]" * 300
    refusal = _refused(reader, _with({"name": "regex", "pattern": costly}))
    assert refusal.code == "too_expensive"
    assert "PONDER_MAX_CHECK_S" in refusal.message
    assert reader.read(_with({"name": "regex", "pattern": "a+"})).ponder.verifier is not None


@pytest.mark.parametrize(
    ("verifier", "setting"),
    [
        ({"name": "regex", "pattern": "a" * 31}, "PONDER_MAX_PATTERN_LENGTH"),
        ({"name": "json_schema", "schema": {"items": {"pattern": "a" * 31}}}, "PONDER_MAX_PATTERN_LENGTH"),
        ({"name": "json_schema", "schema": {"patternProperties": {"a" * 31: {}}}}, "PONDER_MAX_PATTERN_LENGTH"),
        ({"name": "json_schema", "schema": {"title": "a" * 500}}, "PONDER_MAX_SCHEMA_BYTES"),
        ({"name": "json_schema", "schema": {"not": {"not": {"not": {"not": {}}}}}}, "PONDER_MAX_SCHEMA_DEPTH"),
        ({"name": "json_schema", "schema": {"allOf": [True] * 11}}, "PONDER_MAX_SUBSCHEMAS"),
    ],
)
def test_a_verifier_beyond_a_limit_is_refused_by_the_name_of_the_setting(verifier: Any, setting: str) -> None:
    reader = SubmissionReader(
        CheckLimits(VerifierLimits(pattern_length=30, schema_bytes=500, schema_depth=4, subschemas=10))
    )
    refusal = _refused(reader, _with(verifier))
    reader.close()
    assert setting in refusal.message
    assert refusal.param is not None
    assert refusal.param.startswith("ponder.verifier.")


def test_a_structure_is_checked_in_the_other_process(reader: SubmissionReader) -> None:
    def body(structure: dict[str, Any]) -> bytes:
        return json.dumps(_BODY | {"ponder": {"structure": structure}}).encode()

    structure = reader.read(body({"choice": ["yes", "no"]})).ponder.structure
    assert structure is not None
    assert structure.document() == {"choice": ["yes", "no"]}
    assert _refused(reader, body({"regex": "("})).param == "ponder.structure.regex"
    costly = "|".join(f"(a{{1,{number}}}b?){{1,90}}" for number in range(900, 930))
    began = time.process_time()
    with contextlib.suppress(InvalidInput):
        reader.read(body({"regex": costly}))
    assert time.process_time() - began < 0.2  # what it costs us


def test_a_body_is_read_although_the_process_was_killed(reader: SubmissionReader) -> None:
    body = _with({"name": "regex", "pattern": "a"})
    reader.read(body)
    assert isinstance(reader._process, LimitedProcess)
    os.kill(reader._process.pid, signal.SIGKILL)
    assert reader.read(body).ponder.verifier is not None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b'{"a": \xff}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"[]", "invalid_type"),
        (b"{}", "missing_required_parameter"),
        (_with({"name": "regex", "pattern": "("}), "invalid_pattern"),
        (_with({"name": "json_schema", "schema": {"type": 1}}), "invalid_schema"),
    ],
)
def test_a_wrong_body_is_refused_with_its_code(reader: SubmissionReader, body: bytes, code: str) -> None:
    assert _refused(reader, body).code == code


_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=6,
)
_FIELDS = ["input_file_id", "endpoint", "completion_window", "metadata", "ponder", "other"]


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(_FIELDS, _DOCUMENTS)) | _DOCUMENTS)
def test_any_json_is_read_or_refused(reader: SubmissionReader, document: Any) -> None:
    with contextlib.suppress(InvalidInput):
        reader.read(json.dumps(document).encode())


@pytest.mark.parametrize("name", sorted(EXPENSIVE.keys() - {"a deep schema"}))
def test_twice_the_body_costs_at_most_two_and_a_half_times_as_much(name: str) -> None:
    request = json.dumps({"verifier": {}, "line_s": 60.0, "batch_s": 60.0}).encode() + b"\n"
    size = 15_000 if "wide sets" not in name else 80
    requests = {num: request + expensive(name, num) for num in (size, 2 * size)}

    def check(num: int) -> None:
        re.purge()
        answer_body(requests[num])

    assert growth(check, size) <= MOST_GROWTH
