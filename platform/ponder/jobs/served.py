"""The models that jobs can be pinned to."""

from __future__ import annotations

from sqlalchemy import Connection, text

from ponder.domain.batch.request import ServedModel

_SERVED = text(
    """
    SELECT DISTINCT ON (models.name) models.name, models.fingerprint, context_length, has_reward_model
    FROM models
    LEFT JOIN (
        SELECT DISTINCT model AS name, fingerprint FROM incarnations
        WHERE state IN ('loading', 'ready') AND lease_until > clock_timestamp()
    ) AS alive ON alive.name = models.name AND alive.fingerprint = models.fingerprint
    ORDER BY models.name, (alive.name IS NOT NULL) DESC, last_seen_at DESC, models.fingerprint
    """
)


def served_models(connection: Connection) -> dict[str, ServedModel]:
    """Returns every model by name, with the weights that a live worker has, or else those seen last."""
    return {
        row.name: ServedModel(row.name, row.fingerprint, row.context_length, row.has_reward_model)
        for row in connection.execute(_SERVED)
    }
