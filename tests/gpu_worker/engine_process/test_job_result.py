"""The choices of a search that has ended, in OpenAI's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponder_worker.engine_process.job_result import Made, as_choices
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.search.tree.candidate import Candidate
from ponder_worker.search.tree.delta_recorder import Keep
from ponder_worker.search.tree.search_tree import SearchTree


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    """A byte is a token; the id 2 ends an answer."""
    return Tokenizer(tiny_llama)


def _content(tokenizer: Tokenizer, ids: list[int], text: str, *, stop_chars: int = 0) -> list[tuple[str, list[int]]]:
    tree = SearchTree(0, [1], keep=Keep.LOGPROBS)
    node = tree.add(tree.root, 0, cap=100)
    tree.extend(node, ids, [-0.5] * len(ids))
    tree.finish(node, "stop", text, stop_chars=stop_chars)
    (choice,) = as_choices(
        Made((Candidate(node, text, None, is_complete=True),), 1, None), tokenizer, has_logprobs=True
    )
    assert choice.logprobs is not None
    return [(entry["token"], entry["bytes"]) for entry in choice.logprobs["content"]]


def test_bytes_of_a_character_that_is_cut_into_tokens_make_it_again(tokenizer: Tokenizer) -> None:
    content = _content(tokenizer, tokenizer.encode("🎉!"), "🎉!")
    assert len(content) == 5
    assert bytes(byte for _, some in content for byte in some).decode() == "🎉!"


def test_what_ended_the_text_is_not_in_it(tokenizer: Tokenizer) -> None:
    assert [token for token, _ in _content(tokenizer, [*tokenizer.encode("hi"), 2], "hi")] == ["h", "i"]
    stopped = _content(tokenizer, tokenizer.encode("hi→x"), "hi", stop_chars=2)
    assert [token for token, _ in stopped] == ["h", "i"]


def test_a_token_that_holds_the_end_of_the_text_and_more_stays(tokenizer: Tokenizer) -> None:
    assert _content(tokenizer, tokenizer.encode("xab"), "xa", stop_chars=1) == [("x", [120]), ("ab", [97, 98])]
