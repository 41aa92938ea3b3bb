"""Stop strings in text that comes token by token, and step by step."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder_worker.engine.sampling.stop_strings import StopStrings
from ponder_worker.models.checkpoint.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    """A byte is a token, and "ab" is one."""
    return Tokenizer(tiny_llama)


def watch(
    tokenizer: Tokenizer, text: str, *strings: str, before: str = "", separator: str | None = None
) -> tuple[str, str, int] | None:
    """-> (text until the token that ended it, what ended it, characters from its beginning on)."""
    stops = StopStrings(strings, tokenizer, separator=separator, before=tokenizer.encode(before))
    ids = tokenizer.encode(text)
    for number, token in enumerate(ids, 1):
        if (found := stops.push(token)) is not None:
            return tokenizer.decode(ids[:number]), *found
    return None


def test_a_string_may_begin_in_the_text_before_and_then_is_longer_than_the_text(tokenizer: Tokenizer) -> None:
    assert watch(tokenizer, "END and more", "THE END", before="so THE ") == ("END", "THE END", 7)
    assert watch(tokenizer, "END and more", "THE END", before="so the ") is None


def test_a_character_may_be_cut_between_the_text_before_and_this_one(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("x→y")
    stops = StopStrings(("→y",), tokenizer, before=ids[:2])
    assert [stops.push(token) for token in ids[2:]] == [None, None, ("→y", 2)]


def test_what_ends_in_the_text_before_ends_nothing_any_more(tokenizer: Tokenizer) -> None:
    """It was forced, or the least length was not reached."""
    assert watch(tokenizer, "b, go on", "long, long, long", ";a", before=";a") is None


def test_a_separator_begins_in_its_own_step(tokenizer: Tokenizer) -> None:
    assert watch(tokenizer, "\nx\n\ny", before="x\n\n", separator="\n\n") == ("\nx\n\n", "\n\n", 2)
    assert watch(tokenizer, "\nx\n\ny", "###", before="x\n\n", separator="\n\n") == ("\nx\n\n", "\n\n", 2)
    assert watch(tokenizer, "\nx", "\n\n\n", before="x\n\n", separator="\n\n") == ("\n", "\n\n\n", 3)


def test_a_stop_string_goes_before_a_separator_that_the_same_token_completes(tokenizer: Tokenizer) -> None:
    assert watch(tokenizer, "xab", "b", separator="a") == ("xab", "b", 1)


def test_before_the_least_length_only_the_separator_is_found(tokenizer: Tokenizer) -> None:
    stops = StopStrings(("b", "xyz"), tokenizer, separator="a")
    early = [stops.push(token, True) for token in tokenizer.encode("b\nba xy")]
    assert early == [None, None, None, ("a", 1), None, None, None]
    assert [stops.push(token) for token in tokenizer.encode("z b")] == [("xyz", 3), None, ("b", 1)]


@given(st.text("abé→", max_size=12), st.lists(st.text("abé→\ufffd", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_string_is_found_at_the_token_that_completes_it(tokenizer: Tokenizer, text: str, strings: list[str]) -> None:
    ids = tokenizer.encode(text)
    ends = [
        end for end in range(1, len(ids) + 1) if any(s in tokenizer.decode(ids[:end]).rstrip("\ufffd") for s in strings)
    ]
    found = watch(tokenizer, text, *strings)
    assert (found[0] if found else None) == (tokenizer.decode(ids[: ends[0]]) if ends else None)


def test_what_is_no_text_can_be_waited_for(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("→")[:1], *tokenizer.encode("x")]
    stops = StopStrings(("\ufffd",), tokenizer)
    assert [stops.push(token) for token in ids] == [None, ("\ufffd", 2)]
