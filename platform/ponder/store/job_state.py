"""The state of a job: that of a batch which was cancelled or has expired counts before the job's row follows it."""

from __future__ import annotations

JOB_STATE = """
    CASE WHEN jobs.state <> 'pending' THEN jobs.state
         WHEN batches.state IN ('cancelling', 'cancelled') THEN 'cancelled'
         WHEN batches.state = 'expired' THEN 'expired'
         ELSE 'pending' END"""
"""For queries that join `batches`."""
