"""The plan of a stack on one machine."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from ponder.domain.model_source import HubModel
from ponder.embedded.home import Home
from ponder.embedded.service import Service
from ponder.embedded.worker import WorkerOptions
from ponder.errors import SetupError

MODEL_NAME, LARGE_MODEL_NAME = "demo", "demo-large"
_ROOM_BYTES = 300 * 1024 * 1024
_OURS = [sys.executable, "-m", "ponder.cli"]
_FLEET_GRACE_S = 25.0
"""The time that an autoscaler has to stop its workers, after whatever it is doing."""


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model and the name by which jobs ask for it. Each of `num_workers` workers holds it and its reward model."""

    name: str
    model: str
    reward_model: str = ""
    num_workers: int = 1

    def worker_arguments(self) -> list[str]:
        return ["--model", self.model, *(["--reward-model", self.reward_model] if self.reward_model else [])]


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """The bounds of an autoscaler, which starts the workers of the first model instead of the supervisor."""

    min_workers: int
    max_workers: int

    def arguments(self, plan: Plan) -> list[str]:
        """Returns the command line of `ponder autoscaler`."""
        (model, *_) = plan.models
        bounds = ["--min", str(self.min_workers), "--max", str(self.max_workers)]
        machine = ["--machine", f"{plan.machine}:{plan.market}"]
        # Each worker gets its share of the cores, as if all of them ran.
        (options, *_) = plan.options.shared(self.max_workers)
        worker = [*model.worker_arguments(), *options.arguments()]
        return ["autoscaler", "--provider", "local", *bounds, "--model", model.name, *machine, "--", *worker]


@dataclass(frozen=True, slots=True)
class Plan:
    """The stack that the supervisor starts. It is passed to it as JSON."""

    home: str
    host: str
    port: int
    models: tuple[ModelPlan, ...]
    machine: str
    market: str
    options: WorkerOptions
    autoscaling: Autoscaling | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the JSON of a plan's `document`."""
        fields = json.loads(text)
        options, autoscaling = fields["options"], fields["autoscaling"]
        return cls(
            **fields
            | {
                "models": tuple(ModelPlan(**model) for model in fields["models"]),
                "options": WorkerOptions(**options | {"engine_arg": tuple(options["engine_arg"])}),
                "autoscaling": Autoscaling(**autoscaling) if autoscaling is not None else None,
            }
        )

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def document(self) -> dict[str, object]:
        """Returns the plan as it comes back from JSON, in which a tuple is a list."""
        fields: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return fields

    def check(self) -> None:
        """Raises SetupError, with the remedy, for anything that would stop the stack halfway."""
        home = Home(Path(self.home))
        home.prepare()
        _check_room(home.path)
        _check_port(self.host, self.port)
        _check_models(self)

    def services(self, database_url: str, redis_url: str) -> list[Service]:
        """Returns our own processes in the order in which they start."""
        home = Home(Path(self.home))
        environment = os.environ | {
            "PONDER_HOME": self.home,
            "PONDER_HOST": self.host,
            "PONDER_PORT": str(self.port),
            "PONDER_DATABASE_URL": database_url,
            "PONDER_REDIS_URL": redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        signing = {"PONDER_WEBHOOK_KEY": os.environ.get("PONDER_WEBHOOK_KEY") or home.webhook_key()}
        return [
            Service("serve", [*_OURS, "serve"], environment | signing, home.log("serve")),
            Service("dispatcher", [*_OURS, "dispatcher"], environment | signing, home.log("dispatcher")),
            *self._workers(environment),
        ]

    def _workers(self, environment: dict[str, str]) -> list[Service]:
        """Returns the workers, or the autoscaler that starts them."""
        if self.autoscaling is not None:
            arguments = [*_OURS, *self.autoscaling.arguments(self)]
            log = Home(Path(self.home)).log("autoscaler")
            return [Service("autoscaler", arguments, environment, log, grace_s=_FLEET_GRACE_S)]
        workers = [model for model in self.models for _ in range(model.num_workers)]
        return [
            self._worker(model, "worker" if len(workers) == 1 else f"worker-{number}", options, environment)
            for number, (model, options) in enumerate(zip(workers, self.options.shared(len(workers)), strict=True), 1)
        ]

    def _worker(self, model: ModelPlan, name: str, options: WorkerOptions, environment: dict[str, str]) -> Service:
        arguments = [*_OURS, "worker", *model.worker_arguments(), "--name", model.name]
        arguments += ["--machine", self.machine, "--market", self.market, *options.arguments()]
        return Service(name, arguments, environment, Home(Path(self.home)).log(name))


def demo_weights() -> Path | None:
    """Returns the folder of the shipped models, or None if the worker's package is not installed."""
    spec = find_spec("ponder_worker")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) / "demo" / "weights" if places else None


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _ROOM_BYTES:
        raise SetupError(
            f"the disk of {folder} is nearly full ({free // 2**20} MB free, {_ROOM_BYTES // 2**20} MB needed): "
            "make room, or set PONDER_HOME to a folder on another disk"
        )


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SetupError(
                    f"port {port} is in use by another program: choose another one, "
                    f"for example PONDER_PORT={port + 1}, or stop that program"
                ) from error
            raise SetupError(f"cannot listen on {host}:{port} ({error.strerror}): set PONDER_HOST") from error


def _check_models(plan: Plan) -> None:
    places = [place for model in plan.models if model.num_workers for place in (model.model, model.reward_model)]
    for model in filter(None, places):
        if HubModel.parse(model) is None:
            _check_model(Path(model))


def _check_model(folder: Path) -> None:
    form = (
        "a model is org/name[@revision] of the Hugging Face Hub, a GGUF file, or a folder in Hugging Face's format: "
        "config.json, tokenizer.json, *.safetensors"
    )
    if folder.is_file():
        with folder.open("rb") as file:
            if file.read(4) == b"GGUF":
                return
        raise SetupError(f"{folder} is a file, and not a GGUF file: {form}")
    if not folder.is_dir():
        raise SetupError(f"there is no file or folder {folder}: {form}")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            inside = next((config.parent for config in sorted(folder.glob("*/config.json"))), None)
            hint = f"; perhaps you mean {inside}" if inside is not None else ""
            raise SetupError(f"there is no {name} in {folder}: {form}{hint}")
