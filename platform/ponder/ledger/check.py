"""The ledger balances, or we have a bug."""

from __future__ import annotations

from sqlalchemy import Connection


def check(connection: Connection, incarnation_id: str) -> int:
    """Entries = bill, to the nano-dollar; returns it. Raises LedgerImbalance."""
    raise NotImplementedError
