"""Grammars compiled for one model's vocabulary, and the masks of tokens that they allow."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer

from ponder_worker.engine.device_upload import upload
from ponder_worker.engine.engine_error import InvalidSampling
from ponder_worker.engine.sampling.structure_matcher import Structure, StructureMatcher, TextTokens
from ponder_worker.models.checkpoint.tokenizer import Tokenizer
from ponder_worker.models.native.native_operations import RowMasks

_MOST_KEPT = 256
_SHOWN = 300


class Compilation:
    """A grammar that is being compiled, or was. It stays in the cache for as long as this is held."""

    __slots__ = ("__weakref__", "future")

    def __init__(self) -> None:
        self.future: Future[LLMatcher] = Future()


class Grammars:
    """The grammars of one model, for any thread. One that is held, or among the latest, is compiled only once."""

    def __init__(self, tokenizer: Tokenizer, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary_size = vocabulary_size
        self._lock = threading.Lock()
        self._vocabulary_lock = threading.Lock()
        self._held: WeakValueDictionary[str, Compilation] = WeakValueDictionary()
        self._latest: OrderedDict[str, Compilation] = OrderedDict()

    def compile(self, grammar: str) -> Compilation:
        """Compiles a grammar unless it is in the cache. Raises InvalidSampling.

        The first one of a model takes a second, and others up to hundreds of milliseconds: call it in a thread before
        the grammar is needed. Other grammars do not wait for it.
        """
        with self._lock:
            found = self._held.get(grammar)
            compilation = found if found is not None else Compilation()
            self._held[grammar] = self._latest[grammar] = compilation
            self._latest.move_to_end(grammar)
            if len(self._latest) > _MOST_KEPT:
                self._latest.popitem(last=False)
        if found is None:
            try:
                compilation.future.set_result(self._compiled(grammar))
            except BaseException as error:
                compilation.future.set_exception(error)
        compilation.future.result()
        return compilation

    def matcher(self, structure: Structure, stop_token_ids: frozenset[int]) -> StructureMatcher:
        """Returns a matcher at the beginning of a text. stop_token_ids: the ids that end it. Raises InvalidSampling."""
        own = self._eos_ids
        ends = [token for token in stop_token_ids if token < self._vocabulary_size and token not in own]
        ignored = [token for token in own if token not in stop_token_ids and token < self._vocabulary_size]
        return StructureMatcher(
            structure,
            self.compile(structure.grammar).future.result().deep_copy(),
            TextTokens(ends, ignored, self._blank_ids),
        )

    def _compiled(self, grammar: str) -> LLMatcher:
        with self._vocabulary_lock:
            vocabulary = self._vocabulary
        matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=_limits())
        if matcher.is_error():
            raise InvalidSampling(f"the structure cannot be enforced: {matcher.get_error()[:_SHOWN]}")
        return matcher

    @cached_property
    def _eos_ids(self) -> list[int]:
        """The model's end tokens, of which its folder may name some that its vocabulary does not have.

        A model without any is given one: its texts end where nothing can follow.
        """
        ends = self._tokenizer.eos_token_ids or {self._tokenizer.vocabulary_size}
        return sorted(token for token in ends if token <= self._vocabulary_size)

    @cached_property
    def _blank_ids(self) -> frozenset[int]:
        pieces = ((token, self._tokenizer.bytes_of(token)) for token in range(self._tokenizer.vocabulary_size))
        return frozenset(token for token, piece in pieces if piece.isspace())

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        try:
            return LLTokenizer(self._tokenizer.as_json(), n_vocab=self._vocabulary_size + 1, eos_token=self._eos_ids)
        except Exception as error:  # the library raises what it likes for tokenizers that it does not know
            raise InvalidSampling(f"a structure cannot be enforced with this model's tokenizer: {error}") from error


def _limits() -> LLParserLimits:
    """Returns limits well below llguidance's own, because a step waits for its masks, and other jobs for the step."""
    return LLParserLimits(step_max_items=10_000, step_lexer_fuel=100_000)


class TokenMasks:
    """The masks of one step's rows, computed beside the model's forward pass.

    Between `begin` and `take` the matchers must be left alone.
    """

    def __init__(self, vocabulary_size: int, device: torch.device) -> None:
        self._vocabulary_size = vocabulary_size
        self._device = device
        self._pending: Future[npt.NDArray[np.uint8]] | None = None
        self._rows: list[int] = []

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="masks")

    @cached_property
    def _executor(self) -> LLExecutor:
        return LLExecutor()

    def begin(self, matchers: Mapping[int, StructureMatcher]) -> None:
        """Starts on the masks of these rows, in a thread. Rows in a thought have none."""
        held = {row: matcher for row, matcher in matchers.items() if not matcher.is_free}
        self._rows = list(held)
        self._pending = self._thread.submit(self._compute, list(held.values())) if held else None

    def take(self) -> RowMasks | None:
        """Returns the masks, on the device; None if no row has one."""
        if self._pending is None:
            return None
        bits = upload(self._pending.result(), self._device)
        self._pending = None
        return RowMasks(self._rows, bits)

    def _compute(self, matchers: list[StructureMatcher]) -> npt.NDArray[np.uint8]:
        """Returns what may be sampled, as in `RowMasks`."""
        masks = np.zeros((len(matchers), (self._vocabulary_size // 32 + 1) * 4), dtype=np.uint8)
        self._executor.unsafe_compute_mask_ptr(
            [(matcher.matcher, row) for row, matcher in enumerate(matchers)],
            masks.ctypes.data,
            masks.shape[1],
            len(masks),
        )
        for row in [row for row, matcher in enumerate(matchers) if matcher.may_change]:
            more, less = matchers[row].changes()
            for token in more:
                masks[row, token >> 3] |= 1 << (token & 7)
            for token in less:
                masks[row, token >> 3] &= ~(1 << (token & 7)) & 255
        return masks
