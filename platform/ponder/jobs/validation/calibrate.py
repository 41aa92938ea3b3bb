"""Calibrates the reward model of a cascade's stage on another batch of the tenant."""

from __future__ import annotations

import math

from sqlalchemy import Connection, text

from ponder.domain.batch.calibration import LEAST_JOBS, Calibration, prompt_hash
from ponder.domain.batch.options import BatchOptions
from ponder.domain.batch.terms import Calibrations
from ponder.domain.strategy import AcceptByReward, Cascade
from ponder.errors import InvalidInput
from ponder.jobs.served import served_models

MOST_JOBS = 20_000
"""The most jobs of a batch to calibrate on, because each of its prompts is read."""

_FIND = text("SELECT num_lines FROM batches WHERE id = :id AND tenant_id = :tenant_id")

# Answers that were chosen and judged; those of a search that was told what is right say nothing about others.
_JUDGED = text("""
    SELECT CAST(choices -> 0 ->> 'score' AS float8) AS score, verdict = 'passed' AS is_right
    FROM jobs JOIN results ON results.job_id = jobs.id
    WHERE batch_id = :id AND jobs.tenant_id = :tenant_id AND fingerprint = :fingerprint AND strategy <> 'cascade'
      AND verdict IN ('passed', 'failed') AND NOT oracle
      AND choices -> 0 ->> 'score' IS NOT NULL AND choices -> 0 ->> 'finish_reason' = 'stop'
""")

_PROMPTS = text("""
    SELECT coalesce(request -> 'messages', request -> 'prompt') AS prompt FROM jobs
    WHERE batch_id = :id AND tenant_id = :tenant_id
""")


def calibrate(connection: Connection, tenant_id: str, options: BatchOptions) -> Calibrations:
    """Returns the calibrations that the batch's own strategy asks for, and the prompts that it must not contain.

    Raises InvalidInput for a batch that is unknown, too large, or says too little about the stage's weights.
    """
    by_stage: dict[int, Calibration] = {}
    prompts: set[bytes] = set()
    stages = options.strategy.stages if isinstance(options.strategy, Cascade) else []
    for number, stage in enumerate(stages):
        if not isinstance(stage.accept, AcceptByReward) or stage.accept.calibrated_on is None:
            continue
        values = {"id": stage.accept.calibrated_on, "tenant_id": tenant_id}
        num_lines = connection.execute(_FIND, values).scalar()
        param = f"ponder.strategy.stages[{number}].accept.calibrated_on"
        if num_lines is None:
            raise _refusal(f"there is no batch {stage.accept.calibrated_on}", param)
        if num_lines > MOST_JOBS:
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
        prompts |= {prompt_hash(row.prompt) for row in connection.execute(_PROMPTS, values)}
    return Calibrations(by_stage, frozenset(prompts))


def _refusal(message: str, param: str) -> InvalidInput:
    return InvalidInput(message, param=param, code="no_calibration")
