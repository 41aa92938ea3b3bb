"""Names and values that reports are grouped, filtered and compared by, read from what a user wrote."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ponder.errors import InvalidInput

DIMENSIONS = (
    "strategy", "level", "model", "worker_model", "batch", "tenant", "key", "market", "machine", "day", "hour"
)  # fmt: skip
METADATA = "metadata."
"""The prefix of a dimension that is a field of the metadata: the line's, or else its batch's."""
KNOWN = f"{', '.join(DIMENSIONS)}, {METADATA}FIELD"

_MAX_FIELD = 64


def read_dimensions(written: str, param: str = "by") -> tuple[str, ...]:
    """Reads `strategy,metadata.team`. Returns each once, in the order written. Raises InvalidInput."""
    names = [name.strip() for name in written.split(",") if name.strip()]
    return tuple(dict.fromkeys(_checked(name, param) for name in names))


def read_filter(written: str, param: str) -> Mapping[str, str]:
    """Reads `strategy=direct,level=3`; a batch's id alone stands for `batch=…`. Raises InvalidInput."""
    wanted: dict[str, str] = {}
    for part in written.split(","):
        name, is_named, value = part.strip().partition("=")
        if not is_named and name.startswith("batch_"):
            name, value = "batch", name
        if not value or "\0" in value:
            raise InvalidInput(
                f"{param}: write DIMENSION=VALUE or the id of a batch, not {part.strip()!r}",
                param=param,
                code="invalid_value",
            )
        wanted[_checked(name.strip(), param)] = value.strip()
    return wanted


def read_moment(written: str | None, param: str) -> datetime | None:
    """Reads an ISO date or time, in UTC unless it names an offset. Raises InvalidInput."""
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{param}: {written!r} is no date like 2026-01-31 or time like 2026-01-31T12:00Z",
            param=param,
            code="invalid_value",
        ) from None


def _checked(name: str, param: str) -> str:
    field = name.removeprefix(METADATA)
    is_field = field != name and 0 < len(field) <= _MAX_FIELD and "\0" not in field
    if name in DIMENSIONS or is_field:
        return name
    raise InvalidInput(f"{param}: {name} is not one of {KNOWN}", param=param, code="invalid_value")
