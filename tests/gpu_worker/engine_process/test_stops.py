"""A user's stop string in answers that grow step by step, over real engines with small random models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from ponder_worker.engine_process.engine_core import EngineCore
from ponder_worker.engine_process.job import Job
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.protocol import AdmittedJob, Document

from ..searches import admitted, run

PATH = {"name": "beam_search", "n": 1, "width": 1, "max_rounds": 9, "separator": "a"}
ACROSS = re.compile(r"[\x0b-\x7f]a[\x01-\x7f]", re.DOTALL)
"""The end of a step and the beginning of the next one."""


def asked(seed: int, *stops: str, deltas: Sequence[Document] = ()) -> AdmittedJob:
    sampling = {"temperature": 1.0, "max_tokens": 60, "seed": seed, "stop": list(stops), "logprobs": True}
    return admitted(seed, strategy=PATH, sampling=sampling, deltas=deltas)


@pytest.fixture(scope="module")
def answers(engines: Engines) -> dict[int, str]:
    """The answers without a stop string, by seed."""
    results = run(EngineCore(engines, lambda: None), [asked(seed) for seed in range(100)])
    return {seed: result.choices[0].text for seed, result in enumerate(results)}


def asked_to_stop_across(answers: dict[int, str]) -> list[tuple[int, str]]:
    """Finds seeds in whose answers a string begins in one step and ends in the next."""
    found = [(seed, match[0]) for seed, text in answers.items() if (match := ACROSS.search(text))]
    assert len(found) > 3
    return found


def test_a_stop_string_may_begin_in_one_step_and_end_in_the_next(engines: Engines, answers: dict[int, str]) -> None:
    for seed, whole in asked_to_stop_across(answers):
        for stop in (whole, whole[1:]):
            (result,) = run(EngineCore(engines, lambda: None), [asked(seed, stop)])
            (choice,) = result.choices
            assert (choice.text, choice.finish_reason) == (answers[seed].partition(stop)[0], "stop")
            assert choice.logprobs is not None
            made = bytes(byte for token in choice.logprobs["content"] for byte in token["bytes"])
            assert made.decode(errors="replace") == choice.text


def test_it_is_also_found_by_who_goes_on_from_what_another_began(engines: Engines, answers: dict[int, str]) -> None:
    for seed, stop in asked_to_stop_across(answers)[:2]:
        deltas: list[Any] = []

        def save(jobs: list[Job], deltas: list[Any] = deltas) -> None:
            deltas.append(jobs[0].delta())

        core = EngineCore(engines, lambda: None)
        run(core, [asked(seed, stop)], after_step=save)
        for num in range(len(deltas)):
            (result,) = run(core, [asked(seed, stop, deltas=list(filter(None, deltas[:num])))])
            assert result.choices[0].text == answers[seed].partition(stop)[0]


def test_a_stop_string_does_not_begin_in_the_prompt(engines: Engines, answers: dict[int, str]) -> None:
    """A stop string that ends with a blank."""
    seed, text = next((seed, text) for seed, text in answers.items() if re.match(r"[!-z]{2}", text))
    (result,) = run(EngineCore(engines, lambda: None), [asked(seed, " " + text[:2])])
    assert result.choices[0].text == text.partition(" " + text[:2])[0]
