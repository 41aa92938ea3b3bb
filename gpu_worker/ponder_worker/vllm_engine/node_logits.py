"""Changes of logits that look at all of a node's ids, also at those that vLLM takes for a part of the prompt.

vLLM applies penalties and minimum lengths to what one request generated. A node that was interrupted comes back as a
new request whose prompt ends with the node's own ids, so vLLM's own penalties would forget them. Here they are
replayed.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Series
from functools import cached_property
from typing import Any, Protocol

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from ponder_worker.engine.sampling.grammars import Grammars, TokenMasks
from ponder_worker.engine.sampling.penalty_state import PenaltyState
from ponder_worker.engine.sampling.sampler import Sampler
from ponder_worker.engine.sampling.sampling_params import SamplingParams
from ponder_worker.engine.sampling.structure_matcher import StructureMatcher
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.vllm_engine.sampling_request import EXTRA, Extra


class RowEdit(Protocol):
    """Changes the logits of one sequence, in the light of its ids so far."""

    def count(self, generated: Series[int]) -> None:
        """Takes the ids that were sampled since the last call."""

    def apply(self, logits: torch.Tensor) -> None:
        """Changes `[vocabulary]` in place."""


class _Bias:
    def __init__(self, pairs: Series[tuple[int, float]], device: torch.device) -> None:
        self._tokens = torch.tensor([token for token, _ in pairs], device=device)
        self._biases = torch.tensor([bias for _, bias in pairs], device=device)

    def count(self, generated: Series[int]) -> None:
        pass

    def apply(self, logits: torch.Tensor) -> None:
        logits[self._tokens] += self._biases


class _Ban:
    """Keeps the stop tokens out until so many tokens more were sampled."""

    def __init__(self, min_tokens: int, stop_ids: Series[int], device: torch.device) -> None:
        self._num_missing = min_tokens
        self._stop_ids = torch.tensor(stop_ids, device=device)

    def count(self, generated: Series[int]) -> None:
        self._num_missing -= len(generated)

    def apply(self, logits: torch.Tensor) -> None:
        if self._num_missing > 0:
            logits.index_fill_(0, self._stop_ids, -torch.inf)


class _Row:
    """One sequence of the batch. sampled: the ids that this request sampled, a list that vLLM appends to.

    matcher: of the structure that it is held to, if it is, once it has followed the ids.
    """

    def __init__(self, extra: Extra, prompt: Series[int], sampled: Series[int]) -> None:
        self._extra = extra
        self._prompt = prompt
        self._sampled = sampled
        self._num_counted = 0
        self._num_followed = 0
        self._edits: list[RowEdit] | None = None
        self.matcher: StructureMatcher | None = None

    def follow(self, grammars: Grammars) -> None:
        """Takes the matcher, if the row is held to a structure, along the ids that were sampled since the last call."""
        if self._extra.structure is None:
            return
        if self.matcher is None:
            self.matcher = grammars.matcher(self._extra.structure, frozenset(self._extra.stop_ids))
            self.matcher.push_all(self._prompt[self._extra.turn_start :])
        new = self._sampled[self._num_followed :]
        self._num_followed += len(new)
        self.matcher.push_all(new)

    def apply(self, logits: torch.Tensor) -> None:
        """Changes `[vocabulary]` in place, in the light of all ids. Inside a thought nothing ends the text."""
        if self._edits is None:
            self._edits = _edits(self._extra, self._prompt, logits)
        new = self._sampled[self._num_counted :]
        self._num_counted += len(new)
        for edit in self._edits:
            edit.count(new)
            edit.apply(logits)
        if self.matcher is not None and self.matcher.is_free:
            logits[[token for token in self._extra.stop_ids if token < len(logits)]] = -torch.inf


class NodeLogits(LogitsProcessor):  # type: ignore[misc]
    """The logits processor that every engine here gives to vLLM. It changes only the rows that ask for it."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._vocabulary_size: int = vllm_config.model_config.get_vocab_size()
        self._folder: str = vllm_config.model_config.model
        self._shared: Grammars | None = None
        self._masks = TokenMasks(self._vocabulary_size, device)
        self._sampler = Sampler(self._vocabulary_size, device)
        self._rows: dict[int, _Row] = {}

    def share(self, grammars: Grammars) -> None:
        """Takes the grammars that the engine compiles before its steps. In another process it has its own."""
        self._shared = grammars

    @cached_property
    def _grammars(self) -> Grammars:
        return self._shared or Grammars(Tokenizer(self._folder), self._vocabulary_size)

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Takes the rows of a step that begins, and starts on their masks, beside the forward pass."""
        process_dict_updates(self._rows, batch_update, _row)
        self._masks.take()  # a step may have been given up before its logits
        for row in self._rows.values():
            row.follow(self._grammars)
        self._masks.begin({index: row.matcher for index, row in self._rows.items() if row.matcher is not None})

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        for index, row in self._rows.items():
            row.apply(logits[index])
        masks = self._masks.take()
        return logits if masks is None else self._sampler.masked(logits, masks)


def share_grammars(executor: Any, grammars: Grammars) -> None:
    """Gives an executor of this process the engine's grammars. executor: the worker that vLLM calls this with."""
    for processor in executor.model_runner.input_batch.logitsprocs.all:
        if isinstance(processor, NodeLogits):
            processor.share(grammars)


def _row(params: Any, prompt: Series[int] | None, sampled: Series[int]) -> _Row | None:
    fields: Mapping[str, Any] | None = (params.extra_args or {}).get(EXTRA)
    return None if fields is None else _Row(Extra.of(fields), prompt or (), sampled)


def _edits(extra: Extra, prompt: Series[int], logits: torch.Tensor) -> list[RowEdit]:
    """Returns the changes in the order in which they apply, with the ids of the text so far replayed."""
    device, edits = logits.device, list[RowEdit]()
    if extra.logit_bias:
        edits.append(_Bias(extra.logit_bias, device))
    sampling = SamplingParams(
        max_tokens=1,
        presence_penalty=extra.presence_penalty,
        frequency_penalty=extra.frequency_penalty,
        repetition_penalty=extra.repetition_penalty,
    )
    if sampling.penalises:
        penalties = PenaltyState(sampling, prompt[: extra.turn_start], len(logits), device)
        penalties.count(prompt[extra.turn_start :])
        edits.append(penalties)
    # A model's folder may name end tokens that its vocabulary does not have.
    stop_ids = [token for token in extra.stop_ids if token < len(logits)]
    if extra.min_tokens and stop_ids:
        edits.append(_Ban(extra.min_tokens, stop_ids, device))
    return edits
