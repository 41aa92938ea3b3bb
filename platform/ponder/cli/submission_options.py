"""The options that `run` and `submit` share, and the submission they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ponder.cli.console import err
from ponder.cli.dataset import Dataset, Fields
from ponder.cli.source import Source
from ponder.cli.strategy_options import strategy_of
from ponder.client import Client
from ponder.domain.strategy import STRATEGY_NAMES
from ponder.errors import UnknownModel
from ponder.wire import Json

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = [
    click.argument("file", type=click.Path(path_type=Path)),
    click.option("--model", help="The model that answers. Overrides the model in OpenAI lines."),
    click.option("--prompt", metavar="FIELD", help="Plain data sets: the field with the problem."),
    click.option("--answer", metavar="FIELD", help="... with the expected answer, for reports; never shown to models."),
    click.option("--id", "id_field", metavar="FIELD", help="... with a unique id.  [default: row-1, row-2, …]"),
    click.option("--level", metavar="FIELD", help="... with the difficulty, for `ponder report cost --by level`."),
    click.option("--encoding", metavar="NAME", callback=lambda context, option, given: _encoding(given),
                 help="The encoding of FILE: utf-16, latin-1, cp1252 …  [default: utf-8]"),
    click.option("--system", metavar="TEXT", help="... a system message before every problem."),
    click.option("--strategy", type=click.Choice(STRATEGY_NAMES), help="The search strategy.  [default: direct]"),
    click.option("--n", type=click.IntRange(1), help="The number of samples, paths or tries per problem."),
    click.option("--width", type=click.IntRange(1), help="Searches over steps: the number of steps tried per path."),
    click.option("--select", type=click.Choice(["best", "weighted", "majority"]), help="best_of_n: the choice rule."),
    click.option("--param", multiple=True, metavar="NAME=VALUE",
                 help="Another parameter of the strategy, JSON or text: exploration=0.5; repeatable."),
    click.option("--budget-tokens", type=click.IntRange(1), help="The most tokens a problem may generate in total."),
    click.option("--budget-thinking", type=click.IntRange(1), help="The most thinking tokens per sample."),
    click.option("--budget-dollars", type=click.FloatRange(0, min_open=True), help="The most a problem may cost."),
    click.option("--deadline", "deadline_s", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
                 help="Settle a problem with what it has by then, counted from submission."),
    click.option("--max-tokens", type=click.IntRange(1), help="The most tokens per sample."),
    click.option("--temperature", type=click.FloatRange(0, 2), help="[default: the model's own]"),
    click.option("--top-p", type=click.FloatRange(0, 1, min_open=True)),
    click.option("--seed", type=int, help="The same seed gives the same search."),
    click.option("--verifier", metavar="NAME|JSON", callback=lambda context, option, given: _verifier(given),
                 help="The judge of answers: exact, number, math, choice, python_tests, or the JSON of a verifier.  "
                 "[default: math, if there is an expected answer]"),
    click.option("--max-rounds", type=click.IntRange(1, 100),
                 help="The most tries while the verifier says no, for a verifier that needs no --answer."),
    click.option("--oracle", is_flag=True,
                 help="Let the search use --answer: accuracy is then pass@k, and reports say so."),
    click.option("--priority", type=click.Choice(["interactive", "batch"]), help="[default: batch]"),
    click.option("--window", default="24h", show_default=True, help="The time until it expires: 1h … 14d."),
    click.option("--strict", is_flag=True, help="Fail the whole batch if a line is bad."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Kept with the batch; repeatable."),
    click.option("--idempotency-key", metavar="KEY", help="A repeated key and file return the same batch."),
]  # fmt: skip


def submission_options(command: _Command) -> _Command:
    """Adds FILE and the options about it to a command, which gets them as keyword arguments."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked file and the settings of its batch."""

    dataset: Dataset
    model: str | None
    options: Mapping[str, Any]
    metadata: Mapping[str, str]
    window: str
    idempotency_key: str | None

    @classmethod
    def of(cls, file: Path, **given: Any) -> Submission:
        """Makes a submission from options. Raises InvalidInput or click's UsageError for contradictions."""
        source = Source.of(file, given["encoding"])
        fields = Fields(given["prompt"], given["answer"], given["id_field"], given["level"])
        body = _present(given, "max_tokens", "temperature", "top_p", "seed")
        options = _options(given)
        if given["n"] and "n" not in options.get("strategy", {}):
            body["n"] = given["n"]
        if source.is_batch():
            options |= _present(given, "model")
        else:
            body |= _present(given, "model")
        dataset = Dataset(source, fields, body, given["system"])
        dataset.check()
        metadata = _metadata(given, file)
        return cls(dataset, given["model"], options, metadata, given["window"], given["idempotency_key"])

    def send(self, client: Client) -> Json:
        """Uploads and submits, and reports the rows on stderr. Returns the batch.

        Raises UnknownModel, before uploading anything, for a --model that would be refused in every line.
        """
        self._check_model(client)
        with err().status(f"uploading {self.dataset.source.path.name} …"):
            batch = client.submit(
                self._upload(client),
                completion_window=self.window,
                metadata=self.metadata,
                options=self.options,
                idempotency_key=self.idempotency_key,
            )
        _tell(self.dataset)
        return batch

    def _check_model(self, client: Client) -> None:
        known = [str(model["id"]) for model in client.models()]
        # If no model is known, the first worker may be on its way, and the server decides.
        if known and self.model is not None and self.model not in known:
            raise UnknownModel(
                f"no worker has served the model {self.model} yet (known: {', '.join(known)})", param="--model"
            )

    def _upload(self, client: Client) -> str:
        """Returns the id of the uploaded file. With an idempotency key it may be that of an earlier try."""
        stem = Path(self.dataset.source.path.name.removesuffix(".gz")).stem
        if self.idempotency_key is None:
            return str(client.upload(self.dataset.lines, f"{stem}.jsonl")["id"])
        digest = hashlib.sha256(self.idempotency_key.encode())
        for line in self.dataset.lines():
            digest.update(line)
        name = f"{stem}-{digest.hexdigest()[:24]}.jsonl"
        earlier = next((file["id"] for file in client.uploads() if file["filename"] == name), None)
        return str(earlier or client.upload(self.dataset.lines, name)["id"])


def _tell(dataset: Dataset) -> None:
    """Reports how many rows were read, submitted and refused, and why the first few were refused."""
    count = dataset.count
    reasons = [f"{refusal.place}: {refusal.reason}" for refusal in count.refusals]
    first = f" ({reasons[0]})" if reasons else ""
    click.echo(
        f"{dataset.source.path}: {count.num_rows:,} row{'s' * (count.num_rows != 1)} read, "
        f"{count.num_rows - count.num_refused:,} submitted, {count.num_refused:,} refused{first}",
        err=True,
    )
    for reason in reasons[1:]:
        click.echo(f"  {reason}", err=True)
    if count.num_refused > len(reasons):
        num_untold = count.num_refused - len(reasons)
        click.echo(f"  … and {num_untold:,} more, each with its reason in the batch's error file", err=True)


def _options(given: Mapping[str, Any]) -> Json:
    """Returns the batch's `ponder` object."""
    options: Json = {}
    strategy = strategy_of(given)
    if strategy is not None:
        options["strategy"] = strategy
    limits = {"tokens": "budget_tokens", "thinking_tokens": "budget_thinking", "dollars": "budget_dollars"}
    budget = {name: given[option] for name, option in limits.items() if given[option]}
    budget |= _present(given, "deadline_s")
    if budget:
        options["budget"] = budget
    options |= {flag: True for flag in ("oracle", "strict") if given[flag]}
    return options | _present(given, "verifier", "max_rounds", "priority")


def _verifier(given: str | None) -> Any:
    """Reads a name, or an object such as {"name": "regex", "pattern": "…"}. The server reports what is wrong in it."""
    if given is None or not given.lstrip().startswith("{"):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise click.BadParameter(f"neither a verifier's name nor JSON: {error}") from None


def _encoding(given: str | None) -> str | None:
    try:
        b"".decode(given or "utf-8")
    except LookupError as error:
        raise click.BadParameter(str(error)) from None
    return given


def _present(given: Mapping[str, Any], *names: str) -> Json:
    return {name: given[name] for name in names if given[name] is not None}


def _metadata(given: Mapping[str, Any], file: Path) -> dict[str, str]:
    metadata = {"file": file.name}
    for pair in given["metadata"]:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--metadata {pair}: KEY=VALUE is expected")
        metadata[key] = value
    return metadata
