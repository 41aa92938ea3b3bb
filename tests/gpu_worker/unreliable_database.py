"""A Postgres whose answers get lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

Moment = Literal["before", "after"]


class UnreliableDatabase:
    """An Engine of which the next transaction fails `before` or `after` its commit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.fails: Moment | None = None
        self.connect = engine.connect

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        fails, self.fails = self.fails, None
        with self._engine.begin() as connection:
            yield connection
            if fails == "before":
                raise OperationalError("", None, Exception("the connection was lost"))
        if fails == "after":
            raise OperationalError("", None, Exception("the connection was lost"))
