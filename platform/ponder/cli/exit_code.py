"""The exit codes of the commands."""

from __future__ import annotations

SETTLED = 0
"""Everything was done."""

FAILED = 1
"""It could not be done. The message says why, and the remedy."""

USAGE = 2
"""The command line or a given file is wrong."""

SOME_JOBS_FAILED = 3
"""The batch is settled, but some of its lines were refused, failed, expired or were cancelled."""

BUDGET_EXHAUSTED = 4
"""The batch waits, because its budget admits no further job. Raising the budget continues it."""

PILOT_WAITING = 5
"""The pilot is settled, and the rest of the batch waits for a yes or a higher budget."""

INTERRUPTED = 130
"""The user pressed Ctrl-C. Submitted batches go on."""
