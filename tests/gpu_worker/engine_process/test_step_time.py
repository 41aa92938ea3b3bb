"""The time of a step, measured while engines work."""

import pytest

from ponder_worker.engine_process.step_time import StepTime


def test_the_time_of_a_step_is_a_line_through_the_latest() -> None:
    step_time = StepTime()
    for number in range(100):
        step_time.observe(4, 0.02)
        assert step_time.fit() is None, number
    for number in range(3000):
        rows = 1 + number % 8
        step_time.observe(rows, 0.004 + 0.0005 * rows)
    fit = step_time.fit()
    assert fit is not None
    assert fit.fixed_s == pytest.approx(0.004, rel=0.01)
    assert fit.row_s == pytest.approx(0.0005, rel=0.01)
