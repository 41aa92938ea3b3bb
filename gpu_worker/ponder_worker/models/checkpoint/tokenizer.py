"""Conversion of text to token ids and back, chat templates included, and the ids that end an answer."""

import codecs
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as _Tokenizer

from ponder_worker.models.checkpoint.chat_template import PLACEHOLDER, ChatTemplate, TemplateOptions, special_tokens
from ponder_worker.models.checkpoint.folder import read_json
from ponder_worker.models.model_error import InvalidConversation, InvalidFile, MissingFile

_END = "<|added end|>"
_REPLACEMENT = "\ufffd".encode()


class Tokenizer:
    """The tokenizer of a model folder. It is immutable; `stream()` returns the state of one incremental decoding."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        self._tokenizer = _load(folder)
        self._special_texts = special_tokens(folder)
        self._template = ChatTemplate.read(folder)
        self._pieces = _pieces(self._tokenizer)
        self._ids_with: dict[int, frozenset[int]] = {}
        self.vocabulary_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self.eos_token_ids: frozenset[int] = _eos_token_ids(folder) or self._eos_of_config()

    @property
    def has_template(self) -> bool:
        """Whether conversations can be rendered."""
        return self._template is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of the text. No special token is added."""
        # The library releases the interpreter lock in its calls for batches only.
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that no template renders, with the special tokens that the tokenizer puts around it."""
        (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=True)
        ids: list[int] = encoding.ids
        return ids

    def plain(self, text: str) -> str:
        """Returns the text with an invisible space in whatever would be read as a special token."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        for content in (str(token.content) for token in added if token.special):
            text = text.replace(content, f"{content[:1]}\u200b{content[1:]}") if content in text else text
        return text

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids, without special tokens. Bytes that are not UTF-8 become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token, which may be part of a character. A special or unknown token has none."""
        return self._pieces[token] if token < len(self._pieces) else b""

    def as_json(self) -> str:
        """The tokenizer in the form of tokenizer.json. One without end tokens has one more id there, which ends."""
        tokenizer = self._tokenizer
        if not self.eos_token_ids:
            tokenizer = _Tokenizer.from_str(tokenizer.to_str())
            tokenizer.add_special_tokens([_END])
        written: str = tokenizer.to_str()
        return written

    def stream(self) -> "TextStream":
        """A decoder that takes ids one by one and holds back incomplete UTF-8."""
        return TextStream(self._pieces)

    def render(self, messages: Iterable[Mapping[str, Any]], options: TemplateOptions | None = None) -> list[int]:
        """Token ids of a conversation, rendered by the chat template and ready for the model to answer.

        Raises InvalidConversation if there is no template, or if it refuses the messages.
        """
        return self.encode(self._rendered(messages, options))

    def turn(
        self, messages: Iterable[Mapping[str, Any]], text: str, options: TemplateOptions | None = None
    ) -> list[int]:
        """Token ids between the model's answer to these messages and its next answer, if the user says `text`.

        Raises InvalidConversation, also if the template does not keep the answer unchanged.
        """
        options = options or TemplateOptions()
        said = list(messages)
        begun = said.pop()["content"] if options.continue_final_message else ""
        answer = {"role": "assistant", "content": f"{begun}{PLACEHOLDER}"}
        conversation = [*said, answer, {"role": "user", "content": text}]
        _, found, after = self._rendered(conversation, TemplateOptions(options.kwargs)).rpartition(PLACEHOLDER)
        if not found:
            raise InvalidConversation("the chat template does not render a conversation of several turns")
        return self.encode(after)

    def forgotten_end_of_turn(self) -> str | None:
        """The token that ends the model's turns in the chat template but is missing from `eos_token_id`.

        With such a model folder, answers run on past their end. None if nothing is missing, or if it cannot be told.
        """
        try:
            ids = self.turn(({"role": "user", "content": "?"},), "?")
        except InvalidConversation:
            return None
        added = self._tokenizer.get_added_tokens_decoder()
        first = next((token for token in ids if token in added or self.decode((token,)).strip()), None)
        if first not in added or first in self.eos_token_ids or first == self._id_of("bos_token"):
            return None
        return str(added[first].content)

    def ids_with(self, byte: int) -> frozenset[int]:
        """Ids of the tokens that contain the byte.

        For the last byte of U+FFFD these are all ids, because any bytes that are not UTF-8 become that character.
        """
        if byte not in self._ids_with:
            anything = byte == _REPLACEMENT[-1]
            self._ids_with[byte] = frozenset(
                token for token, piece in enumerate(self._pieces) if anything or byte in piece
            )
        return self._ids_with[byte]

    def _rendered(self, messages: Iterable[Mapping[str, Any]], options: TemplateOptions | None) -> str:
        if self._template is None:
            raise InvalidConversation("the model has no chat template (chat_template.jinja or tokenizer_config.json)")
        return self._template.render(list(messages), options)

    def _eos_of_config(self) -> frozenset[int]:
        token = self._id_of("eos_token")
        return frozenset() if token is None else frozenset((token,))

    def _id_of(self, name: str) -> int | None:
        token: int | None = self._tokenizer.token_to_id(self._special_texts.get(name, ""))
        return token


class TextStream:
    """The state of one incremental decoding."""

    __slots__ = ("_decoder", "_pieces")

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """Adds an id, and returns the text that is now certain. Ids beyond the vocabulary (padding) have no text."""
        return self._decoder.decode(self._pieces[token]) if token < len(self._pieces) else ""


def _load(folder: Path) -> _Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise MissingFile(f"{folder}: no tokenizer.json; slow tokenizers are not supported")
    try:
        return _Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception for any fault
        raise InvalidFile(f"{path}: not a tokenizer: {error}") from error


def _eos_token_ids(folder: Path) -> frozenset[int]:
    """The end tokens of generation_config.json, or else of config.json."""
    for name in ("generation_config.json", "config.json"):
        ids = read_json(folder, name, required=False).get("eos_token_id")
        if ids is not None:
            return frozenset(ids if isinstance(ids, list) else (ids,))
    return frozenset()


def _pieces(tokenizer: _Tokenizer) -> list[bytes]:
    """The bytes of every token, which are empty for special tokens."""
    fields = json.loads(tokenizer.to_str())
    byte_level = '"ByteLevel"' in json.dumps(fields.get("decoder"))
    added = tokenizer.get_added_tokens_decoder()
    pieces: list[bytes] = []
    byte_of = _byte_of_symbol()
    for token in range(tokenizer.get_vocab_size(with_added_tokens=True)):
        symbol = tokenizer.id_to_token(token)
        if symbol is None or (token in added and added[token].special):
            pieces.append(b"")
        elif token in added:
            pieces.append(added[token].content.encode())
        elif byte_level:
            pieces.append(bytes(byte_of[letter] for letter in symbol if letter in byte_of))
        elif len(symbol) == 6 and symbol.startswith("<0x") and symbol.endswith(">"):
            pieces.append(bytes((int(symbol[3:5], 16),)))
        else:
            pieces.append(symbol.replace("\u2581", " ").encode())
    return pieces


def _byte_of_symbol() -> dict[str, int]:
    """The byte that each of GPT-2's printable symbols stands for."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    symbols.update({chr(256 + index): byte for index, byte in enumerate(hidden)})
    return symbols
