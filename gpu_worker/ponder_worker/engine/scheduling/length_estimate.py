"""How long running sequences are expected to become."""

from ponder_worker.engine.kv.page_pool import PagePool
from ponder_worker.engine.sequence import Sequence

_WEIGHT_OF_LATEST = 1 / 32


class LengthEstimate:
    """Expects a sequence to generate as many tokens as those that finished lately, rather than its max_tokens."""

    def __init__(self) -> None:
        self._mean_tokens = 0.0  # a moving average; 0 until a sequence has finished

    def observe(self, sequence: Sequence) -> None:
        """Counts a sequence that has finished."""
        if sequence.sampling is not None:
            length = len(sequence.tokens) - sequence.prompt_length
            weight = _WEIGHT_OF_LATEST if self._mean_tokens else 1.0
            self._mean_tokens += weight * (length - self._mean_tokens)

    def pages_ahead(self, sequence: Sequence, pool: PagePool) -> int:
        """Returns how many pages it will probably still take: at least one while it generates, however long it is."""
        if sequence.sampling is None:
            return 0
        expected = max(len(sequence.tokens) + 1, sequence.prompt_length + int(self._mean_tokens))
        end = min(sequence.max_length, expected)
        num_held = max(len(sequence.table.pages), pool.pages_for(len(sequence.tokens)))
        return max(1, pool.pages_for(end) - num_held)
