"""Until when the results of a batch are kept, and what stays of them."""

from __future__ import annotations

ENDED_AT = "coalesce(batches.completed_at, batches.failed_at, batches.expired_at, batches.cancelled_at)"
"""SQL for when a batch ended, null before."""

RESULTS_EXPIRE_AT = f"""
    ({ENDED_AT} + batches.output_expires_after_s * interval '1 second')"""
"""SQL for the moment from which on nobody gets a batch's results, null while there is none."""

EXPIRED_AT = f"""
    coalesce(batches.pruned_at, CASE WHEN {RESULTS_EXPIRE_AT} <= clock_timestamp() THEN {RESULTS_EXPIRE_AT} END)"""
"""SQL for the moment at which a batch's results expired, null while they are there. The rows follow."""

INPUT_EXPIRED_AT = f"""
    (SELECT CASE WHEN count({EXPIRED_AT}) = count(*) THEN max({EXPIRED_AT}) END
     FROM batches WHERE batches.input_file_id = files.id)"""
"""SQL for the moment at which the results of the last batch of an input file expired, null while one needs it."""

REQUEST_LEFT = """
    CASE WHEN request #> '{kept,metadata}' IS NULL THEN '{}'
         ELSE jsonb_build_object('kept', jsonb_build_object('metadata', request #> '{kept,metadata}')) END"""
"""SQL for what stays of a job's request: what reports group by."""

ERROR_LEFT = """
    CASE WHEN error IS NOT NULL THEN
        jsonb_build_object('code', error -> 'code', 'message', 'deleted with the results') END"""
"""SQL for what stays of a job's error."""


def until_expired(column: str, left: str = "NULL") -> str:
    """Returns SQL for a column of a job while the results of its batch are there, and for what stays of it then."""
    return f"CASE WHEN {EXPIRED_AT} IS NULL THEN {column} ELSE {left} END"
