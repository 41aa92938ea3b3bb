"""The pages that make a batch: a file is uploaded, looked at and described, its cost estimated, and submitted."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from ponder.api.request_span import RequestSpan, Traced
from ponder.api.routes import batches, estimates, files
from ponder.api.routes.models import list_models
from ponder.api.services import Ponder, Services, identifier
from ponder.console.draft import FORM, Draft
from ponder.console.rendering import redirect, render
from ponder.console.session import (
    CSRF_FIELD,
    CSRF_HEADER,
    Changing,
    PostedForm,
    SignedIn,
    Visitor,
    check_may_change,
    check_token,
    refuse_other_sites,
)
from ponder.console.spec_form import cards, strategy_groups
from ponder.datasets.dataset import Fields
from ponder.datasets.source import FORMATS
from ponder.datasets.source import Form as FileForm
from ponder.domain.state import Lane
from ponder.domain.storable import JsonObject
from ponder.domain.strategy import STRATEGY_SPECS
from ponder.domain.verifier import VERIFIER_SPECS
from ponder.errors import Conflict, InvalidInput, NotFound
from ponder.jobs.intake.prepare import prepare
from ponder.jobs.intake.preview import preview
from ponder.jobs.intake.store_upload import MAX_BYTES
from ponder.jobs.intake.stored_file import num_uses

router = APIRouter()

ENCODINGS = ("utf-8", "utf-16", "latin-1", "cp1252", "utf-32")
_NUM_UPLOADS = 100
_NUM_SHOWN_UPLOADS = 12
_MOST_CONVERTED_BYTES = 4 * 1024 * 1024
"""The largest data set of text that is converted for an estimate whenever the form changes."""
_MOST_LINES_BYTES = 64 * 1024 * 1024
"""The largest file of batch lines, stored or converted, that is read whenever the form changes."""

FileId = Annotated[str | None, Query(max_length=100)]
Encoding = Annotated[str | None, Query(max_length=40)]


@router.get("/new")
def new_batch(
    request: Request, ponder: Ponder, visitor: SignedIn, file: FileId = None, encoding: Encoding = None
) -> Response:
    """Asks for a file, or shows the one that was uploaded with the form of its batch."""
    if not visitor.may_change:
        return render(request, "new_denied.html", visitor, status=403)
    if file is None:
        uploads = files.list_files(ponder, visitor.viewed, limit=_NUM_UPLOADS, after=None, purpose="batch")
        uses = num_uses(ponder.engine, visitor.viewed.tenant_id, [file["id"] for file in uploads["data"]])
        return render(
            request,
            "new_file.html",
            visitor,
            uploads=sorted(uploads["data"], key=lambda file: file["id"] in uses)[:_NUM_SHOWN_UPLOADS],
            uses=uses,
            formats=FORMATS,
            most_bytes=MAX_BYTES,
        )
    fields = {"file": file, "encoding": encoding or "", "idempotency_key": secrets.token_hex(16)}
    return _form(request, ponder, visitor, fields)


@router.post("/new/file")
async def upload(request: Request, ponder: Ponder, visitor: SignedIn) -> Response:
    """Stores the file of a form as `POST /v1/files` does, or the lines that were pasted into it."""
    token = request.headers.get(CSRF_HEADER)
    if token is None:
        refuse_other_sites(request)  # the form's own token comes with the file
    else:
        check_token(visitor, token)
    check_may_change(visitor)
    stored = await files.take_upload(request, ponder, visitor.viewed, _file_of(visitor, token))
    return redirect(request, f"/new?file={stored['id']}")


def _file_of(visitor: Visitor, token: str | None) -> Callable[[FormData], UploadFile]:
    def read(form: FormData) -> UploadFile:
        check_token(visitor, token, form.get(CSRF_FIELD))
        file, pasted = form.get("file"), form.get("lines")
        if isinstance(file, UploadFile) and file.filename:
            FileForm.of(file.filename)
            return file
        if isinstance(pasted, str) and pasted.strip():
            return _pasted(pasted, str(form.get("pasted_as", "")))
        raise InvalidInput("choose a file, or paste some lines", param="file", code="missing_required_parameter")

    return read


def _pasted(text: str, pasted_as: str) -> UploadFile:
    """Returns pasted lines as a file: CSV if they are said to be, JSON if they look like it, or one problem a line."""
    suffix = ".csv" if pasted_as == "csv" else _suffix_of_json(text)
    if suffix is None:
        text = "".join(json.dumps({"problem": line}) + "\n" for line in text.splitlines() if line.strip())
    return UploadFile(io.BytesIO(text.encode("utf-8", "replace")), filename=f"pasted{suffix or '.jsonl'}")


def _suffix_of_json(text: str) -> str | None:
    """Returns the suffix of a JSON array, or of lines of which an early one is an object. A problem may begin alike."""
    for suffix, pieces in ((".json", [text]), (".jsonl", text.split("\n")[:20])):
        for piece in pieces:
            with suppress(ValueError, RecursionError):
                if isinstance(json.loads(piece), list if suffix == ".json" else dict):
                    return suffix
    return None


@router.post("/new/remove")
def remove(request: Request, ponder: Ponder, visitor: Changing, file: Annotated[str, Form(max_length=100)]) -> Response:
    """Deletes an upload. Batches that have read it keep their jobs."""
    files.delete_file(file, ponder, visitor.viewed)
    return redirect(request, "/new")


@router.post("/new/check")
def check(request: Request, ponder: Ponder, posted: PostedForm) -> Response:
    """Shows what the first lines and the whole batch would come to. Submits nothing."""
    found = _checked(ponder, posted.visitor, Draft(posted.fields))
    return render(request, "parts/new_check.html", posted.visitor, **found)


@router.post("/new")
def submit(request: Request, ponder: Ponder, posted: PostedForm, span: Traced) -> Response:
    """Submits the batch as `POST /v1/batches` does. A form that is sent twice makes one batch."""
    visitor, draft = posted.visitor, Draft(posted.fields)
    if posted.fields.get("action") == "check":  # without scripts
        return _form(request, ponder, visitor, posted.fields, **_checked(ponder, visitor, draft))
    try:
        batch = _submitted(ponder, visitor, draft, span)
    except InvalidInput as error:
        if "HX-Request" in request.headers:
            return render(request, "parts/new_check.html", visitor, **_refused(error))
        return _form(request, ponder, visitor, posted.fields, **_refused(error))
    return redirect(request, f"/batches/{batch['id']}")


def _submitted(ponder: Services, visitor: Visitor, draft: Draft, span: RequestSpan) -> JsonObject:
    caller = visitor.viewed
    upload, reading = identifier(draft.upload, "file", "file"), draft.reading()
    if reading is None:
        return batches.create(draft.submission(upload), ponder, caller, span, draft.idempotency_key)
    file_id = draft.new_file_id(caller.tenant_id, reading)
    _prepare(ponder, visitor, draft, file_id)
    # A file that was made stays where the submission is refused: sent again, the form finds it.
    batch = batches.create(draft.submission(file_id), ponder, caller, span, draft.idempotency_key)
    if reading.fields != Fields():  # a data set has become the batch's file; batch lines may serve other batches
        with suppress(NotFound, Conflict):
            files.delete_file(upload, ponder, caller)
    return batch


def _checked(ponder: Services, visitor: Visitor, draft: Draft) -> JsonObject:
    """Returns what `parts/new_check.html` shows."""
    file_id = f"file-{secrets.token_hex(12)}"
    checked = None
    try:
        if draft.is_automatic and not _may_check_automatically(ponder, visitor, draft):
            return _NOTHING_FOUND | {"is_large": True}
        most_made = _MOST_LINES_BYTES if draft.is_automatic else MAX_BYTES
        checked = _prepare(ponder, visitor, draft, file_id, most_made)
        estimate = estimates.create(draft.submission(checked["file_id"]), ponder, visitor.viewed)
    except InvalidInput as error:
        if draft.is_automatic and error.code == "file_too_large":
            return _NOTHING_FOUND | {"is_large": True}
        return _refused(error) | {"checked": checked}
    finally:
        with suppress(NotFound, Conflict):  # none is made of batch lines, or where the rows cannot be read
            files.delete_file(file_id, ponder, visitor.viewed)
    return _NOTHING_FOUND | {"checked": checked, "estimate": estimate}


def _may_check_automatically(ponder: Services, visitor: Visitor, draft: Draft) -> bool:
    """Whether a check takes no more work than the file's size promises. Raises InvalidInput for a wrong form."""
    return _is_small(files.get_file(draft.upload, ponder, visitor.viewed), is_ready=draft.reading() is None)


_NOTHING_FOUND: JsonObject = {"checked": None, "estimate": None, "problem": None, "param": None, "is_large": False}


def _refused(error: InvalidInput) -> JsonObject:
    return _NOTHING_FOUND | {"problem": error.message, "param": error.param}


def _prepare(
    ponder: Services, visitor: Visitor, draft: Draft, new_file_id: str, most_made: int = MAX_BYTES
) -> JsonObject:
    caller = visitor.viewed
    reading = draft.reading()
    with ponder.limits.submissions.one(caller.tenant_id, is_operator=caller.is_operator):
        submission = ponder.reader.read(draft.submission(identifier(draft.upload, "file", "file")))
        return prepare(
            ponder.engine,
            caller.tenant_id,
            submission,
            ponder.settings,
            reading=reading,
            new_file_id=new_file_id,
            surface=FORM,
            most_stored=files.most_bytes(ponder, caller),
            most_made=most_made,
        )


def _form(request: Request, ponder: Services, visitor: Visitor, fields: Mapping[str, str], **told: object) -> Response:
    """Renders the form of a batch with the values that it has."""
    file_id, encoding = identifier(fields.get("file", ""), "file", "file"), fields.get("encoding") or None
    stored = files.get_file(file_id, ponder, visitor.viewed)
    found, trouble = None, None
    try:
        if encoding not in (None, *ENCODINGS):
            raise InvalidInput(f"choose one of the encodings {', '.join(ENCODINGS)}", param="encoding")
        with ponder.limits.submissions.one(visitor.viewed.tenant_id, is_operator=visitor.viewed.is_operator):
            found = preview(ponder.engine, visitor.viewed.tenant_id, file_id, encoding=encoding, surface=FORM)
    except InvalidInput as error:
        trouble = error.message
    values = {
        "stored": stored,
        "found": found,
        "trouble": trouble,
        "fields": fields,
        "models": list_models(ponder, visitor.viewed)["data"],
        "strategies": strategy_groups(STRATEGY_SPECS),
        "verifiers": [("", cards(VERIFIER_SPECS))],
        "encodings": ENCODINGS,
        "lanes": [lane.value for lane in Lane],
        "checks_automatically": found is not None and _is_small(stored, is_ready=found["is_ready"]),
    }
    return render(request, "new_batch.html", visitor, **values | _NOTHING_FOUND | told)


def _is_small(stored: JsonObject, *, is_ready: bool) -> bool:
    """Whether a stored file is small enough for automatic checks, and as small to read as its size says."""
    form = FileForm.of(stored["filename"])
    most_bytes = _MOST_LINES_BYTES if is_ready else _MOST_CONVERTED_BYTES
    return stored["bytes"] <= most_bytes and form.name != "parquet" and not form.is_compressed
