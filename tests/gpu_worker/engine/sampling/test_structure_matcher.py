"""A text's way through its structure follows from its ids alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher

from ponder_worker.engine import InvalidSampling, Structure
from ponder_worker.engine.sampling import grammars as module
from ponder_worker.engine.sampling.grammars import Grammars, TokenMasks
from ponder_worker.engine.sampling.sampler import spread
from ponder_worker.engine.sampling.structure_matcher import StructureMatcher
from ponder_worker.models.checkpoint.tokenizer import Tokenizer

VOCABULARY, END = 300, 2
NUMBER = LLMatcher.grammar_from_regex("[0-9]{2}|<[a-z]>x?")


@pytest.fixture(scope="module")
def tokenizer(llama_folder: Callable[..., Path]) -> Tokenizer:
    return Tokenizer(llama_folder())


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, VOCABULARY)


def allowed(matcher: StructureMatcher) -> set[int]:
    masks = TokenMasks(VOCABULARY, torch.device("cpu"))
    masks.begin({0: matcher})
    taken = masks.take()
    assert taken is not None
    assert taken.rows == [0]
    assert taken.bits.shape[1] % 4 == 0
    return set(spread(taken.bits)[0, :VOCABULARY].nonzero().flatten().tolist())


def texts(tokenizer: Tokenizer, ids: set[int]) -> set[str]:
    return {tokenizer.decode([token]) if token != END else "END" for token in ids}


def test_what_may_follow_is_known_at_every_place(grammars: Grammars, tokenizer: Tokenizer) -> None:
    matcher = grammars.matcher(Structure(NUMBER), frozenset({END}))
    assert texts(tokenizer, allowed(matcher)) == {*"0123456789<"}
    matcher.push_all(tokenizer.encode("<a"))
    assert texts(tokenizer, allowed(matcher)) == {">"}
    matcher.push_all(tokenizer.encode(">"))
    assert texts(tokenizer, allowed(matcher)) == {"x", "END"}
    assert not matcher.is_complete
    matcher.push_all(tokenizer.encode("x"))
    assert matcher.is_complete


def test_a_text_that_does_not_fit_is_stuck_and_never_complete(grammars: Grammars, tokenizer: Tokenizer) -> None:
    matcher = grammars.matcher(Structure(NUMBER), frozenset({END}))
    matcher.push_all(tokenizer.encode("7z7"))
    assert matcher.is_stuck
    assert not matcher.is_complete


def test_stop_tokens_of_the_request_end_it_where_an_end_is_allowed_and_ignored_ones_do_not(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    (stop,) = tokenizer.encode("q")
    matcher = grammars.matcher(Structure(NUMBER), frozenset({stop}))
    assert stop not in allowed(matcher)
    matcher.push_all(tokenizer.encode("<a>"))
    assert texts(tokenizer, allowed(matcher)) == {"x", "q"}


def test_a_thought_is_free_and_its_marks_mean_nothing_in_the_structure(
    grammars: Grammars, tokenizer: Tokenizer
) -> None:
    (opens,), (closes,) = tokenizer.encode("<"), tokenizer.encode(">")
    structure = Structure(LLMatcher.grammar_from_regex("[0-9<>]{2}"), opens, closes, may_open=True)
    matcher = grammars.matcher(structure, frozenset({END}))
    assert texts(tokenizer, allowed(matcher)) == {*"0123456789<"}
    matcher.push(opens)
    assert matcher.is_free
    matcher.push_all(tokenizer.encode("anything < at all>"))
    assert not matcher.is_free
    matcher.push_all(tokenizer.encode("\n\n"))
    assert texts(tokenizer, allowed(matcher)) == {*"0123456789"}
    matcher.push_all(tokenizer.encode("42"))
    assert matcher.is_complete
    answered = grammars.matcher(structure, frozenset({END}))
    answered.push_all(tokenizer.encode("7"))
    assert texts(tokenizer, allowed(answered)) == {*"0123456789"}, "only the first id opens a thought"


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_replayed_text_has_the_same_continuations(grammars: Grammars, data: st.DataObject) -> None:
    grammar = LLMatcher.grammar_from_json_schema('{"type": "array", "items": {"type": ["string", "integer"]}}')
    structure = Structure(grammar, may_open=True, open_id=70, close_id=71)
    matcher, ids = grammars.matcher(structure, frozenset({END})), list[int]()
    for _ in range(data.draw(st.integers(0, 12))):
        may_follow = sorted({*range(3, VOCABULARY)} if matcher.is_free else allowed(matcher) - {END})
        if not may_follow or matcher.is_complete:
            break
        ids.append(data.draw(st.sampled_from(may_follow)))
        matcher.push(ids[-1])
    replayed = grammars.matcher(structure, frozenset({END}))
    replayed.push_all(ids)
    assert (replayed.is_free, replayed.is_complete) == (matcher.is_free, matcher.is_complete)
    if not matcher.is_free:
        assert allowed(replayed) == allowed(matcher)


@pytest.mark.parametrize("pattern", ["\n[0-9]{2}", "  x"])
def test_a_structure_that_begins_with_spaces_begins_after_a_thought(
    grammars: Grammars, tokenizer: Tokenizer, pattern: str
) -> None:
    (closing,) = tokenizer.encode(">")
    structure = Structure(LLMatcher.grammar_from_regex(pattern), close_id=closing, is_open=True)
    matcher = grammars.matcher(structure, frozenset({END}))
    matcher.push_all([*tokenizer.encode("so it is "), closing])
    for _ in range(4):
        if matcher.is_complete:
            break
        matcher.push(min(allowed(matcher) - {END}))
    assert matcher.is_complete
    assert not matcher.is_stuck


def test_a_grammar_does_not_wait_for_one_that_is_being_compiled(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, began, may_end = grammars.compile(NUMBER), threading.Event(), threading.Event()
    compiled = grammars._compiled

    def slowly(grammar: str) -> LLMatcher:
        began.set()
        assert may_end.wait(60)
        return compiled(grammar)

    monkeypatch.setattr(grammars, "_compiled", slowly)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(grammars.compile, LLMatcher.grammar_from_regex("slow"))
        assert began.wait(60)
        assert grammars.compile(NUMBER) is held
        may_end.set()
        slow.result(60)


def test_a_grammar_that_is_held_is_compiled_once_whatever_comes_after_it(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_KEPT", 2)
    held = grammars.compile(NUMBER)
    for number in range(4):
        grammars.compile(LLMatcher.grammar_from_regex(f"number {number}"))
    assert grammars.compile(NUMBER) is held


def test_a_malformed_grammar_is_refused(grammars: Grammars) -> None:
    with pytest.raises(InvalidSampling, match="cannot be enforced"):
        grammars.compile(LLMatcher.grammar_from_regex("("))
