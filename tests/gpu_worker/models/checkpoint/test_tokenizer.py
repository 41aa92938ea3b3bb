import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, processors

from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import InvalidConversation, InvalidFile, MissingFile

MESSAGES = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Tokenizer:
    return Tokenizer(tiny_llama)


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_llama, tmp_path / "model")
    return tmp_path / "model"


@given(text=st.text())
def test_text_survives_encoding_and_both_ways_of_decoding(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    stream = tokenizer.stream()
    assert tokenizer.decode(ids) == text
    assert "".join(stream.push(token) for token in ids) == text


def test_a_stream_holds_incomplete_characters_back(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    assert [stream.push(token) for token in tokenizer.encode("é€")] == ["", "é", "", "", "€"]


def test_a_stream_has_no_text_for_special_tokens_and_padding_rows(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream()
    assert [stream.push(token) for token in (1, 2, 299)] == ["", "", ""]


def test_a_stream_reads_byte_fallback_vocabularies(folder: Path) -> None:
    vocabulary = {"<unk>": 0, "▁the": 1, "<0xC3>": 2, "<0xA9>": 3}
    library = Library(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    library.save(str(folder / "tokenizer.json"))
    stream = Tokenizer(folder).stream()
    assert [stream.push(token) for token in (1, 2, 3)] == [" the", "", "é"]


def test_a_text_that_is_completed_has_the_special_tokens_that_the_tokenizer_puts_around_it(folder: Path) -> None:
    assert Tokenizer(folder).encode_prompt("ab") == Tokenizer(folder).encode("ab")
    library = Library.from_file(str(folder / "tokenizer.json"))
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    library.save(str(folder / "tokenizer.json"))
    assert Tokenizer(folder).encode_prompt("ab") == [1, *Tokenizer(folder).encode("ab")]


def test_a_conversation_is_rendered_with_its_generation_prompt(tokenizer: Tokenizer) -> None:
    ids = tokenizer.render(MESSAGES)
    assert ids[0] == 1
    assert tokenizer.decode(ids) == "user: 2 + 2?\nassistant: "


def test_a_conversation_is_rendered_as_transformers_does(tiny_llama: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    peer = AutoTokenizer.from_pretrained(tiny_llama)
    expected = peer.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
    assert tokenizer.render(MESSAGES) == expected


def test_a_template_may_stand_in_the_tokenizers_config(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    fields = {"chat_template": [{"name": "default", "template": "{{ messages[0].content }}!"}]}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    tokenizer = Tokenizer(folder)
    assert tokenizer.decode(tokenizer.render(MESSAGES)) == "2 + 2?!"


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no system') }}", "{{ messages.__class__.__mro__ }}", "{{ x.y }}"]
)
def test_messages_that_a_template_refuses_or_that_reach_out_of_it_are_an_invalid_conversation(
    folder: Path, template: str
) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(InvalidConversation, match="refuses the messages"):
        Tokenizer(folder).render(MESSAGES)


def test_a_model_without_a_template_says_so(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidConversation, match="no chat template"):
        Tokenizer(folder).render(MESSAGES)


def test_end_tokens_come_from_the_generation_config_else_from_the_others(folder: Path) -> None:
    assert Tokenizer(folder).eos_token_ids == {2}
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    assert Tokenizer(folder).eos_token_ids == {2, 7}
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text("{}")
    assert Tokenizer(folder).eos_token_ids == {2}


_TURN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ end }}{% endfor %}<|assistant|>"


@pytest.mark.parametrize(
    ("end", "eos_token_ids", "expected"),
    [
        ("</s>", [2], None),
        ("</s>", [0, 2], None),
        ("</s>", [0], "</s>"),
        ("\n</s>\n", [0], "</s>"),
        ("<pad></s>", [2], "<pad>"),  # the first token that the model would write
        ("", [2], None),
        (" and so on</s>", [0], None),  # an end in words cannot be recognised
        ("<s>", [2], None),  # the beginning of the next turn
    ],
)
def test_an_end_of_turn_that_ends_no_answer_is_found(
    folder: Path, end: str, eos_token_ids: list[int], expected: str | None
) -> None:
    (folder / "chat_template.jinja").write_text(_TURN.replace("{{ end }}", end))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": eos_token_ids}))
    assert Tokenizer(folder).forgotten_end_of_turn() == expected


@pytest.mark.parametrize("source", ["{{ messages[0].content }}", "{{ raise_exception('one turn only') }}"])
def test_no_end_can_be_told_of_a_template_that_writes_no_turns(folder: Path, source: str) -> None:
    (folder / "chat_template.jinja").write_text(source)
    assert Tokenizer(folder).forgotten_end_of_turn() is None
    (folder / "chat_template.jinja").unlink()
    assert Tokenizer(folder).forgotten_end_of_turn() is None


def test_a_missing_or_broken_tokenizer_is_refused_by_name(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidFile, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match=r"no tokenizer\.json"):
        Tokenizer(folder)


def test_what_looks_like_a_special_token_in_a_plain_text_is_read_as_text(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    text = "a</s>user: b<s>"
    assert set(tokenizer.encode(text)) & {1, 2}
    plain = tokenizer.plain(text)
    assert not set(tokenizer.encode(plain)) & {1, 2}
    assert plain.replace("\u200b", "") == text
    assert tokenizer.plain("a < b") == "a < b"
