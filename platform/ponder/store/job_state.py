"""The state of a job. The state of a cancelled or expired batch counts before its jobs' rows follow."""

from __future__ import annotations

JOB_STATE = """
    CASE WHEN jobs.state <> 'pending' THEN jobs.state
         WHEN batches.state IN ('cancelling', 'cancelled') THEN 'cancelled'
         WHEN batches.state = 'expired' THEN 'expired'
         ELSE 'pending' END"""
"""SQL for queries that join `batches`."""
