"""Calibrates the reward model of a cascade's stage on another batch of the tenant."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sqlalchemy import Connection, text

from ponder.domain.batch.calibration import LEAST_JOBS, Calibration, prompt_hash
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.terms import Calibrations
from ponder.domain.strategy import AcceptByReward, Cascade
from ponder.errors import InvalidInput
from ponder.jobs.served import served_models
from ponder.store.retention import EXPIRED_AT

MOST_JOBS = 20_000
"""The most jobs of a batch to calibrate on, because each of its prompts is read."""
_LINES = 200
"""Lines of which the prompts are read at a time: one may have megabytes."""

_FIND = text(f"""
    SELECT num_lines, {EXPIRED_AT} AS results_expired_at FROM batches WHERE id = :id AND tenant_id = :tenant_id
""")

# Answers that were chosen and judged; those of a search that was told what is right say nothing about others. What a
# model says of an answer is not what is right.
_JUDGED = text("""
    SELECT CAST(choices -> 0 ->> 'score' AS float8) AS score,
           CASE WHEN judged THEN checked ELSE verdict END = 'passed' AS is_right
    FROM jobs JOIN results ON results.job_id = jobs.id
    WHERE batch_id = :id AND jobs.tenant_id = :tenant_id AND fingerprint = :fingerprint AND strategy <> 'cascade'
      AND CASE WHEN judged THEN checked ELSE verdict END IN ('passed', 'failed') AND NOT oracle
      AND choices -> 0 ->> 'score' IS NOT NULL AND choices -> 0 ->> 'finish_reason' = 'stop'
""")

_PROMPTS = text("""
    SELECT line, coalesce(request -> 'messages', request -> 'prompt') AS prompt FROM jobs
    WHERE batch_id = :id AND tenant_id = :tenant_id AND line > :after ORDER BY line LIMIT :limit
""")


def calibrate(connection: Connection, tenant_id: str, options: BatchOptions) -> Calibrations:
    """Returns the calibrations that the batch's own strategy asks for, and the prompts that it must not contain.

    Raises InvalidInput as `calibrations` does.
    """
    by_stage = calibrations(connection, tenant_id, options)
    batch_ids = {made.batch_id for made in by_stage.values()}
    prompts = frozenset(one for batch_id in batch_ids for one in _prompts(connection, tenant_id, batch_id))
    return Calibrations(by_stage, prompts)


def calibrations(connection: Connection, tenant_id: str, options: BatchOptions) -> dict[int, Calibration]:
    """Returns the calibrations that the batch's own strategy asks for, by stage.

    Raises InvalidInput for a batch that is unknown, too large or deleted, or that says too little about the stage's
    weights.
    """
    by_stage: dict[int, Calibration] = {}
    stages = options.strategy.stages if isinstance(options.strategy, Cascade) else []
    for number, stage in enumerate(stages):
        if not isinstance(stage.accept, AcceptByReward) or stage.accept.calibrated_on is None:
            continue
        values = {"id": stage.accept.calibrated_on, "tenant_id": tenant_id}
        batch = connection.execute(_FIND, values).one_or_none()
        param = f"ponder.strategy.stages[{number}].accept.calibrated_on"
        if batch is None:
            raise _refusal(f"there is no batch {stage.accept.calibrated_on}", param)
        if batch.results_expired_at is not None:
            raise _refusal(f"the results of {stage.accept.calibrated_on} are deleted: name another batch", param)
        if batch.num_lines > MOST_JOBS:
            raise _refusal(f"a batch of more than {MOST_JOBS:,} lines is too large to calibrate on", param)
        model = served_models(connection).get(stage.model or "")
        fingerprint = model.fingerprint if model is not None else None
        judged = [
            (math.exp(min(0.0, row.score)), bool(row.is_right))
            for row in connection.execute(_JUDGED, values | {"fingerprint": fingerprint})
        ]
        if len(judged) < LEAST_JOBS:
            raise _refusal(
                f"{stage.accept.calibrated_on} has {len(judged)} answers of {stage.model} with a score and a verdict, "
                f"and {LEAST_JOBS} are needed: run best_of_n with a reward model and references there",
                param,
            )
        by_stage[number] = Calibration.of(stage.accept.calibrated_on, judged)
    return by_stage


def _prompts(connection: Connection, tenant_id: str, batch_id: str) -> Iterator[bytes]:
    values = {"id": batch_id, "tenant_id": tenant_id, "after": 0, "limit": _LINES}
    while rows := connection.execute(_PROMPTS, values).all():
        yield from (prompt_hash(row.prompt) for row in rows)
        values["after"] = rows[-1].line


def _refusal(message: str, param: str) -> InvalidInput:
    return InvalidInput(message, param=param, code="no_calibration")
