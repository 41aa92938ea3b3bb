"""The demo models' tokenizer and chat template."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ponder_worker.demo.training.bpe import END, PAD, save_tokenizer, train_tokenizer
from ponder_worker.demo.training.corpus import tokenizer_corpus

TOKENIZER = train_tokenizer(tokenizer_corpus(seed=0, count=500))


@given(st.text().filter(lambda text: END not in text and PAD not in text))
def test_any_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


@given(st.integers(0, 10**12))
def test_every_digit_is_a_token(number: int) -> None:
    assert TOKENIZER.encode(str(number)).tokens == list(str(number))


@given(st.lists(st.sampled_from(["12", " + ", "Answer: ", "Uma", " has", "."]), max_size=5))
def test_a_line_break_is_always_a_token_of_its_own(words: list[str]) -> None:
    text = "".join(words)
    pieces = [TOKENIZER.encode(piece).ids for piece in (text, "\n", "\n", text)]
    assert TOKENIZER.encode(f"{text}\n\n{text}").ids == [token for piece in pieces for token in piece]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(TOKENIZER, folder, max_tokens=1024)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def render(tokenizer: PreTrainedTokenizerFast, *messages: tuple[str, Any]) -> str:
    conversation = [{"role": role, "content": content} for role, content in messages]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return text


def test_transformers_reads_the_saved_tokenizer(loaded: PreTrainedTokenizerFast) -> None:
    assert loaded("3 + 4 = 7\n").input_ids == TOKENIZER.encode("3 + 4 = 7\n").ids
    assert loaded.eos_token == END


def test_one_user_message_is_one_line(loaded: PreTrainedTokenizerFast) -> None:
    assert render(loaded, ("user", "Compute 3 + 4.")) == "Compute 3 + 4.\n"


def test_line_breaks_inside_a_message_become_spaces(loaded: PreTrainedTokenizerFast) -> None:
    assert render(loaded, ("user", " Compute\n3  + 4.\n")) == "Compute 3 + 4.\n"


def test_a_system_message_is_a_line_before_it(loaded: PreTrainedTokenizerFast) -> None:
    assert render(loaded, ("system", "Think."), ("user", "Compute 3 + 4.")) == "Think.\nCompute 3 + 4.\n"


def test_an_answer_keeps_its_lines_and_ends_the_turn(loaded: PreTrainedTokenizerFast) -> None:
    turns = ("user", "Compute 3 + 4."), ("assistant", "3 + 4 = 7\nAnswer: 7"), ("user", "Compute 1 + 1.")
    expected = f"Compute 3 + 4.\n3 + 4 = 7\nAnswer: 7{END}Compute 1 + 1.\n"
    assert render(loaded, *turns) == expected


def test_a_message_in_parts_is_its_text(loaded: PreTrainedTokenizerFast) -> None:
    assert render(loaded, ("user", [{"type": "text", "text": "Compute 3 + 4."}])) == "Compute 3 + 4.\n"


def test_the_tokenizer_is_the_same_every_time() -> None:
    again: Tokenizer = train_tokenizer(tokenizer_corpus(seed=0, count=500))
    assert again.to_str() == TOKENIZER.to_str()
