"""The roles of API keys."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The rights of a key: OPERATOR may do everything for every tenant, SUBMIT everything within its own tenant, and
    READ only look at that.
    """

    OPERATOR = "operator"
    SUBMIT = "submit"
    READ = "read"
