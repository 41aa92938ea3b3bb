"""Passes an answer that is equal to the reference, except for what is only put around an answer."""

from __future__ import annotations

from ponder.domain.verifier import Exact
from ponder_worker.answers.mark import of_reference
from ponder_worker.answers.wrapping import unwrapped, whole_text
from ponder_worker.verify.case import Judgement


def examine(answer: str, spec: Exact, reference: str) -> Judgement:
    reference = of_reference(reference)
    is_same = answer.strip() == reference.strip() or _bare(answer) == _bare(reference)
    return Judgement.of(is_same, "the answer is not the expected one")


def _bare(text: str) -> str:
    r"""Removes spaces, quotes, Markdown and `\text{}` around a text, and the full stop of a sentence."""
    text = unwrapped(text.strip())
    return (whole_text(text) or text).strip().removesuffix(".")
