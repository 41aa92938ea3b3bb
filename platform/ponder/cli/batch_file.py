"""A checked file and the settings of its batch, as `run` and `submit` upload and submit it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ponder.cli import sampling_options
from ponder.cli.console import err
from ponder.cli.submission_options import metadata_of, ponder_object, present
from ponder.client import Client
from ponder.datasets.dataset import Dataset, Fields
from ponder.datasets.source import Source
from ponder.domain.batch.endpoint import CHAT
from ponder.errors import UnknownModel
from ponder.wire import Json


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A checked file and the settings of its batch."""

    dataset: Dataset
    model: str | None
    options: Mapping[str, Any]
    metadata: Mapping[str, str]
    window: str
    expires_after_s: int | None
    idempotency_key: str | None

    @classmethod
    def of(cls, file: Path, **given: Any) -> BatchFile:
        """Reads and checks FILE as the options say. Raises InvalidInput or click's UsageError for contradictions."""
        source = Source.of(file, given["encoding"])
        fields = Fields(given["prompt"], given["answer"], given["id_field"], given["level"])
        endpoint = source.endpoint() or given["endpoint"] or CHAT
        body = sampling_options.body_of(given, endpoint)
        options = ponder_object(given)
        if given["n"] and "n" not in options.get("strategy", {}):
            body["n"] = given["n"]
        if source.is_batch():
            options |= present(given, "model")
        else:
            body |= present(given, "model")
        dataset = Dataset(source, fields, body, given["system"], endpoint)
        dataset.check()
        metadata = metadata_of(given, file)
        return cls(
            dataset,
            given["model"],
            options,
            metadata,
            given["window"],
            given["output_expires_after"],
            given["idempotency_key"],
        )

    def send(self, client: Client) -> Json:
        """Uploads and submits, and reports the rows on stderr. Returns the batch.

        Raises UnknownModel, before uploading anything, for a --model that would be refused in every line.
        """
        self._check_model(client)
        with err().status(f"uploading {self.dataset.source.file.name} …"):
            batch = client.submit(
                self._upload(client),
                endpoint=self.dataset.endpoint,
                completion_window=self.window,
                metadata=self.metadata,
                options=self.options,
                expires_after_s=self.expires_after_s,
                idempotency_key=self.idempotency_key,
            )
        _tell(self.dataset, "submitted")
        return batch

    def estimate(self, client: Client, num_workers: int | None) -> Json:
        """Uploads for an estimate, reports the rows on stderr, and deletes the upload. Submits nothing.

        Raises UnknownModel as `send` does.
        """
        self._check_model(client)
        with err().status(f"uploading {self.dataset.source.file.name} …"):
            file_id = str(client.upload(self.dataset.lines, "estimate.jsonl")["id"])
        try:
            with err().status("reading its lines …"):
                estimate = client.estimate(
                    file_id, endpoint=self.dataset.endpoint, options=self.options, workers=num_workers
                )
        finally:
            client.delete_file(file_id)
        _tell(self.dataset, "estimated")
        return estimate

    def _check_model(self, client: Client) -> None:
        known = [str(model["id"]) for model in client.models()]
        # If no model is known, the first worker may be on its way, and the server decides.
        if known and self.model is not None and self.model not in known:
            raise UnknownModel(
                f"no worker has served the model {self.model} yet (known: {', '.join(known)})", param="--model"
            )

    def _upload(self, client: Client) -> str:
        """Returns the id of the uploaded file. With an idempotency key it may be that of an earlier try."""
        stem = Path(self.dataset.source.file.name.removesuffix(".gz")).stem
        if self.idempotency_key is None:
            return str(client.upload(self.dataset.lines, f"{stem}.jsonl")["id"])
        digest = hashlib.sha256(self.idempotency_key.encode())
        for line in self.dataset.lines():
            digest.update(line)
        name = f"{stem}-{digest.hexdigest()[:24]}.jsonl"
        earlier = next((file["id"] for file in client.uploads() if file["filename"] == name), None)
        return str(earlier or client.upload(self.dataset.lines, name)["id"])


def _tell(dataset: Dataset, verb: str) -> None:
    """Reports how many rows were read, submitted or estimated, and refused, and why the first few were refused."""
    count = dataset.count
    reasons = [f"{refusal.place}: {refusal.reason}" for refusal in count.refusals]
    first = f" ({reasons[0]})" if reasons else ""
    click.echo(
        f"{dataset.source.file}: {count.num_rows:,} row{'s' * (count.num_rows != 1)} read, "
        f"{count.num_rows - count.num_refused:,} {verb}, {count.num_refused:,} refused{first}",
        err=True,
    )
    for reason in reasons[1:]:
        click.echo(f"  {reason}", err=True)
    if count.num_refused > len(reasons):
        num_untold = count.num_refused - len(reasons)
        click.echo(f"  … and {num_untold:,} more, each with its reason in the batch's error file", err=True)
