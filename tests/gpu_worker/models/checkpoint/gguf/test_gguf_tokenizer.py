"""Vocabularies of GGUF files against the tokenizers that they were made of."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Tokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from ponder_worker.models.checkpoint.gguf.gguf_folder import model_folder
from ponder_worker.models.checkpoint.tokenizer import Tokenizer as Own
from ponder_worker.models.model_error import InvalidFile, ModelError, UnsupportedModel

from ....gguf_files import write_gguf

Make = Callable[..., Path]
TEXTS = st.text(st.sampled_from("ab AB 's'LL \n\r\t 12345 .,/!?$^~ éße\u0301ñ 漢字 ١² \u00a0_")) | st.text()
CORPUS = [
    "we'll see that they're here, and I'm sure that you don't; WE'LL SEE that WE'RE there, said the other",
    "12 and 123 and 1234567, 3.14, 10/12, 100 %!\n\n\n   x = (a + b) / 2;\n    return x  # x, x,\r\n\t",
    "naïve cafés, éße, 漢字漢字、漢 — /// !!! ... \u00a0\u00a0 AbA ABab aB bA aBBa ñandú",
] * 5
SPACE = "\u2581"


def by_gpt2(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    library: Tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    return library


def by_qwen2(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    library: Tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges).backend_tokenizer
    return library


def by_llama3(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    return _split(TikTokenConverter().pattern, models.BPE(vocabulary, merges, ignore_merges=True))


def by_smollm(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    library = by_gpt2(vocabulary, merges)
    digits = pre_tokenizers.Digits(individual_digits=True)
    library.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return library


KINDS = {"gpt-2": by_gpt2, "qwen2": by_qwen2, "deepseek-r1-qwen": by_qwen2, "llama-bpe": by_llama3, "smollm": by_smollm}


@pytest.fixture(scope="module")
def learned() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary with pieces across words, so that a wrong split gives other tokens."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet))
    given = library.get_vocab()
    ordered = ["<pad>", "<s>", "</s>", "<|endoftext|>", *sorted(given, key=lambda text: given[text])]
    for number in "12", "123", "1234", "Ġ1", "ĊĊ", "ĠĠ", "'s", "'L", "./", "/Ċ":
        if number not in given:
            ordered.append(number)
    vocabulary = {text: token for token, text in enumerate(ordered)}
    pairs = [(text[:cut], text[cut:]) for text in vocabulary for cut in range(1, len(text))]
    return vocabulary, sorted(
        ((left, right) for left, right in pairs if left in given and right in vocabulary),
        key=lambda pair: (vocabulary[pair[0] + pair[1]], pair),
    )


def own(llama_folder: Make, path: Path, vocabulary: dict[str, Any], **metadata: Any) -> Own:
    folder = llama_folder(vocab_size=len(vocabulary["tokens"]))
    with model_folder(write_gguf(folder, path / "m.gguf", vocabulary=vocabulary, **metadata)) as made:
        return Own(made)


def byte_level(vocabulary: dict[str, int], merges: list[tuple[str, str]], pre: str) -> dict[str, Any]:
    return {
        "model": "gpt2",
        "pre": pre,
        "tokens": list(vocabulary),
        "token_type": [3 if text.startswith("<") and text.endswith(">") else 1 for text in vocabulary],
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


@pytest.mark.parametrize("pre", KINDS)
def test_texts_become_the_tokens_of_the_models_own_tokenizer(
    llama_folder: Make, tmp_path: Path, learned: tuple[dict[str, int], list[tuple[str, str]]], pre: str
) -> None:
    found = own(llama_folder, tmp_path, byte_level(*learned, pre))
    peer = KINDS[pre](*learned)
    checked = 0

    @settings(max_examples=300)
    @given(text=TEXTS)
    def agree(text: str) -> None:
        nonlocal checked
        if any(special in text for special in ("<pad>", "<s>", "</s>", "<|endoftext|>")):
            return
        ids = found.encode(text)
        assert ids == peer.encode(text, add_special_tokens=False).ids
        assert found.decode(ids) == (peer.normalizer.normalize_str(text) if peer.normalizer else text)
        checked += 1

    agree()
    assert checked > 200


def test_default_splits_as_llama_cpp_does(
    llama_folder: Make, tmp_path: Path, learned: tuple[dict[str, int], list[tuple[str, str]]]
) -> None:
    found = own(llama_folder, tmp_path, byte_level(*learned, "default"))
    texts = [found.decode([token]) for token in found.encode("12345 1")]
    assert "".join(texts) == "12345 1"
    assert texts[0] == "123", "digits come in groups of three"
    assert texts[-2:] == [" ", "1"], "and without the space before them"


@pytest.fixture(scope="module")
def pieces() -> tuple[dict[str, int], dict[str, float]]:
    """A vocabulary of SentencePiece's kind, with scores in no order, and the pieces' scores."""
    words = ["the", SPACE + "the", "a", SPACE + "a", "an", "ana", "na", "ban", "banana", "aa", "aaa", SPACE * 2, "12"]
    letters = sorted({letter for word in words for letter in word} | set("qu,."))
    parts = sorted({word[:cut] for word in words for cut in range(2, len(word) + 1)} | {w[1:] for w in words if w[1:]})
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *parts]
    vocabulary = {text: token for token, text in enumerate(dict.fromkeys(texts))}
    return vocabulary, {text: -float((token * 37) % 101) for text, token in vocabulary.items()}


def sentencepiece(vocabulary: dict[str, int], scores: dict[str, float]) -> dict[str, Any]:
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3}
    return {
        "model": "llama",
        "tokens": list(vocabulary),
        "scores": list(scores.values()),
        "token_type": [kinds.get(text, 6 if text.startswith("<0x") else 1) for text in vocabulary],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }


def merged(text: str, vocabulary: dict[str, int], scores: dict[str, float]) -> list[int]:
    """SentencePiece's BPE by its definition: merge neighbours whose union has the best score, over and over."""
    symbols = list(text.replace(" ", SPACE))
    while True:
        unions = [left + right for left, right in pairwise(symbols)]
        known = [(-scores[union], place) for place, union in enumerate(unions) if union in vocabulary]
        if not known:
            break
        _, place = min(known)
        symbols[place : place + 2] = [unions[place]]
    in_bytes = [[s] if s in vocabulary else [f"<0x{byte:02X}>" for byte in s.encode()] for s in symbols]
    return [vocabulary[symbol] for symbols in in_bytes for symbol in symbols]


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_merges_by_score_and_falls_back_to_bytes(
    llama_folder: Make, tmp_path: Path, pieces: tuple[dict[str, int], dict[str, float]], prefix: bool
) -> None:
    found = own(llama_folder, tmp_path, sentencepiece(*pieces), add_space_prefix=prefix)

    @settings(max_examples=400)
    @given(text=st.text(st.sampled_from("theabn12 ,é漢\n<0x>")) | st.text(st.sampled_from("ban an")))
    def agree(text: str) -> None:
        ids = found.encode(text)
        assert ids == merged(" " + text if text and prefix else text, *pieces)
        assert found.decode(ids) == text

    agree()


def test_special_tokens_are_found_in_texts_and_left_out_of_answers(
    llama_folder: Make, tmp_path: Path, pieces: tuple[dict[str, int], dict[str, float]]
) -> None:
    vocabulary = sentencepiece(*pieces)
    vocabulary["tokens"] += ["[THINK]", "<|im_end|>"]
    vocabulary["scores"] += [0.0, 0.0]
    vocabulary["token_type"] += [4, 3]
    found = own(llama_folder, tmp_path, vocabulary)
    user, control = len(vocabulary["tokens"]) - 2, len(vocabulary["tokens"]) - 1
    assert found.encode("[THINK]<|im_end|></s>") == [user, control, 2]
    assert found.decode([user, control, 2]) == "[THINK]"
    assert found.eos_token_ids == {2, control}


def test_a_file_that_says_no_kinds_of_tokens_has_its_named_ones_as_special_ones(
    llama_folder: Make, tmp_path: Path, learned: tuple[dict[str, int], list[tuple[str, str]]]
) -> None:
    vocabulary = byte_level(*learned, "gpt-2") | {"token_type": []}
    found = own(llama_folder, tmp_path, vocabulary)
    assert found.encode("<s></s>") == [1, 2]
    assert found.decode([1, 2]) == ""
    assert found.eos_token_ids == {2}


@pytest.mark.parametrize(
    ("pre", "said", "around"),
    [
        ("gpt-2", {}, ([], [])),
        ("gpt-2", {"add_bos_token": True}, ([1], [])),
        ("qwen2", {"add_bos_token": True, "add_eos_token": True}, ([1], [2])),
        ("llama-bpe", {}, ([1], [])),
        ("tekken", {}, ([1], [])),
        ("llama-bpe", {"add_bos_token": False}, ([], [])),
        (None, {}, ([1], [])),
        (None, {"add_bos_token": False, "add_eos_token": True}, ([], [2])),
    ],
)
def test_a_prompt_without_template_has_bos_and_eos_where_the_file_or_its_kind_says_so(
    llama_folder: Make,
    tmp_path: Path,
    learned: tuple[dict[str, int], list[tuple[str, str]]],
    pieces: tuple[dict[str, int], dict[str, float]],
    pre: str | None,
    said: dict[str, bool],
    around: tuple[list[int], list[int]],
) -> None:
    found = own(llama_folder, tmp_path, (byte_level(*learned, pre) if pre else sentencepiece(*pieces)) | said)
    assert found.encode_prompt("banana") == [*around[0], *found.encode("banana"), *around[1]]
    assert found.encode("banana")[0] > 2


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"model": "t5"}, UnsupportedModel, "tokenizer.ggml.model 't5' is not read; read: 'llama'"),
        ({"pre": "bloom"}, UnsupportedModel, "tokenizer.ggml.pre 'bloom' is not read; read: llama-bpe, "),
        ({"pre": 7}, InvalidFile, "tokenizer.ggml.pre is '7'; it must be of type str"),
        ({"merges": []}, InvalidFile, "the metadata lacks 'tokenizer.ggml.merges'"),
        ({"merges": [7]}, InvalidFile, "tokenizer.ggml.merges must be a list of texts"),
        ({"merges": ["Ġ zzz"]}, InvalidFile, "the vocabulary is broken: .*zzz"),
        ({"merges": ["zzz"]}, InvalidFile, "the vocabulary is broken: "),
        ({"token_type": [1, 1]}, InvalidFile, r"tokenizer.ggml.token_type must be \d+ numbers, one for every token"),
        ({"bos_token_id": 10**6}, InvalidFile, r"tokenizer.ggml.bos_token_id is 1000000, of \d+ tokens"),
        ({"eos_token_id": "x"}, InvalidFile, "tokenizer.ggml.eos_token_id is 'x'; it must be of type int"),
        ({"add_bos_token": 7}, InvalidFile, "tokenizer.ggml.add_bos_token is '7'; it must be of type bool"),
    ],
)
def test_a_vocabulary_that_is_not_read_is_refused_by_the_name_of_its_field(
    llama_folder: Make,
    tmp_path: Path,
    learned: tuple[dict[str, int], list[tuple[str, str]]],
    change: dict[str, Any],
    kind: type[ModelError],
    message: str,
) -> None:
    with pytest.raises(kind, match=rf"m\.gguf: {message}"):
        own(llama_folder, tmp_path, byte_level(*learned, "gpt-2") | change)


@pytest.mark.parametrize("name", ["model", "pre", "merges", "eos_token_id", "tokens"])
def test_a_field_that_is_missing_is_named(
    llama_folder: Make, tmp_path: Path, learned: tuple[dict[str, int], list[tuple[str, str]]], name: str
) -> None:
    key = f"tokenizer.ggml.{name}"
    vocabulary = byte_level(*learned, "gpt-2")
    vocabulary["tokens"][2:4] = ["<x>", "<y>"]  # nothing that is known to end an answer
    with pytest.raises(InvalidFile, match=f"the metadata lacks {re.escape(repr(key))}"):
        own(llama_folder, tmp_path, vocabulary, omit=(key,))


def test_two_tokens_of_one_text_are_refused_and_empty_ones_get_a_text(
    llama_folder: Make, tmp_path: Path, learned: tuple[dict[str, int], list[tuple[str, str]]]
) -> None:
    vocabulary = byte_level(*learned, "gpt-2")
    vocabulary["tokens"] += ["", ""]
    vocabulary["token_type"] += [1, 1]
    assert own(llama_folder, tmp_path, vocabulary).vocabulary_size == len(vocabulary["tokens"])
    vocabulary["tokens"][-1] = "<s>"
    with pytest.raises(InvalidFile, match=r"tokenizer\.ggml\.tokens: 1 and \d+ are both '<s>'"):
        own(llama_folder, tmp_path, vocabulary)


def _split(pattern: str, model: models.BPE) -> Tokenizer:
    library = Tokenizer(model)
    symbols = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), symbols])
    return library
