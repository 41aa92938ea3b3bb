"""Batches made from the bytes of a file, without the API."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Engine, Row, text

from ponder.domain.batch.submission import Submission
from ponder.jobs.batch.submit import submit
from ponder.jobs.validation.validate import validate
from ponder.settings import Settings

TENANT = "tenant_00"


def line(custom_id: Any = "a", **body: Any) -> dict[str, Any]:
    base = {"model": "demo", "messages": [{"role": "user", "content": "1 + 1?"}]}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": base | body}


@dataclass
class Desk:
    """A tenant's way to submit files and batches."""

    engine: Engine
    numbers: Any = field(default_factory=lambda: itertools.count(16))
    line: Callable[..., dict[str, Any]] = line

    def sql(self, statement: str, **values: Any) -> Sequence[Row[Any]]:
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def file(self, content: bytes, chunk: int = 1024 * 1024, tenant: str = TENANT) -> str:
        file_id = f"file-{next(self.numbers):x}"
        self.sql(
            "INSERT INTO files (id, tenant_id, filename, purpose, kind, bytes) "
            "VALUES (:id, :tenant, 'x.jsonl', 'batch', 'input', :bytes)",
            id=file_id,
            tenant=tenant,
            bytes=len(content),
        )
        for ordinal, start in enumerate(range(0, len(content), chunk)):
            self.sql(
                "INSERT INTO file_chunks VALUES (:id, :ordinal, :data)",
                id=file_id,
                ordinal=ordinal,
                data=content[start : start + chunk],
            )
        return file_id

    def submit(
        self,
        file_id: str,
        *,
        tenant: str = TENANT,
        key: str | None = None,
        window: str = "24h",
        most_open: int | None = None,
        **options: Any,
    ) -> str:
        body = {"input_file_id": file_id, "completion_window": window, "ponder": options}
        with self.engine.begin() as connection:
            return submit(
                connection,
                tenant,
                Submission.model_validate(body),
                Settings(),
                batch_id=f"batch_{next(self.numbers):x}",
                idempotency_key=key,
                most_open=most_open,
            )

    def batch(self, *lines: dict[str, Any] | bytes, **options: Any) -> str:
        """Submits and validates a batch."""
        content = b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines)
        batch_id = self.submit(self.file(content), **options)
        validate(self.engine, batch_id)
        return batch_id

    def row(self, batch_id: str) -> Row[Any]:
        return self.sql("SELECT * FROM batches WHERE id = :id", id=batch_id)[0]

    def jobs(self, batch_id: str) -> Sequence[Row[Any]]:
        return self.sql("SELECT * FROM jobs WHERE batch_id = :id ORDER BY line", id=batch_id)

    def rejected(self, batch_id: str) -> dict[int, tuple[str, str | None, str | None]]:
        """Returns code, param and custom id of rejected lines, by line."""
        rows = self.sql("SELECT * FROM rejected_lines WHERE batch_id = :id ORDER BY line", id=batch_id)
        return {row.line: (row.code, row.param, row.custom_id) for row in rows}


@pytest.fixture
def desk(engine: Engine) -> Desk:
    desk = Desk(engine)
    desk.sql("INSERT INTO tenants (id, name) VALUES (:id, 'mine'), ('tenant_01', 'theirs')", id=TENANT)
    desk.sql(
        "INSERT INTO models (name, fingerprint, context_length, has_reward_model) "
        "VALUES ('demo', 'f0', 512, true), ('bare', 'f1', 512, false)"
    )
    return desk
