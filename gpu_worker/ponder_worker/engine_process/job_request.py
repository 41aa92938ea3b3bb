"""Translates a job's request document into the engines' terms: a prompt's ids, sampling parameters, room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ponder.domain.budget import Budget
from ponder.domain.structure import grammar_of
from ponder.domain.verifier import VERIFIER, VERIFIER_SPECS, Judge, Reading, VerifierSpec, why_not_asked
from ponder_worker.answers.extraction import THINKING, extract
from ponder_worker.answers.reading import letter, program, spoken, unfenced
from ponder_worker.engine import SamplingParams, Structure
from ponder_worker.engine_process.loading.engines import Engines
from ponder_worker.engine_process.loading.generation_defaults import SamplingDefaults
from ponder_worker.engine_process.prompts import ChatPrompt, Prompt, TextPrompt
from ponder_worker.models.checkpoint.chat_template import TemplateOptions
from ponder_worker.protocol import Document
from ponder_worker.search.search_error import InvalidRequest, NoVerifier, PromptTooLong
from ponder_worker.search.thought import Thought
from ponder_worker.search.tree.delta_recorder import Keep

_READERS: dict[Reading, Callable[[str], str | None]] = {
    "answer": extract,
    "letter": letter,
    "text": spoken,
    "json": unfenced,
    "program": program,
}


def prompt(request: Document) -> Prompt:
    """Returns the prompt: a text or token ids, or chat messages, whose parts of text are joined."""
    if "prompt" in request:
        return TextPrompt(request["prompt"])
    messages = [message | {"content": _text(message.get("content"))} for message in request["messages"]]
    return ChatPrompt(messages, TemplateOptions(**request.get("template") or {}))


def budget(request: Document, *, thinks: bool) -> Budget:
    """Returns the job's limits. A reasoning effort limits the thought, or the job of a model that does not think."""
    limits, effort = request.get("budget") or {}, request.get("effort") or {}
    name = "thinking_tokens" if thinks else "tokens"
    return Budget.model_validate(limits | {name: effort[name]} if name in effort else limits)


def structure(request: Document, thought: Thought | None, prompt: Sequence[int]) -> Structure | None:
    """Returns what the job's answers are held to; what the model thinks before them is held to nothing.

    Raises InvalidRequest for a model that would be made to think although it has no marks around its thought.
    """
    if not request.get("structure"):
        return None
    grammar = grammar_of(request["structure"])
    if thought is None:
        if (name := request["strategy"]["name"]) in ("budget_forcing", "answer_probing"):
            raise InvalidRequest(f"{name} with a structure needs a model that marks where its thought ends")
        return Structure(grammar)
    is_open = thought.is_open(prompt)
    (open_id,), (close_id,) = thought.open_ids, thought.close_ids
    return Structure(grammar, open_id, close_id, is_open=is_open is True, may_open=is_open is None)


def thought(request: Document, engines: Engines) -> Thought | None:
    """Returns how the model thinks. In a structure, what looks like a mark may be a part of the answer."""
    return replace(engines.thought, is_strict=bool(request.get("structure"))) if engines.thought else None


def sampling(request: Document, defaults: SamplingDefaults, structure: Structure | None) -> SamplingParams:
    """Returns the sampling parameters of a whole sample. Every node has its own max_tokens, min_tokens and seed, which
    are filled in later.
    """
    given = request["sampling"]
    min_tokens = int(given.get("min_tokens") or 0)
    return SamplingParams(
        max_tokens=max(1, min_tokens),
        min_tokens=min_tokens,
        temperature=_or(given.get("temperature"), defaults.temperature),
        top_p=_or(given.get("top_p"), defaults.top_p),
        top_k=int(_or(given.get("top_k"), defaults.top_k)),
        min_p=_or(given.get("min_p"), defaults.min_p),
        repetition_penalty=_or(given.get("repetition_penalty"), defaults.repetition_penalty),
        presence_penalty=float(given.get("presence_penalty") or 0.0),
        frequency_penalty=float(given.get("frequency_penalty") or 0.0),
        logit_bias=tuple((int(token), float(bias)) for token, bias in (given.get("logit_bias") or {}).items()),
        stop_strings=tuple(given.get("stop") or ()),
        stop_token_ids=frozenset(given.get("stop_token_ids") or ()),
        stop_at_end=not given.get("ignore_eos"),
        top_logprobs=int(given.get("top_logprobs") or 0),
        structure=structure,
    )


def kept_logprobs(request: Document) -> Keep:
    """Returns what the job's tree keeps of each id: what the user asks for, or what confidence is made of."""
    sampling = request["sampling"]
    if not sampling.get("logprobs"):
        return Keep.LOGPROBS if (request.get("strategy") or {}).get("confidence") is not None else Keep.NOTHING
    return Keep.TOP_LOGPROBS if sampling.get("top_logprobs") else Keep.LOGPROBS


def room(engines: Engines, prompt_tokens: int, *, scores: bool) -> int:
    """Returns how many tokens fit after the prompt, in the reward model's context too. Raises PromptTooLong."""
    longest = engines.longest
    if scores and engines.same_tokens:
        longest = min(longest, engines.longest_scored)
    if prompt_tokens >= longest:
        raise PromptTooLong(f"the prompt has {prompt_tokens} tokens, and the model's context is {longest}")
    return min(longest - prompt_tokens, engines.defaults.max_tokens or longest)


def answer_of(request: Document, begun: str = "") -> Callable[[str], str | None]:
    """Returns the function that reads an answer out of a text. begun: a beginning of the answer that comes before it.

    Candidates are compared by what the job's verifier would read.
    """
    read = _reader(request)
    return (lambda text: read(begun + text)) if begun else read


def _reader(request: Document) -> Callable[[str], str | None]:
    name = (request.get("verifier") or {}).get("name")
    if request.get("structure") and name in (None, "json_schema"):
        return _held
    return _READERS[VERIFIER_SPECS.get(str(name), VerifierSpec).reads]


def _held(text: str) -> str | None:
    """Returns all of a text that was held to a structure, and nothing of a thought that was cut off."""
    return None if text.startswith(THINKING) else text


def check_verifier(request: Document) -> None:
    """Raises NoVerifier if the search may not ask the job's verifier."""
    reason = no_verifier(request)
    if reason is not None:
        raise NoVerifier(reason)


def no_verifier(request: Document) -> str | None:
    """Returns why the search may not ask the job's verifier; None if it may. Raises pydantic's ValidationError."""
    verifier = request.get("verifier")
    if verifier is not None and verifier.get("name") not in VERIFIER_SPECS:
        return f"this worker knows no verifier {verifier.get('name')!r}"
    return why_not_asked(
        None if verifier is None else VERIFIER.validate_python(verifier),
        has_reference=request.get("reference") is not None,
        oracle=bool(request.get("oracle")),
    )


def judge(request: Document) -> Judge | None:
    """Returns the job's verifier if it is a model. Raises pydantic's ValidationError."""
    verifier = request.get("verifier")
    return Judge.model_validate(verifier) if verifier is not None and verifier.get("name") == "judge" else None


def _or(value: Any, default: float) -> float:
    return default if value is None else float(value)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return "" if content is None else str(content)
