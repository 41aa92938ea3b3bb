"""Bounds the tokens of a step by the time that steps take."""

LONGEST_STEP_S = 2.0
"""As long as a worker's tick. Reports, cancellations and notices of preemption are answered between two steps."""
_SHORT_STEP_S = LONGEST_STEP_S / 2
_FIRST_TOKENS = 64
_FEWEST_TOKENS = 16


class StepSize:
    """The most tokens of the next step: few at first, doubled after a full and short step, halved after a long one.

    On any machine and with any model, steps soon take less than LONGEST_STEP_S, provided that `_FEWEST_TOKENS` tokens
    do. TCP finds the bandwidth of a path in the same way: slow start and multiplicative decrease (RFC 5681).
    """

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self.num_tokens = min(most_tokens, _FIRST_TOKENS)

    def room(self, num_running: int) -> int:
        """Returns the most tokens of the next step: at least one for each running sequence and one more.

        Running sequences therefore continue even if there are more of them than a step should compute.
        """
        return max(self.num_tokens, min(num_running + 1, self._most_tokens))

    def observe(self, num_tokens: int, took_s: float) -> None:
        """Records that a step of `num_tokens` tokens took `took_s` seconds."""
        if took_s > LONGEST_STEP_S:
            self.num_tokens = min(self.num_tokens, max(num_tokens // 2, _FEWEST_TOKENS))
        elif took_s < _SHORT_STEP_S and num_tokens >= self.num_tokens:
            self.num_tokens = min(self._most_tokens, 2 * self.num_tokens)
