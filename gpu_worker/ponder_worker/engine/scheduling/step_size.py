"""Bounds the tokens of a step by the time that steps take."""

LONGEST_STEP_S = 2.0
"""As long as a worker's tick. Reports, cancellations and notices of preemption are answered between two steps."""
_SHORT_STEP_S = LONGEST_STEP_S / 2
_LONGEST_TO_DOUBLE_S = LONGEST_STEP_S * 3
_FIRST_TOKENS = 64
_FEWEST_TOKENS = 16
_WORTH = 1.5
"""Halving a step pays if the whole one takes this many times as long."""
_NUM_REMEMBERED = 200


class StepSize:
    """The most tokens of the next step: few at first, doubled after a full and short step, halved after a long one.

    On any machine and with any model, steps soon take less than LONGEST_STEP_S, provided that so few tokens do. TCP
    finds the bandwidth of a path in the same way: slow start and multiplicative decrease (RFC 5681). Where a step
    takes long whatever its size, as it does if the weights alone take seconds to read, smaller steps would only cost
    throughput: there the size is doubled until the tokens take about as long as the rest.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._took_s: dict[int, float] = {}  # full steps by size, the later ones counting more
        self._num_observed = 0
        self.num_tokens = min(most_tokens, _FIRST_TOKENS)

    def room(self, num_running: int) -> int:
        """Returns the most tokens of the next step: at least one for each running sequence and one more.

        Running sequences therefore continue even if there are more of them than a step should compute.
        """
        return max(self.num_tokens, min(num_running + 1, self._most_tokens))

    def observe(self, num_tokens: int, took_s: float) -> None:
        """Records that a step of `num_tokens` tokens took `took_s` seconds."""
        size, is_full = self.num_tokens, num_tokens >= self.num_tokens
        half, double = max(size // 2, min(size, _FEWEST_TOKENS)), min(2 * size, self._most_tokens)
        if is_full:
            self._remember(size, took_s)
        if took_s < _SHORT_STEP_S:
            self.num_tokens = double if is_full else size
        elif took_s > LONGEST_STEP_S and not is_full:
            self.num_tokens = min(size, max(num_tokens // 2, _FEWEST_TOKENS))
        elif took_s > LONGEST_STEP_S:
            half_s, double_s = self._took_s.get(half, 0.0), self._took_s.get(double, 0.0)
            if half_s <= LONGEST_STEP_S or half_s * _WORTH <= took_s:
                self.num_tokens = half
            elif took_s < _LONGEST_TO_DOUBLE_S and double_s < _WORTH * took_s:
                self.num_tokens = double

    def _remember(self, size: int, took_s: float) -> None:
        self._num_observed += 1
        if self._num_observed % _NUM_REMEMBERED == 0:
            self._took_s.clear()  # the machine may have become another one meanwhile
        self._took_s[size] = (self._took_s.get(size, took_s) + took_s) / 2
