"""Checking the ledger against the bill while there is nothing else to do."""

from __future__ import annotations

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ponder.errors import LedgerImbalance
from ponder.ledger.check import check

_log = structlog.get_logger(__name__)


class LedgerCheck:
    """Checks one incarnation. An imbalance is a bug of ours: it is logged, and is no reason to stop working."""

    def __init__(self, database: Engine, incarnation_id: str) -> None:
        self._database = database
        self._incarnation_id = incarnation_id
        self._is_due = False

    def look(self, *, is_idle: bool) -> None:
        """Call it after every tick; it checks once each time that work has ended."""
        if not is_idle:
            self._is_due = True
        elif self._is_due:
            try:
                with self._database.begin() as connection:
                    check(connection, self._incarnation_id)
            except LedgerImbalance as error:
                _log.error("ledger_does_not_balance", error=str(error))
            except (SQLAlchemyError, OSError):
                return  # it stays due
            self._is_due = False
