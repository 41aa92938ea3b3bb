"""Until when the results of a batch are kept."""

from __future__ import annotations

ENDED_AT = "coalesce(batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelled_at)"
"""SQL for when a batch ended, null before."""

RESULTS_EXPIRE_AT = f"""
    ({ENDED_AT} + batches.output_expires_after_s * interval '1 second')"""
"""SQL for the moment from which on nobody gets a batch's results, null while there is none."""

EXPIRED_AT = f"""
    coalesce(batches.pruned_at, CASE WHEN {RESULTS_EXPIRE_AT} <= clock_timestamp() THEN {RESULTS_EXPIRE_AT} END)"""
"""SQL for the moment at which a batch's results expired, null while they are there. The rows follow."""
