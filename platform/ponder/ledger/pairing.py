"""Pairs the jobs of two sets by the problem that they answered.

Some problems cost more than others, whatever answers them. Where two sets answered the same ones, this part of the
variance is in both, and what is left of it in their ratio says how well they can be told apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, text

from ponder.ledger.cost_report import COUNTED
from ponder.ledger.reporting import Selection

Key = Literal["prompt", "custom_id"]

# The prompts of pruned jobs are not known any more, so these are problems of their own.
_KEYS: dict[Key, str] = {
    "prompt": "coalesce(md5(CAST(coalesce(request -> 'messages', request -> 'prompt') AS text)), 'job ' || jobs.id)",
    "custom_id": "custom_id",
}

_PROBLEMS = """
    SELECT {key} AS problem, sum(passed) AS passed, sum(cost) AS cost
    FROM (
        SELECT job_id, CAST(sum(is_passed) AS float8) AS passed, CAST(sum(loaded_nanodollars) AS float8) AS cost
        FROM ({counted}) AS counted GROUP BY job_id
        HAVING sum(is_settled) > 0 OR sum(loaded_nanodollars) > 0
    ) AS job JOIN jobs ON jobs.id = job_id
    GROUP BY 1
"""

# By the delta method: the logarithm of the ratio of the ratios is linear in each problem's share of the four sums.
_PAIR = """
    WITH a AS MATERIALIZED ({a}), b AS MATERIALIZED ({b}),
    total_a AS (SELECT nullif(sum(passed), 0) AS passed, nullif(sum(cost), 0) AS cost FROM a),
    total_b AS (SELECT nullif(sum(passed), 0) AS passed, nullif(sum(cost), 0) AS cost FROM b)
    SELECT count(*) AS num, count(*) FILTER (WHERE a.problem = b.problem) AS num_paired,
           (SELECT least((SELECT count(*) FROM a), (SELECT count(*) FROM b))) AS most_paired,
           sum(power(coalesce(a.cost / total_a.cost - a.passed / total_a.passed, 0)
                   - coalesce(b.cost / total_b.cost - b.passed / total_b.passed, 0), 2)) AS squares
    FROM a FULL JOIN b USING (problem) CROSS JOIN total_a CROSS JOIN total_b
"""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How two sets of jobs are paired: by what, and how many problems are in both.

    `variance` is that of the logarithm of A's cost per success divided by B's.
    """

    by: Key
    num_paired: int
    variance: float


def pair(connection: Connection, a: Selection, b: Selection) -> Pairing | None:
    """Pairs by prompts, or by custom ids if these are more often the same. Returns None for fewer than two pairs.

    Problems that only one set has count too, so that the ratio is the same as without pairs.
    """
    best, most = _paired(connection, a, b, "prompt")
    if best is None or best.num_paired < most:
        other, _ = _paired(connection, a, b, "custom_id")
        best = max((one for one in (best, other) if one is not None), key=lambda one: one.num_paired, default=None)
    return best


def _paired(connection: Connection, a: Selection, b: Selection, key: Key) -> tuple[Pairing | None, int]:
    """Returns the pairing by a key, if there is one, and how many pairs there can be at most."""
    values: dict[str, object] = {}
    problems = {}
    for name, selection in (("a", a), ("b", b)):
        counted = COUNTED.format(columns="", condition=selection.condition)
        # Both conditions name their parameters alike.
        problems[name] = _PROBLEMS.format(key=_KEYS[key], counted=re.sub(r":(?=[a-z])", f":{name}_", counted))
        values |= {f"{name}_{parameter}": value for parameter, value in selection.values.items()}
    row = connection.execute(text(_PAIR.format(**problems)), values).one()
    if row.num_paired < 2:
        return None, row.most_paired
    return Pairing(key, row.num_paired, row.squares * row.num / (row.num - 1)), row.most_paired
