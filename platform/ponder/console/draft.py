"""Reads the form of a new batch: how its file is read, and the body of its submission."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ponder.console.spec_form import chosen, number, seconds_of_days
from ponder.datasets.dataset import Fields
from ponder.datasets.surface import Surface
from ponder.domain.batch.endpoint import CHAT
from ponder.domain.budget import BatchBudget, Budget
from ponder.domain.strategy import STRATEGY_SPECS
from ponder.domain.verifier import VERIFIER_SPECS
from ponder.errors import InvalidInput
from ponder.jobs.intake.prepare import Reading
from ponder.wire import Json

FORM = Surface("“Problem”", "“Reference answer”", "“Id”", "“Level”", "“Encoding”", "“Model”", "{value} under {name}")
"""The labels of the form's fields."""
SAMPLING = ("max_tokens", "temperature", "n")


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch that is not submitted yet: the fields of its form by name."""

    fields: Mapping[str, str]

    @property
    def upload(self) -> str:
        """The id of the uploaded file."""
        return self._text("file")

    @property
    def is_automatic(self) -> bool:
        """Whether a change of the form caused the check, and nobody asked for it."""
        return "automatic" in self.fields

    @property
    def idempotency_key(self) -> str | None:
        return self._text("idempotency_key") or None

    def reading(self) -> Reading | None:
        """Returns how the upload becomes a batch file, or None if it is one. Raises InvalidInput."""
        sampling = {name: number(text, name) for name in SAMPLING if (text := self._text(name))}
        if self._text("is_batch"):
            if self._text("is_ready") and not sampling:
                return None
            return Reading(Fields(), sampling, encoding=self._text("encoding") or None)
        names = {name: self.fields.get(name) or None for name in ("prompt", "answer", "id", "level")}
        for name, what in (("prompt", "the field that holds the problem"), ("model", "the model that answers")):
            if not self._text(name):
                raise InvalidInput(f"choose {what}", param=name, code="missing_required_parameter")
        body = {"model": self._text("model")} | sampling
        return Reading(Fields(**names), body, self.fields.get("system") or None, self._text("encoding") or None)

    def new_file_id(self, tenant_id: str, reading: Reading) -> str:
        """Returns the id of the batch file, the same one if the form is sent twice."""
        told = json.dumps([tenant_id, self.upload, self.idempotency_key, asdict(reading)])
        return f"file-{hashlib.sha256(told.encode('utf-8', 'replace')).hexdigest()[:24]}"

    def submission(self, file_id: str) -> bytes:
        """Returns the body of the request that submits the batch, or asks for its estimate. Raises InvalidInput."""
        body: Json = {
            "input_file_id": file_id,
            "endpoint": self._text("endpoint") or CHAT,
            "completion_window": self._text("completion_window") or "24h",
            "metadata": self._metadata(),
            "ponder": self._options(),
        }
        if days := self._text("keep_days"):
            body["output_expires_after"] = {"anchor": "created_at", "seconds": seconds_of_days(days, "keep_days")}
        return json.dumps(body).encode("utf-8", "replace")

    def _options(self) -> Json:
        options: Json = {
            "strategy": chosen(self.fields, "strategy", STRATEGY_SPECS),
            "verifier": chosen(self.fields, "verifier", VERIFIER_SPECS),
            "budget": self._numbers("budget", Budget.model_fields),
            "batch_budget": self._numbers("batch_budget", BatchBudget.model_fields),
            "model": self._text("model") or None,
            "priority": self._text("priority") or None,
            "max_rounds": number(rounds, "ponder.max_rounds") if (rounds := self._text("max_rounds")) else None,
        }
        if jobs := self._text("pilot"):
            options["pilot"] = {"jobs": number(jobs, "ponder.pilot"), "confirm": "confirm" in self.fields}
        options |= {flag: True for flag in ("strict", "oracle") if flag in self.fields}
        return {name: value for name, value in options.items() if value not in (None, {})}

    def _numbers(self, group: str, names: Mapping[str, Any]) -> Json:
        given = {name: self._text(f"{group}.{name}") for name in names}
        return {name: number(text, f"ponder.{group}.{name}") for name, text in given.items() if text}

    def _metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for place, line in enumerate(self._text("metadata").split("\n"), start=1):
            key, equals, value = line.partition("=")
            if line.strip() and (not equals or not key.strip()):
                raise InvalidInput(f"metadata, line {place}: KEY=VALUE is expected", param="metadata")
            if line.strip():
                found[key.strip()] = value.strip()
        if name := self._text("name"):
            if found.get("name", name) != name:
                raise InvalidInput("the metadata has another name: give one of the two", param="name")
            found["name"] = name
        return found

    def _text(self, name: str) -> str:
        return self.fields.get(name, "").strip()
