"""Estimates what a submission would take, without submitting it, in a process that can be stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, text

from ponder.domain.batch.request import Terms
from ponder.domain.batch.submission import Submission
from ponder.domain.storable import JsonObject
from ponder.errors import InvalidInput, NotFound
from ponder.jobs.estimating.estimate_object import estimate_object
from ponder.jobs.estimating.fleet import loading_of
from ponder.jobs.estimating.observe import observed
from ponder.jobs.estimating.predict import predict
from ponder.jobs.estimating.sizer import Sizer
from ponder.jobs.estimating.survey import survey
from ponder.jobs.served import served_models
from ponder.jobs.validation.check_limits import CheckLimits, LineClock
from ponder.jobs.validation.limited_answer import answering, ask
from ponder.settings import Settings
from ponder.store.database import connect, url_of
from ponder.store.retention import INPUT_EXPIRED_AT

_PATIENCE_S = 300.0

_FILE = text(f"""
    SELECT 1 FROM files
    WHERE id = :id AND tenant_id = :tenant_id AND kind = 'input' AND deleted_at IS NULL AND {INPUT_EXPIRED_AT} IS NULL
""")


def appraise(
    engine: Engine, tenant_id: str, submission: Submission, settings: Settings, *, num_workers: int | None
) -> JsonObject:
    """Returns the estimate of a submission, also with another number of workers.

    Raises NotFound for an unknown file, InvalidInput if no line can become a job or if reading takes too long, and
    Unreachable if it broke off for another reason.
    """
    with engine.connect() as connection:
        _require_file(connection, tenant_id, submission.input_file_id)
    asked = {
        "database_url": url_of(engine),
        "tenant_id": tenant_id,
        "submission": submission.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "allows_code": settings.allow_code,
        "limits": asdict(CheckLimits.of(settings)),
        "num_workers": num_workers,
    }
    return ask(answer_appraisal, asked, patience_s=_PATIENCE_S, what="the estimate")


def answer_appraisal(request: bytes) -> bytes:
    """Runs in the other process. Returns the estimate, or the refusal."""
    asked = json.loads(request)
    submission = Submission.model_validate_json(json.dumps(asked["submission"]))
    return answering(lambda: _estimate(_database(asked["database_url"]), submission, asked))


def _estimate(engine: Engine, submission: Submission, asked: Mapping[str, Any]) -> JsonObject:
    limits = CheckLimits.from_document(asked["limits"])
    with engine.connect() as connection:
        models = served_models(connection)
        experience = observed(connection, asked["tenant_id"], [model.fingerprint for model in models.values()])
        terms = Terms(submission.ponder, models, submission.endpoint, asked["allows_code"], limits.verifier)
        found = survey(engine, submission.input_file_id, terms, Sizer(experience), LineClock(limits).line)
        if not found.groups:
            reason = f"no line of the file can become a job ({found.refusal or 'it has none'})"
            raise InvalidInput(reason, param="input_file_id", code="invalid_file")
        loading = loading_of(connection, sorted(found.fingerprints))
        return estimate_object(predict(connection, found, experience), found, loading, asked["num_workers"])


def _require_file(connection: Connection, tenant_id: str, file_id: str) -> None:
    if connection.execute(_FILE, {"id": file_id, "tenant_id": tenant_id}).first() is None:
        raise NotFound(f"there is no input file {file_id}", param="input_file_id")


@lru_cache(maxsize=1)
def _database(url: str) -> Engine:
    return connect(url, pool_size=2)
