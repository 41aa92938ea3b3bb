"""Reward kinds: how a model scores a step, as its folder's `reward.json` says.

    {"kind": "likelihood", "aggregate": "sum"}                             log-probabilities of the step's tokens
    {"kind": "classes", "mark": "<extra_0>"}                               two-class head, read at the mark
    {"kind": "value", "mark": "\\n"}                                        one-output head, read at the mark
    {"kind": "token", "mark": " ки\\n", "good": "+", "bad": "-"}            two logits, read at the mark

A model that is read at a mark gets the prompt and then, for each step, `prefix` + step + `mark` + `suffix`. The
probability is read at the last id of the mark. What follows that id, such as the end of a line, belongs to the suffix.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ponder_worker.models.checkpoint.folder import read_json
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.model_error import InvalidFile, UnsupportedModel
from ponder_worker.models.readout import Kind, Readout

Aggregate = Literal["sum", "mean", "min"]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The kind that scores a step by the natural log-probabilities of its tokens."""

    aggregate: Aggregate = "sum"

    def score(self, logprobs: Sequence[float]) -> float:
        """Aggregate the log-probabilities `[num_tokens]` of a step. An empty step scores 0, since it claims nothing."""
        if not logprobs:
            return 0.0
        if self.aggregate == "min":
            return min(logprobs)
        total = math.fsum(logprobs)
        return total / len(logprobs) if self.aggregate == "mean" else total


@dataclass(frozen=True, slots=True)
class Mark:
    """The kinds that score a step by the log of the probability at the mark after it. A path scores their sum."""

    kind: Kind
    mark: str
    prefix: str = ""
    suffix: str = ""
    good: str = ""
    bad: str = ""

    def readout(self, tokenizer: Tokenizer) -> Readout:
        """The readout of hidden states. Raises UnsupportedModel if `good` or `bad` is not a single token."""
        if self.kind != "token":
            return Readout(self.kind)
        return Readout("token", *(_one_token(tokenizer, text) for text in (self.good, self.bad)))

    def tokens(self, tokenizer: Tokenizer, steps: Sequence[str]) -> list[int]:
        """The ids after the prompt, up to the mark of the last step.

        Each part is tokenised by itself, so that the ids of earlier steps do not change and their pages can be reused.
        """
        ids: list[int] = []
        for index, step in enumerate(steps):
            if index:
                ids += tokenizer.encode(self.suffix)
            ids += tokenizer.encode(self.prefix + step) + tokenizer.encode(self.mark)
        return ids

    def score(self, probabilities: Sequence[float]) -> float:
        """The log of the last probability, finite even if that was rounded to 0. An empty step scores 0."""
        return math.log(max(probabilities[-1], 1e-30)) if probabilities else 0.0


def read(folder: str | Path) -> Likelihood | Mark:
    """Reads the reward kind of a model folder.

    Raises MissingFile, InvalidFile, or UnsupportedModel for an unknown kind.
    """
    folder = Path(folder)
    fields = read_json(folder, "reward.json")
    kind = fields.get("kind")
    if kind in get_args(Kind):
        return _mark(fields, f"{folder}/reward.json")
    aggregate = fields.get("aggregate", "sum")
    if kind != "likelihood":
        raise UnsupportedModel(
            f"{folder}/reward.json: kind {kind!r} is not supported; supported: {_names('likelihood', *get_args(Kind))}"
        )
    if aggregate not in get_args(Aggregate):
        raise UnsupportedModel(
            f"{folder}/reward.json: aggregate {aggregate!r} is not supported; supported: {_names(*get_args(Aggregate))}"
        )
    return Likelihood(aggregate)


def _mark(fields: dict[str, Any], where: str) -> Mark:
    needed = ("mark", "good", "bad") if fields["kind"] == "token" else ("mark",)
    texts = {name: fields.get(name, "") for name in ("mark", "prefix", "suffix", "good", "bad")}
    for name, text in texts.items():
        if not isinstance(text, str) or (name in needed and not text):
            raise InvalidFile(f"{where}: {name} is {text!r}; it must be a {'non-empty ' * (name in needed)}string")
    return Mark(fields["kind"], **texts)


def _one_token(tokenizer: Tokenizer, text: str) -> int:
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise UnsupportedModel(
            f"reward.json: {text!r} is {len(ids)} tokens; only a text of a single token is supported"
        )
    return ids[0]


def _names(*names: str) -> str:
    return ", ".join(repr(name) for name in names)
