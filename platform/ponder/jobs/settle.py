"""Settles jobs, each exactly once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime

from sqlalchemy import Connection, text

from ponder.jobs.tick_report import Settlement, Usage
from ponder.store.document import dumps

# One statement for everything that a settled job leaves behind. The jobs are locked and pending.
_SETTLE = text("""
    WITH settlement AS MATERIALIZED (
        SELECT * FROM json_to_recordset(CAST(:settlements AS json)) AS settlement(
            job_id bigint, state text, verdict text, answer text, finish_reason text, choices jsonb, error jsonb,
            tree json, prompt_tokens bigint, completion_tokens bigint, thinking_tokens bigint, reward_tokens bigint,
            cached_tokens bigint, recomputed_tokens bigint)
    ), job AS (
        UPDATE jobs SET state = settlement.state, verdict = settlement.verdict,
                        settled_at = CAST(:now AS timestamptz)
        FROM settlement WHERE jobs.id = settlement.job_id
        RETURNING jobs.id AS job_id, jobs.tenant_id
    ), result AS (
        INSERT INTO results (job_id, tenant_id, answer, finish_reason, choices, error)
        SELECT job_id, tenant_id, answer, finish_reason, choices, error FROM settlement JOIN job USING (job_id)
    ), used AS (
        INSERT INTO usage (job_id, tenant_id, prompt_tokens, completion_tokens, thinking_tokens, reward_tokens,
                           cached_tokens, recomputed_tokens)
        SELECT job_id, tenant_id, prompt_tokens, completion_tokens, thinking_tokens, reward_tokens,
               cached_tokens, recomputed_tokens
        FROM settlement JOIN job USING (job_id)
    ), grown AS (
        INSERT INTO search_trees (job_id, tenant_id, tree)
        SELECT job_id, tenant_id, tree FROM settlement JOIN job USING (job_id) WHERE tree IS NOT NULL
    ), folded AS (
        DELETE FROM tree_deltas USING job WHERE tree_deltas.job_id = job.job_id
    ), attempt AS (
        UPDATE attempts SET outcome = 'settled', ended_at = CAST(:now AS timestamptz)
        FROM job WHERE attempts.job_id = job.job_id AND attempts.ended_at IS NULL
    )
    SELECT job_id FROM job
""")


_USAGE = tuple(field.name for field in fields(Usage))


def settle(connection: Connection, settlements: Iterable[Settlement], now: datetime) -> set[int]:
    """Writes the state, result, usage and tree of jobs, and ends their attempts. Returns the ids of the jobs.

    The caller has locked the jobs and seen them pending.
    """
    rows = [
        {
            "job_id": settlement.job_id,
            "state": settlement.state.value,
            "verdict": settlement.verdict and settlement.verdict.value,
            "answer": settlement.answer,
            "finish_reason": settlement.finish_reason,
            "choices": list(settlement.choices) or None,
            "error": settlement.error,
            "tree": settlement.tree or None,
            **_usage(settlement.usage),
        }
        for settlement in settlements
    ]
    if not rows:
        return set()
    return set(connection.execute(_SETTLE, {"settlements": dumps(rows), "now": now}).scalars())


def _usage(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in _USAGE}
