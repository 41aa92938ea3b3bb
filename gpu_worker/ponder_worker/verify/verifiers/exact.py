"""Passes an answer that is equal to the reference, except for what is only put around an answer."""

from __future__ import annotations

from ponder.domain.verifier import Exact
from ponder_worker.answers.mark import of_reference
from ponder_worker.answers.wrapping import unwrapped, whole_text
from ponder_worker.verify.case import Judgement

_LOST = " *_`?"
"""Signs at the ends of an answer, as in `*args` or `What?`, that are lost when it is read out of a text."""


def examine(answer: str, spec: Exact, reference: str) -> Judgement:
    reference = of_reference(reference)
    said = answer.strip()
    is_same = said == reference.strip() or _bare(said) == _bare(reference)
    is_read = said != "" and said == reference.strip(_LOST)
    return Judgement.of(is_same or is_read, "the answer is not the expected one")


def _bare(text: str) -> str:
    r"""Removes spaces, quotes, Markdown and `\text{}` around a text, and the full stop of a sentence."""
    text = unwrapped(text.strip())
    return (whole_text(text) or text).strip().removesuffix(".")
