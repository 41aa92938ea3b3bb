"""The sizes that an engine can be made with, and the requests that fit it."""

from collections.abc import Mapping
from collections.abc import Sequence as Series
from dataclasses import dataclass

from ponder_worker.engine.engine_error import InvalidRequest, InvalidSetting, OversizedRequest

_PAGE_SIZES = (16, 32)


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The limits of a request.

    max_pages: the most pages of tokens that one sequence can have.
    """

    vocabulary_size: int
    context_tokens: int
    page_size: int
    max_pages: int

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence that can be asked for."""
        return min(self.context_tokens, self.max_pages * self.page_size)

    def check(self, tokens: Series[int], max_length: int) -> None:
        """Checks a request that may grow to max_length tokens. Raises InvalidRequest or OversizedRequest."""
        self.check_ids("tokens", tokens)
        if max_length > self.context_tokens:
            raise OversizedRequest(
                f"the request may grow to {max_length} tokens; the model's context is {self.context_tokens}"
            )
        pages = -(-max_length // self.page_size)
        if pages > self.max_pages:
            raise OversizedRequest(
                f"the request may grow to {max_length} tokens, {pages} pages of {self.page_size}; "
                f"the pool has {self.max_pages} pages"
            )

    def check_ids(self, name: str, tokens: Series[int]) -> None:
        """Raises InvalidRequest for an id outside the vocabulary."""
        vocabulary = self.vocabulary_size
        if tokens and (min(tokens) < 0 or max(tokens) >= vocabulary):
            wrong = next(index for index, token in enumerate(tokens) if not 0 <= token < vocabulary)
            raise InvalidRequest(f"{name}[{wrong}] is {tokens[wrong]}; the vocabulary is 0 to {vocabulary - 1}")


def check_page_size(page_size: int) -> None:
    """Raises InvalidSetting for a page size that the GPU kernels cannot read, on a CPU too, so that it shows early."""
    if page_size not in _PAGE_SIZES:
        raise InvalidSetting(f"page_size is {page_size}; it must be {' or '.join(map(str, _PAGE_SIZES))}")


def check_sizes(sizes: Mapping[str, int], max_step_tokens: int) -> None:
    """Raises InvalidSetting unless all sizes are positive and a step has a token for each of `max_sequences`."""
    for name, value in sizes.items():
        if value < 1:
            raise InvalidSetting(f"{name} is {value}; it must be at least 1")
    if max_step_tokens < sizes["max_sequences"]:
        raise InvalidSetting(
            f"max_step_tokens is {max_step_tokens}; it must be at least max_sequences ({sizes['max_sequences']}), "
            "one token for each sequence"
        )
