"""What the process says to the script that called it."""

from __future__ import annotations

SETTLED = 0
"""Everything that was asked for is done."""

FAILED = 1
"""It could not be done; the message says why and what would help."""

USAGE = 2
"""The command line or a file handed in is wrong."""

SOME_JOBS_FAILED = 3
"""The batch is settled, but some of its lines were refused, failed, expired or were cancelled."""

INTERRUPTED = 130
"""Ctrl-C. What was submitted goes on."""
