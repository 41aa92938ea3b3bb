"""How a model generates unless a request says otherwise, according to its folder: its sampling, and how it thinks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ponder_worker.models.checkpoint.folder import read_json
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import InvalidFile
from ponder_worker.search.thought import Thought

_NAMES = ("open", "close", "closing", "answer_tokens")
_CLOSING = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking directly now.\n"
    "</think>\n\n"
)
"""As published for Qwen3: https://qwen.readthedocs.io/en/latest/getting_started/quickstart.html#thinking-budget"""


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """The defaults of generation_config.json, and OpenAI's where it says nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None

    @classmethod
    def read(cls, folder: str) -> SamplingDefaults:
        fields = read_json(Path(folder), "generation_config.json", required=False)
        return cls(
            temperature=float(_given(fields, "temperature", 1.0)),
            top_p=float(_given(fields, "top_p", 1.0)),
            top_k=int(_given(fields, "top_k", 0)),
            min_p=float(_given(fields, "min_p", 0.0)),
            repetition_penalty=float(_given(fields, "repetition_penalty", 1.0)),
            max_tokens=int(_given(fields, "max_new_tokens", 0)) or None,
        )


def read_thought(folder: str | Path, tokenizer: Tokenizer) -> Thought | None:
    """Reads `thinking.json`, or the marks that the tokenizer knows.

        {"open": "<think>", "close": "</think>", "closing": "…\\n</think>\\n\\n", "answer_tokens": 512}

    `closing` is forced where a thought must end, and contains the close. `answer_tokens` are kept for the answer after
    it. Every field is optional. The open and close marks are one token each. A model without the file thinks if its
    tokenizer has the marks as tokens. Returns None for a model that does not think before it answers. Raises
    InvalidFile.
    """
    where = f"{folder}/thinking.json"
    given = (Path(folder) / "thinking.json").is_file()
    fields = read_json(Path(folder), "thinking.json", required=False)
    unknown = sorted(fields.keys() - set(_NAMES))
    if unknown:
        raise InvalidFile(f"{where}: {unknown[0]} is not known; known: {', '.join(_NAMES)}")
    texts = {"open": "<think>", "close": "</think>", "closing": _CLOSING} | fields
    answer_tokens = texts.pop("answer_tokens", 512)
    for name, text in texts.items():
        if not isinstance(text, str) or not text:
            raise InvalidFile(f"{where}: {name} is {text!r}; it must be a text that is not empty")
    if not isinstance(answer_tokens, int) or answer_tokens < 1:
        raise InvalidFile(f"{where}: answer_tokens is {answer_tokens!r}; it must be a whole number above 0")
    open_ids, close_ids, closing_ids = (tuple(tokenizer.encode(texts[name])) for name in ("open", "close", "closing"))
    for name, ids in (("open", open_ids), ("close", close_ids)):
        if len(ids) == 1:
            continue
        if not given:
            return None
        # A text of several tokens may be cut otherwise: a stream would stop at it, and its ids would not be found.
        raise InvalidFile(f"{where}: {name} is {texts[name]!r}, {len(ids)} tokens of this model; it must be one")
    if close_ids[0] not in closing_ids:
        raise InvalidFile(f"{where}: closing does not hold {texts['close']!r}, which ends the thought")
    return Thought(open_ids, close_ids, texts["close"], closing_ids, answer_tokens)


def _given(fields: dict[str, object], name: str, default: float) -> float:
    value = fields.get(name)
    return value if isinstance(value, int | float) else default
