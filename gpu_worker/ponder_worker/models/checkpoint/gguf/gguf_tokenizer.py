"""The tokenizer of a GGUF file, made of its metadata in the form of Hugging Face's tokenizer.json."""

from enum import IntEnum
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ponder_worker.models.checkpoint.gguf.gguf_file import GgufFile
from ponder_worker.models.model_error import InvalidFile, ModelError, UnsupportedModel

_SPACE = "\u2581"
_ENDS = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "</s>",
}
"""Tokens that llama.cpp takes for the end of an answer, whatever the metadata says."""
_SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "smaug-bpe"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), (_QWEN2,)),
    "tekken": (_TEKKEN,),
    "smollm": (r"\p{N}", _GPT2),
    "gpt-2": (_GPT2,),
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
"""The patterns that split a text, one after the other, before pairs are merged, by `tokenizer.ggml.pre`.

They are those of the models' own tokenizers; `default`, which names none, is what llama.cpp makes of it.
"""
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "tekken")
"""Vocabularies in which a word that is a token is one, whether or not merges lead to it. Prompts begin with bos."""


class _Kind(IntEnum):
    """The values of `tokenizer.ggml.token_type` that make a difference."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


class GgufTokenizer:
    """The vocabulary of a file: the tokenizer itself, and the special tokens."""

    def __init__(self, file: GgufFile) -> None:
        """Raises InvalidFile, or UnsupportedModel for a kind of vocabulary that is not read."""
        self._file = file
        self._kind = file.field("tokenizer.ggml.model", str)
        if self._kind not in ("llama", "gpt2"):
            raise UnsupportedModel(
                f"{file.path}: tokenizer.ggml.model {self._kind!r} is not read; read: 'llama' (SentencePiece), "
                "'gpt2' (BPE)"
            )
        self._tokens = [text or f"[EMPTY_{token}]" for token, text in enumerate(self._texts("tokens"))]
        self._vocabulary = self._numbered()
        self._kinds = self._numbers("token_type", [_Kind.NORMAL] * len(self._tokens))
        for token in self._ends() | {self._id("bos")}:
            if token is not None and self._kinds[token] == _Kind.NORMAL:
                self._kinds[token] = _Kind.CONTROL
        try:
            self.tokenizer = self._sentencepiece() if self._kind == "llama" else self._byte_level()
            self._add_tokens()
        except ModelError:
            raise
        except Exception as error:  # the library raises a bare Exception for any fault
            raise InvalidFile(f"{file.path}: the vocabulary is broken: {error}") from error

    def special_texts(self) -> dict[str, str]:
        """The texts of special tokens, by the names that chat templates know, such as `bos_token`."""
        ids = {f"{name}_token": self._id(theirs) for name, theirs in _SPECIAL_TOKENS.items()}
        return {name: self._tokens[token] for name, token in ids.items() if token is not None}

    def eos_token_ids(self) -> list[int]:
        """The ids that end an answer. Raises InvalidFile if there is none."""
        known = {i for i, text in enumerate(self._tokens) if text in _ENDS and self._kinds[i] == _Kind.CONTROL}
        ids = sorted(self._ends() | known)
        if not ids:
            raise InvalidFile(f"{self._file.path}: the metadata lacks 'tokenizer.ggml.eos_token_id'")
        return ids

    def _ends(self) -> set[int]:
        return {token for name in ("eos", "eot", "eom") if (token := self._id(name)) is not None}

    def _id(self, name: str) -> int | None:
        token: int = self._file.field(f"tokenizer.ggml.{name}_token_id", int, -1)
        if token >= len(self._tokens):
            raise InvalidFile(
                f"{self._file.path}: tokenizer.ggml.{name}_token_id is {token}, of {len(self._tokens)} tokens"
            )
        return token if token >= 0 else None

    def _texts(self, name: str) -> list[str]:
        texts: list[str] = self._file.field(f"tokenizer.ggml.{name}", list)
        if not all(isinstance(text, str) for text in texts):
            raise InvalidFile(f"{self._file.path}: tokenizer.ggml.{name} must be a list of texts")
        return texts

    def _numbers(self, name: str, default: list[Any] | None = None) -> list[Any]:
        """A list of the metadata with a number for every token."""
        values: list[Any] = self._file.field(f"tokenizer.ggml.{name}", list, default)
        if len(values) != len(self._tokens) or any(isinstance(value, (str, bool)) for value in values[:1]):
            raise InvalidFile(
                f"{self._file.path}: tokenizer.ggml.{name} must be {len(self._tokens)} numbers, one for every token"
            )
        return values

    def _numbered(self) -> dict[str, int]:
        """The tokens by their texts. Raises InvalidFile if two have the same."""
        vocabulary: dict[str, int] = {}
        for token, text in enumerate(self._tokens):
            if vocabulary.setdefault(text, token) != token:
                raise InvalidFile(
                    f"{self._file.path}: tokenizer.ggml.tokens: {vocabulary[text]} and {token} are both {text!r}"
                )
        return vocabulary

    def _byte_level(self) -> Tokenizer:
        pre = self._file.field("tokenizer.ggml.pre", str)
        if pre not in _PRE_TOKENIZERS:
            raise UnsupportedModel(
                f"{self._file.path}: tokenizer.ggml.pre {pre!r} is not read; read: {', '.join(_PRE_TOKENIZERS)}"
            )
        merges = [(left, right) for left, _, right in (pair.partition(" ") for pair in self._texts("merges"))]
        is_whole = pre in _WHOLE_WORDS
        tokenizer = Tokenizer(models.BPE(vocab=self._vocabulary, merges=merges, ignore_merges=is_whole))
        if "qwen" in pre:
            tokenizer.normalizer = normalizers.NFC()
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _PRE_TOKENIZERS[pre]]
        symbols = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, symbols])
        tokenizer.decoder = decoders.ByteLevel()
        self._surround(tokenizer, bos=is_whole)
        return tokenizer

    def _sentencepiece(self) -> Tokenizer:
        unknown = self._id("unknown")
        tokenizer = Tokenizer(
            models.BPE(
                vocab=self._vocabulary,
                merges=_merges(self._vocabulary, self._numbers("scores"), self._kinds),
                unk_token=None if unknown is None else self._tokens[unknown],
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        self._surround(tokenizer, bos=True)
        spaces: list[Any] = [normalizers.Replace(" ", _SPACE)]
        after = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if self._file.field("tokenizer.ggml.add_space_prefix", bool, True):
            spaces.insert(0, normalizers.Prepend(_SPACE))
            after.append(decoders.Strip(" ", 1, 0))
        tokenizer.normalizer = normalizers.Sequence(spaces)
        tokenizer.decoder = decoders.Sequence(after)
        return tokenizer

    def _surround(self, tokenizer: Tokenizer, *, bos: bool) -> None:
        """Puts special tokens around a prompt that no template renders. bos: whether it begins with one by default."""
        wanted = {
            name: self._file.field(f"tokenizer.ggml.add_{name}_token", bool, bos and name == "bos")
            for name in ("bos", "eos")
        }
        ids = {name: token for name in wanted if wanted[name] and (token := self._id(name)) is not None}
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[name for name in ("bos", "$A", "eos") if name in ids or name == "$A"],
            special_tokens=[
                {"id": name, "ids": [token], "tokens": [self._tokens[token]]} for name, token in ids.items()
            ],
        )

    def _add_tokens(self) -> None:
        """Adds the tokens that are found in a text before anything else; special ones are left out when decoding."""
        kinds = list(zip(self._tokens, self._kinds, strict=True))
        special = [text for text, kind in kinds if kind in (_Kind.UNKNOWN, _Kind.CONTROL)]
        own = [text for text, kind in kinds if kind == _Kind.USER_DEFINED]
        self.tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in special])
        self.tokenizer.add_tokens([AddedToken(text, normalized=False) for text in own])


def _merges(vocabulary: dict[str, int], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """The pairs whose union is a token, best score first: SentencePiece's BPE merges those of the best score.

    Among pairs of one score the first in the text is merged there; here it is the one with the smaller ids.
    """
    pairs = []
    for text, token in vocabulary.items():
        if kinds[token] in (_Kind.UNKNOWN, _Kind.CONTROL):
            continue
        for cut in range(1, len(text)):
            left, right = vocabulary.get(text[:cut]), vocabulary.get(text[cut:])
            if left is not None and right is not None:
                pairs.append((-scores[token], left, right, text[:cut], text[cut:]))
    return [(left, right) for *_, left, right in sorted(pairs)]
