"""Receives uploads: spools them to disk, with a few megabytes of memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ponder.api.error_answers import TooLarge
from ponder.errors import InvalidInput, Unreachable
from ponder.jobs.intake.store_upload import MAX_BYTES

_FIELDS = {"file", "purpose"}


@asynccontextmanager
async def received(
    request: Request, max_bytes: int = MAX_BYTES, file_of: Callable[[FormData], UploadFile] | None = None
) -> AsyncIterator[UploadFile]:
    """Yields the uploaded file, which is on disk from its second megabyte on. Raises InvalidInput for other forms.

    `file_of` reads another form than that of `POST /v1/files`.
    """
    try:
        form = await _parse(request, max_bytes)
    except OSError as error:
        raise Unreachable(f"the upload could not be kept in {tempfile.gettempdir()}: {error.strerror}") from error
    try:
        yield (file_of or _file_of)(form)
    finally:
        await form.close()


async def _parse(request: Request, max_bytes: int) -> FormData:
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise InvalidInput("an upload must be multipart/form-data with the fields file and purpose", param="file")
    try:
        return await MultiPartParser(request.headers, _limited(request, max_bytes), max_files=1, max_fields=10).parse()
    except ClientDisconnect:
        raise _unreadable("it ended too early") from None
    except MultiPartException as error:
        raise _unreadable(error.message) from None
    except (ValueError, LookupError):  # the form names an unknown encoding, or is not in that encoding
        raise _unreadable("its parts are not encoded as its headers say") from None


def _unreadable(reason: str) -> InvalidInput:
    return InvalidInput(f"the upload cannot be read: {reason}", param="file")


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    num_bytes = 0
    async for piece in request.stream():
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise TooLarge(
                f"an upload may have at most {max_bytes} bytes: divide the file, or compress it",
                param="file",
                code="file_too_large",
            )
        yield piece


def _file_of(form: FormData) -> UploadFile:
    for name in form:
        if name not in _FIELDS:
            raise InvalidInput(f"{name} is not supported", param=name.partition("[")[0], code="unsupported_field")
    if form.get("purpose") != "batch":
        raise InvalidInput("purpose must be batch", param="purpose", code="invalid_value")
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise InvalidInput("file is missing", param="file", code="missing_required_parameter")
    return file
