"""What an API key may do."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """OPERATOR: everything, for every tenant. SUBMIT: everything with what is its tenant's own. READ: see that."""

    OPERATOR = "operator"
    SUBMIT = "submit"
    READ = "read"
