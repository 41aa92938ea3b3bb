"""Shows what is in an uploaded file: its form, fields and first rows. Works in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Any

from sqlalchemy import Engine

from ponder.datasets.dataset import Fields
from ponder.datasets.source import Source
from ponder.datasets.surface import Surface
from ponder.domain.storable import JsonObject, clean
from ponder.jobs.intake.stored_file import StoredFile
from ponder.jobs.validation.limited_answer import answering, ask
from ponder.store.database import connect, url_of

_PATIENCE_S = 60.0
_NUM_ROWS = 8
_MOST_FIELDS = 100
_SHOWN = 400
"""Characters of a value that are shown."""


def preview(
    engine: Engine, tenant_id: str, file_id: str, *, surface: Surface, encoding: str | None = None
) -> JsonObject:
    """Returns the form of a file, its fields with a guess at what each is for, and its first rows, cut short.

    Errors name settings as `surface` does. Raises NotFound, and InvalidInput for a file that cannot be read.
    """
    file = StoredFile.of(engine, tenant_id, file_id)
    asked = {
        "database_url": url_of(engine),
        "file_id": file_id,
        "name": file.name,
        "bytes": file.num_bytes,
        "encoding": encoding,
        "surface": asdict(surface),
    }
    return ask(answer_preview, asked, patience_s=_PATIENCE_S, what="the preview")


def answer_preview(request: bytes) -> bytes:
    """Runs in the other process."""
    asked = json.loads(request)
    return answering(lambda: _preview(asked))


def _preview(asked: Mapping[str, Any]) -> JsonObject:
    engine = connect(asked["database_url"], pool_size=1)
    file = StoredFile(engine, asked["file_id"], asked["name"], asked["bytes"])
    source = Source.of(file, asked["encoding"], Surface(**asked["surface"]))
    is_batch = source.is_batch()
    fields = list(source.fields())
    with closing(source.rows()) as rows:
        first = [
            {"place": row.place, "trouble": row.trouble, "cells": _cells(row.values, is_batch=is_batch)}
            for row in islice(rows, _NUM_ROWS)
        ]
    return {
        "form": source.form,
        "is_batch": is_batch,
        "is_ready": is_batch and source.is_plain(),
        "endpoint": source.endpoint(),
        "fields": [clean(name) for name in fields[:_MOST_FIELDS]],
        "likely": asdict(Fields() if is_batch else Fields.likely(fields)),
        "rows": first,
        "trouble": "" if fields else source.first_trouble(),
    }


def _cells(values: Mapping[str, Any] | None, *, is_batch: bool) -> JsonObject:
    if values is None:
        return {}
    shown = _of_line(values) if is_batch else dict(islice(values.items(), _MOST_FIELDS))
    return {clean(name): _text(value) for name, value in shown.items()}


def _of_line(values: Mapping[str, Any]) -> JsonObject:
    """Returns what a person wants to see of a batch line."""
    body = values.get("body")
    body = body if isinstance(body, dict) else {}
    own = body.get("ponder")
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    prompt = last.get("content") if isinstance(last, dict) else body.get("prompt")
    reference = own.get("reference") if isinstance(own, dict) else None
    return {"custom_id": values.get("custom_id"), "model": body.get("model"), "prompt": prompt, "reference": reference}


def _text(value: Any) -> JsonObject:
    """Returns a value as text, cut short, with its whole length."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return {"text": clean(text[:_SHOWN]), "length": len(text)}
