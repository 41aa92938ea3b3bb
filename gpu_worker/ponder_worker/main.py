"""`ponder worker`: the composition root of the parent process."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self, cast

import click
from sqlalchemy.exc import SQLAlchemyError

from ponder import log
from ponder.cli.worker_options import worker_options
from ponder.domain.model_source import model_name
from ponder.embedded.address import database_url, redis_url
from ponder.embedded.plan import MODEL_NAME, demo_weights
from ponder.embedded.worker import WorkerOptions
from ponder.errors import Unreachable
from ponder.failure import brief
from ponder.settings import Settings
from ponder.store.database import connect
from ponder.tracing import start_tracing

if TYPE_CHECKING:
    from ponder_worker.parent.notices.notice import Notice


_CLOUDS = ("aws", "gcp", "azure")
_FLUSHED_WITHIN_S = 0.5
"""How long a worker that leaves waits for the collector of its traces, in the little time that a spot machine gives."""


@dataclass(frozen=True, slots=True)
class Models:
    """Where generator and reward model come from, and the name that jobs use for the generator."""

    model: str
    reward_model: str | None
    name: str

    @classmethod
    def named(cls, model: str, reward_model: str | None, name: str | None) -> Self:
        """Resolves what the command line names. `demo` is the shipped pair, unless there is a folder of that name."""
        weights = demo_weights()
        if model == MODEL_NAME and weights is not None and not Path(model).is_dir():
            return cls(str(weights / "generator"), reward_model or str(weights / "reward"), name or MODEL_NAME)
        return cls(model, reward_model, name or model_name(model))


@click.command()
@click.option(
    "--model",
    required=True,
    help="The generator: org/name[@revision] of the Hugging Face Hub, a folder in its format, or a GGUF file; "
    "demo: the shipped models.",
)
@click.option("--reward-model", help="The reward model, as --model; strategies that need scores need it.")
@click.option("--name", help="The name of the model in jobs.  [default: the last part of --model]")
@click.option("--machine", required=True, help="What this is in the price book: cpu, h200, …")
@click.option("--market", required=True, type=click.Choice(["on_demand", "spot"]), help="How it is rented.")
@click.option(
    "--notices",
    type=click.Choice(["auto", *_CLOUDS, "none"]),
    help="The cloud whose metadata service is asked whether this machine goes; auto: find out which one it is.  "
    "[default: auto with --market spot, otherwise none]",
)
@worker_options
def worker(
    *,
    model: str,
    reward_model: str | None,
    name: str | None,
    machine: str,
    market: str,
    notices: str | None,
    options: WorkerOptions,
) -> None:
    """Run a worker: it takes jobs for one model until it is told to leave.

    On SIGTERM, Ctrl-C or its cloud's notice it hands unfinished jobs back with every token and ends within 5 seconds,
    with exit code 0.
    Another exit code means that it ended by itself, or could not reach Postgres: start it again.
    """
    from ponder_worker.engine_process.loading.engine_options import EngineName, EngineOptions
    from ponder_worker.parent.notices.notice import Notices
    from ponder_worker.parent.registration import Identity
    from ponder_worker.parent.worker import Worker, WorkerSettings
    from ponder_worker.parent.worker_metrics import serve_metrics
    from ponder_worker.verify import Judge

    settings = Settings()
    models = Models.named(model, reward_model, name)
    incarnation = f"inc_{secrets.token_hex(12)}"
    log.configure("worker", settings.log_level, incarnation=incarnation)
    tracer = start_tracing("worker", settings, instance=incarnation)
    given = Notices()
    given.watch_signals()
    identity = Identity(
        id=incarnation,
        worker=options.worker_name or socket.gethostname(),
        model=models.name,
        machine=machine,
        market=market,
    )
    running = Worker(
        identity=identity,
        settings=WorkerSettings(settings.tick_s, settings.lease_s, settings.shard_tokens, settings.alive_file),
        database=connect(database_url(settings), timeout_s=max(1.0, settings.lease_s / 3)),
        redis_url=redis_url(settings),
        engine_options=EngineOptions(
            model=models.model,
            reward_model=models.reward_model,
            device=options.device,
            dtype=options.dtype,
            kv_dtype=options.kv_dtype,
            engine=cast(EngineName, options.engine),
            reward_engine=cast("EngineName | None", options.reward_engine),
            engine_args=options.engine_arg,
            kv_split=options.memory_split,
            max_sequences=options.max_sequences,
            max_step_tokens=options.step_tokens,
            num_threads=options.threads,
            prefix_caching=not options.no_prefix_caching,
            speculation=not options.no_speculation,
            shard_tokens=settings.shard_tokens,
            log_level=settings.log_level,
            incarnation=incarnation,
        ),
        submit=Judge(allows_code=options.allow_code or settings.allow_code).submit,
        notices=given,
        tracer=tracer,
    )
    _watch(clouds_of(notices, market), settings.metadata_url, given.give)
    if options.metrics_port is not None:
        serve_metrics(options.metrics_port, lambda: running.metrics, lambda: given.given, lambda: running.job_metrics)
    try:
        code = running.serve()
    except (SQLAlchemyError, OSError) as error:
        hint = "is it running, and has `ponder migrate` made its tables?"
        raise Unreachable(f"the worker cannot use Postgres: {hint} ({brief(error)})") from error
    if tracer is not None:
        tracer.flush(_FLUSHED_WITHIN_S)
    _exit(code)


def clouds_of(notices: str | None, market: str) -> list[str]:
    """Returns the clouds that --notices means: one, all of which one may be here, or none."""
    wanted = notices or ("auto" if market == "spot" else "none")
    if wanted == "auto":
        return list(_CLOUDS)
    return [] if wanted == "none" else [wanted]


def _watch(clouds: Sequence[str], metadata_url: str, give: Callable[[Notice], None]) -> None:
    from ponder_worker.parent.notices.cloud_watch import CloudWatch
    from ponder_worker.parent.notices.clouds import CLOUDS
    from ponder_worker.parent.notices.metadata_service import MetadataService

    service = MetadataService(metadata_url)
    if clouds:
        CloudWatch([CLOUDS[name](service, partial(datetime.now, UTC)) for name in clouds], give).start()


def _exit(code: int) -> NoReturn:
    """Skips the interpreter's cleanup, which would wait for threads that wait for others."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
