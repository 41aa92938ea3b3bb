"""A run of the demo. It is kept under PONDER_HOME, so that a second start goes on where the first one stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ponder.client import Client
from ponder.embedded.plan import LARGE_MODEL_NAME, MODEL_NAME
from ponder.errors import Conflict, NotFound
from ponder.wire import Json
from ponder_worker.demo.problems import held_out_problems

STRATEGIES: dict[str, dict[str, Any]] = {
    "direct": {"name": "direct"},
    "self_consistency": {"name": "self_consistency", "n": 8},
    "best_of_n": {"name": "best_of_n", "n": 8},
    "beam_search": {"name": "beam_search", "n": 4, "width": 4},
    "cascade": {
        "name": "cascade",
        "stages": [
            {"strategy": "direct", "accept": {"by": "reward", "threshold": 0.8}},
            {"model": LARGE_MODEL_NAME, "strategy": {"name": "best_of_n", "n": 4}},
        ],
    },
}
"""Each runs on the small model; a cascade falls back on the large one, and is left out where nobody serves that."""
RELATIVE_WORK = {"direct": 1.0, "self_consistency": 7.0, "best_of_n": 9.0, "beam_search": 9.0, "cascade": 6.0}
"""The approximate work of one job, relative to one sample. It is only used to estimate the remaining time."""

_WINDOW = "14d"
_MAX_TOKENS = 320


@dataclass(slots=True)
class DemoRun:
    """One run: its problems, and the file and the batch of each strategy once they exist."""

    file: Path
    run_id: str
    problems_per_level: int
    fingerprints: dict[str, str] = field(default_factory=dict)
    """The fingerprints of the weights that the batches are pinned to, by the model's name."""
    uploads: dict[str, str] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: Path, *, run_id: str, problems_per_level: int) -> DemoRun:
        """The unfinished run of this folder, or a new one with this id."""
        file = folder / "unfinished.json"
        try:
            return cls(file=file, **json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return cls(file, run_id, problems_per_level)

    @property
    def is_begun(self) -> bool:
        """Whether a batch was submitted."""
        return bool(self.batches)

    @property
    def results_file(self) -> Path:
        """The file for the output lines of all strategies."""
        return self.file.with_name(f"{self.run_id}.results.jsonl")

    def submit(self, client: Client, fingerprints: Mapping[str, str]) -> None:
        """Submits the strategies that are not submitted yet, as far as a model is served for them.

        A crash can repeat one upload at most, and no batch.
        """
        self.fingerprints = dict(fingerprints)
        for name, strategy in STRATEGIES.items():
            if name in self.batches or not all(model in fingerprints for model in _models(strategy)):
                continue
            if name not in self.uploads:
                self.uploads[name] = client.upload(partial(self._lines, name), f"demo-{name}.jsonl")["id"]
                self._save()
            batch = client.submit(
                self.uploads[name],
                completion_window=_WINDOW,
                metadata={"file": f"demo, {name}", "demo": self.run_id},
                options={"strategy": strategy, "verifier": {"name": "exact"}},
                idempotency_key=f"demo-{self.run_id}-{name}",
            )
            self.batches[name] = batch["id"]
            self._save()

    def can_go_on(self, client: Client, fingerprints: Mapping[str, str]) -> bool:
        """Whether the batches still exist and the weights are still the same."""
        try:
            return self.fingerprints == fingerprints and all(map(client.batch, self.batches.values()))
        except NotFound:
            return False

    def abandon(self, client: Client) -> None:
        """Cancel the batches and forget the run."""
        for batch_id in self.batches.values():
            with suppress(NotFound, Conflict):
                client.cancel(batch_id)
        self.finish()

    def write_results(self, client: Client, batches: dict[str, Json]) -> Path:
        """Writes the output lines of all strategies to one file. A custom_id names strategy, level and number."""
        draft = self.results_file.with_suffix(".draft")
        with draft.open("wb") as target:
            for batch in batches.values():
                for file_id in filter(None, (batch["output_file_id"], batch["error_file_id"])):
                    with client.download(file_id) as pieces:
                        target.writelines(pieces)
        return draft.replace(self.results_file)

    def finish(self) -> None:
        """Forgets the run, so that the next start begins a new one."""
        self.file.unlink(missing_ok=True)

    def _save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        document = asdict(self)
        del document["file"]
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps(document, indent=2))
        draft.replace(self.file)

    def _lines(self, strategy: str) -> Iterator[bytes]:
        for number, problem in enumerate(held_out_problems(self.problems_per_level)):
            body = {
                "model": MODEL_NAME,
                "messages": [{"role": "user", "content": problem.prompt}],
                "max_tokens": _MAX_TOKENS,
                "metadata": {"level": str(problem.level), "kind": problem.kind},
                "ponder": {"reference": str(problem.answer)},
            }
            custom_id = f"{strategy}/level-{problem.level}/{number % self.problems_per_level}"
            line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
            yield json.dumps(line).encode() + b"\n"


def _models(strategy: dict[str, Any]) -> set[str]:
    """Returns the models that a strategy needs."""
    return {MODEL_NAME} | {stage["model"] for stage in strategy.get("stages", ()) if "model" in stage}
