"""The requests that vLLM is given: one for each sequence that generates or is scored, and one for each mark."""

import math
from collections.abc import Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass, field
from typing import Any, Protocol

from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sequence import Sequence, TopLogprobs
from ponder_worker.models.readout import Readout
from ponder_worker.vllm_engine.sampling_request import generation_params, score_params


class VllmRequest(Protocol):
    """One request to vLLM, and what its outputs mean to the sequence."""

    sequence: Sequence
    prompt: Series[int]
    params: Any

    @property
    def reads_cache(self) -> bool:
        """Whether the tokens that vLLM has in its prefix cache need not be computed."""

    def take(self, output: Any) -> list[int]:
        """Takes an output of vLLM's into the sequence, and returns the ids that were sampled.

        Sets the sequence's `finish_reason` if this ends it.
        """

    def again(self) -> "VllmRequest | None":
        """Returns the request to make instead, after an output that says too little."""


@dataclass
class Generation:
    """A sequence that goes on from its last token."""

    sequence: Sequence
    prompt: Series[int]
    params: Any

    reads_cache = True

    @classmethod
    def of(cls, sequence: Sequence, sampling: SamplingParams) -> "Generation":
        return cls(sequence, list(sequence.tokens), generation_params(sequence, sampling))

    def take(self, output: Any) -> list[int]:
        (completion,) = output.outputs
        assert self.sequence.sampling is not None
        num_tops = self.sequence.sampling.top_logprobs
        taken: list[int] = []
        for token, found in zip(completion.token_ids, completion.logprobs, strict=True):
            self.sequence.append(token, found[token].logprob)
            if num_tops:
                self.sequence.top_logprobs.append(_likeliest(found, num_tops))
            taken.append(token)
            if self.sequence.finish_reason is not None:
                break
        if completion.finish_reason not in (None, "length") and self.sequence.finish_reason is None:
            raise RuntimeError(f"vLLM ended a request for a reason of its own: {completion.finish_reason}")
        return taken

    def again(self) -> None:
        return None


@dataclass(slots=True)
class Scoring:
    """A sequence whose tokens are scored. The last one is no part of the prompt: it is asked for as the next.

    Prompt tokens that vLLM finds in its cache have no log-probabilities. That does not matter to those before the
    scored ones; where the cache reaches further, the score is computed `again`, from the first token on.
    """

    sequence: Sequence
    prompt: Series[int]
    params: Any
    reads_cache: bool = True
    _is_short: bool = field(default=False, init=False)

    @classmethod
    def of(cls, sequence: Sequence, *, reads_cache: bool = True) -> "Scoring":
        *prompt, last = sequence.tokens
        reads_prompt = sequence.prompt_length < len(prompt)
        params = score_params([last], reads_prompt=reads_prompt, reads_cache=reads_cache)
        return cls(sequence, prompt, params, reads_cache)

    def take(self, output: Any) -> list[int]:
        sequence, found = self.sequence, output.prompt_logprobs
        inside = range(sequence.prompt_length, len(self.prompt))
        self._is_short = bool(inside) and (output.num_cached_tokens or 0) >= sequence.prompt_length
        if not self._is_short:
            last = output.outputs[0].logprobs[0][sequence.tokens[-1]].logprob
            sequence.take_scores([*(found[place][sequence.tokens[place]].logprob for place in inside), last])
            sequence.finish_reason = "scored"
        return []

    def again(self) -> "Scoring | None":
        return Scoring.of(self.sequence, reads_cache=False) if self._is_short else None


class Reading:
    """The readings of one sequence, which come mark by mark and are kept in the order of the marks."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._found: dict[int, float] = {}

    def add(self, mark: int, value: float) -> None:
        self._found[mark] = value
        if len(self._found) == len(self._sequence.marks):
            self._sequence.take_scores([self._found[one] for one in self._sequence.marks])
            self._sequence.finish_reason = "scored"


@dataclass
class MarkReading:
    """One mark of a sequence, read at the end of the prompt that leads up to it."""

    sequence: Sequence
    prompt: Series[int]
    params: Any
    reading: Reading
    mark: int
    reads_cache = True

    @classmethod
    def by_tokens(cls, sequence: Sequence, reading: Reading, mark: int, readout: Readout) -> "MarkReading":
        """Reads the logits of two tokens: the kind `token`."""
        return cls(sequence, sequence.tokens[: mark + 1], score_params([readout.good, readout.bad]), reading, mark)

    @classmethod
    def by_head(cls, sequence: Sequence, reading: Reading, mark: int) -> "MarkReading":
        """Reads the head at the prompt's last token: the kinds `classes` and `value`."""
        from vllm.pooling_params import PoolingParams

        params = PoolingParams(task="classify", use_activation=False)
        return cls(sequence, sequence.tokens[: mark + 1], params, reading, mark)

    def take(self, output: Any) -> list[int]:
        readout = self.sequence.readout
        assert readout is not None
        if readout.kind == "token":
            (found,) = output.outputs[0].logprobs
            self.reading.add(self.mark, _sigmoid(found[readout.good].logprob - found[readout.bad].logprob))
        else:
            self.reading.add(self.mark, probability(readout, output.outputs.data.flatten().tolist()))
        return []

    def again(self) -> None:
        return None


@dataclass
class TokenwiseReading:
    """All marks of a sequence at once, from a head that says something of every token.

    vLLM computes all of the sequence for it: a token found in its cache would have no output.
    """

    sequence: Sequence
    prompt: Series[int]
    params: Any
    reading: Reading
    reads_cache = False

    @classmethod
    def of(cls, sequence: Sequence, reading: Reading) -> "TokenwiseReading":
        from vllm.pooling_params import PoolingParams

        params = PoolingParams(task="token_classify", use_activation=False)
        return cls(sequence, sequence.tokens[: sequence.marks[-1] + 1], params, reading)

    def take(self, output: Any) -> list[int]:
        readout = self.sequence.readout
        assert readout is not None
        for mark in self.sequence.marks:
            self.reading.add(mark, probability(readout, output.outputs.data[mark].flatten().tolist()))
        return []

    def again(self) -> None:
        return None


def probability(readout: Readout, outputs: Series[float]) -> float:
    """Returns what `Readout` makes of a head's outputs at one position."""
    if readout.kind == "classes":
        bad, good = outputs
        return _sigmoid(good - bad)
    (value,) = outputs
    return _sigmoid(value)


def _likeliest(found: Mapping[int, Any], num: int) -> TopLogprobs:
    """Returns the `num` likeliest of the tokens at one place. vLLM says the sampled one too, wherever it ranks."""
    ranked = sorted(found.items(), key=lambda item: -item[1].logprob)
    return tuple((token, entry.logprob) for token, entry in ranked[:num])


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))
