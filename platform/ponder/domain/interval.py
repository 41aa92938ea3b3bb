"""Confidence intervals of shares counted on few tasks."""

from __future__ import annotations

import math

_Z_95 = 1.959963984540054


def wilson(passed: int, judged: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share, or (0, 1) if none is judged.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    assert 0 <= passed <= judged, f"{passed} of {judged}"
    if not judged:
        return 0.0, 1.0
    share, z_squared = passed / judged, _Z_95**2
    middle = share + z_squared / (2 * judged)
    margin = _Z_95 * math.sqrt(share * (1 - share) / judged + z_squared / (4 * judged**2))
    scale = 1 + z_squared / judged
    return max(0.0, (middle - margin) / scale), min(1.0, (middle + margin) / scale)
