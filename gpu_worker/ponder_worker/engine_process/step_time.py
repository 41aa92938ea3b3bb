"""How long a decode step takes, by its number of rows."""

from __future__ import annotations

from dataclasses import dataclass

_FORGETTING = 1 / 256
_FEWEST_STEPS = 32.0


@dataclass(frozen=True, slots=True)
class StepTimeFit:
    """A decode step of so many rows takes fixed_s + rows * row_s. mean_rows: in the latest steps."""

    mean_rows: float
    fixed_s: float
    row_s: float


class StepTime:
    """Fits the time of decode steps to their number of rows, by least squares in which old steps fade."""

    def __init__(self) -> None:
        self._num = self._rows = self._seconds = self._rows_squared = self._product = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        keep = 1 - _FORGETTING
        self._num = keep * self._num + 1
        self._rows = keep * self._rows + rows
        self._seconds = keep * self._seconds + seconds
        self._rows_squared = keep * self._rows_squared + rows * rows
        self._product = keep * self._product + rows * seconds

    def fit(self) -> StepTimeFit | None:
        """Returns None before there are enough steps, or if all of them had the same number of rows."""
        spread = self._num * self._rows_squared - self._rows**2
        if self._num < _FEWEST_STEPS or spread < self._num:
            return None
        row_s = (self._num * self._product - self._rows * self._seconds) / spread
        row_s = min(max(0.0, row_s), self._seconds / self._rows)
        return StepTimeFit(self._rows / self._num, (self._seconds - row_s * self._rows) / self._num, row_s)
