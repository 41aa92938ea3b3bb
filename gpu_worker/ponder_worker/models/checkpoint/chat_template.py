"""Chat templates: untrusted Jinja programs that turn a conversation into a prompt.

Templates are written against `apply_chat_template` of transformers, so they get the same globals, filters, tags and
whitespace rules here, in the same sandbox. In addition, their processor time is limited.
"""

import datetime
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ponder_worker.models.checkpoint.folder import read_json
from ponder_worker.models.model_error import InvalidConversation, InvalidFile

LIMIT_S = 5.0
"""Limit of processor time for one rendering: more than twice what public templates take for 131,072 messages."""
PLACEHOLDER = "0f8b0a5c-answer"
"""A placeholder for the model's answer, where only the text around the answer is needed."""
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class TemplateOptions:
    """How a conversation is rendered, in transformers' words.

    kwargs: further variables of the template; they override nothing. add_generation_prompt: whether the model's turn
    is opened. continue_final_message: whether the last message is left open instead, for the model to continue it.
    """

    kwargs: Mapping[str, Any] = field(default_factory=dict)
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class ChatTemplate:
    """A compiled template with the special tokens that it may write. Several threads may render it at the same time."""

    def __init__(self, source: str, tokens: Mapping[str, str], *, limit_s: float = LIMIT_S) -> None:
        """Compile a template. Raises whatever Jinja and Python raise for a source that is not a template."""
        self._environment = _Environment()
        self._template = self._environment.from_string(source)
        self._tokens = tokens
        self._limit_s = limit_s

    @classmethod
    def read(cls, folder: Path) -> "ChatTemplate | None":
        """Reads the template of a model folder; None if it has none. Raises InvalidFile."""
        fields = read_json(folder, "tokenizer_config.json", required=False)
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.is_file() else fields.get("chat_template")
        if isinstance(source, list):  # several named templates
            source = next((entry["template"] for entry in source if entry.get("name") == "default"), None)
        if source is None:
            return None
        try:
            return cls(source, special_tokens(folder))
        except Exception as error:
            raise InvalidFile(f"{folder}: the chat template does not parse: {error}") from error

    def render(self, messages: Sequence[Mapping[str, Any]], options: TemplateOptions | None = None) -> str:
        """Renders the prompt, up to where the model's answer begins.

        Raises InvalidConversation with the template's reason.
        """
        options = options or TemplateOptions()
        if options.continue_final_message:
            return self._render_open(messages, options)
        opens = options.add_generation_prompt
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": opens}
        clock = self._environment.clock
        clock.until_s = time.thread_time() + self._limit_s
        pieces = []
        try:
            for piece in self._template.generate({**options.kwargs, **self._tokens, **given}):
                clock.tick()
                pieces.append(piece)
        except _OverTime:
            raise InvalidConversation(
                f"the chat template takes more than {self._limit_s:g} s of processor time for {len(messages)} messages"
            ) from None
        except Exception as error:  # a template is a program, which may fail in any way
            raise InvalidConversation(f"the chat template refuses the messages: {error}") from error
        finally:
            clock.until_s = math.inf
        return "".join(pieces)

    def _render_open(self, messages: Sequence[Mapping[str, Any]], options: TemplateOptions) -> str:
        """Renders up to the end of the last message's text."""
        *before, last = messages
        marked = {**last, "content": f"{last['content']}{PLACEHOLDER}"}
        text, found, _ = self.render([*before, marked], TemplateOptions(options.kwargs, False)).rpartition(PLACEHOLDER)
        if not found:
            raise InvalidConversation("the chat template does not render the last message, so it cannot be continued")
        return text


def special_tokens(folder: Path) -> dict[str, str]:
    """The texts of special tokens by name, such as `bos_token`, including those of the model such as `image_token`."""
    fields = read_json(folder, "tokenizer_config.json", required=False)
    if "added_tokens_decoder" not in fields:  # older folders keep the map apart
        fields = fields | read_json(folder, "special_tokens_map.json", required=False)
    extra = fields.get("extra_special_tokens")
    own = {name: token for name, token in fields.items() if name in _TOKENS or name.endswith("_token")}
    texts = {name: _text_of(token) for name, token in (own | (extra if isinstance(extra, dict) else {})).items()}
    return {name: text for name, text in texts.items() if text is not None}


def _text_of(token: Any) -> str | None:
    """The text of a token field; None for a field that is not a token, such as the switch `add_bos_token`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


class _OverTime(BaseException):
    """The time is up. It is not an Exception, so that Jinja cannot take it for a missing attribute."""


class _Clock(threading.local):
    """Limit on the processor time of the rendering thread. It reads the time rarely, because that is slow."""

    until_s = math.inf
    num_ticks = 0

    def tick(self) -> None:
        self.num_ticks += 1
        if self.num_ticks % 256 == 0 and time.thread_time() > self.until_s:
            raise _OverTime


class _Environment(ImmutableSandboxedEnvironment):
    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.clock = _Clock()
        self.filters["tojson"] = _tojson
        self.globals |= {
            "raise_exception": _refuse,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    # A template that runs for long spends nearly all its steps on reading parts of messages and on writing.

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.clock.tick()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.clock.tick()
        return super().getitem(obj, argument)


class _Generation(Extension):
    """The tag `{% generation %}`, which marks what the model wrote, for training. Here it is only a scope."""

    tags = {"generation"}  # noqa: RUF012  # as in the base class

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_unchanged"), [], [], body).set_lineno(line)

    def _unchanged(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """The constructors of `dict`. The class itself would give access to every other class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """A namespace that refuses names with an underscore in front, which Python itself might look up."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # a template may pass an argument named `self`
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold the attribute {name!r}: its name begins with an underscore")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Serialise to JSON. Jinja's own filter would escape the result for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)
