"""The commands `ponder up`, `down` and `status`, for everything on one machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from ponder.cli import exit_code
from ponder.cli.console import Column, err, format_option, moment, print_json, print_rows
from ponder.cli.worker_options import worker_options
from ponder.client import Client
from ponder.domain.model_source import absolute, model_name
from ponder.embedded.home import Home
from ponder.embedded.plan import LARGE_MODEL_NAME, MODEL_NAME, Autoscaling, ModelPlan, Plan, demo_weights
from ponder.embedded.worker import WorkerOptions
from ponder.errors import Conflict, NotFound, SetupError
from ponder.remedy import pip_install
from ponder.settings import Settings

_FIXED = ("workers", "worker_name", "metrics_port")
"""Options of workers that stay."""


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="The API's port.  [default: 8765, or PONDER_PORT]")
@click.option(
    "--workers", type=click.IntRange(0, 64), default=1, show_default=True, help="The number of workers, or 0 for none."
)
@click.option("--autoscale", is_flag=True, help="Start workers when there is work for them, and stop them afterwards.")
@click.option(
    "--min", "min_workers", type=click.IntRange(0, 64), help="The fewest workers of --autoscale.  [default: 0]"
)
@click.option("--max", "max_workers", type=click.IntRange(1, 64), help="The most workers of --autoscale.")
@click.option(
    "--model", help="org/name[@revision] of the Hugging Face Hub, a folder, or a GGUF file.  [default: the demo's]"
)
@click.option("--reward-model", help="A reward model: a folder, or org/name[@revision].")
@click.option("--name", help="The model's name in jobs.  [default: demo, or the last part of --model]")
@click.option("--machine", default="cpu", show_default=True, help="This machine's name in the price book.")
@click.option("--market", type=click.Choice(["on_demand", "spot"]), default="on_demand", show_default=True)
@click.option("--foreground", is_flag=True, help="Stay in the foreground, and stop everything on Ctrl-C.")
@click.option("--open", "is_opened", is_flag=True, help="Open the console in a browser.")
@worker_options
def up(
    port: int | None,
    workers: int,
    *,
    autoscale: bool,
    min_workers: int | None,
    max_workers: int | None,
    foreground: bool,
    is_opened: bool,
    **model: Any,
) -> None:
    """Start Postgres, Redis, the API, the dispatcher and a worker on this machine, in the background.

    Data, logs and your API key are kept under PONDER_HOME (~/.ponder). `ponder down` stops everything.
    """
    from ponder.embedded.launch import in_foreground, start_in_background, wait_until_ready

    home = Home(Settings().home)
    model |= {"num_workers": workers, "autoscaling": _autoscaling(autoscale, min_workers, max_workers)}
    if home.running_pid() is not None:
        wait_until_ready(home)
        _check_same(home, lambda: plan(port=port, **model))
        click.echo(f"already up: {home.recorded_url()} ({home.path})", err=True)
        _say_console(home, is_opened=is_opened)
        return
    stack = plan(port=port, **model)
    if foreground:
        with ExitStack() as running:
            with phases() as on_phase:
                process = running.enter_context(in_foreground(home, stack, on_phase))
            _say_up(stack)
            _say_console(home, is_opened=is_opened)
            try:
                process.wait()
            except KeyboardInterrupt:
                click.echo("stopping …", err=True)
        return
    with phases() as on_phase:
        start_in_background(home, stack, on_phase)
    _say_up(stack)
    _say_console(home, is_opened=is_opened)


@click.command()
def down() -> None:
    """Stop everything that `ponder up` started. Unfinished batches continue at the next `ponder up`."""
    from ponder.embedded.launch import stop_running

    home = Home(Settings().home)
    with err().status("stopping …"):
        was_up = stop_running(home)
    click.echo("stopped" if was_up else f"nothing was up in {home.path}", err=True)


@click.command()
@format_option("table", "json")
def status(form: str) -> None:
    """Show what is running here, and its state. Exit code 1 if nothing is up."""
    home = Home(Settings().home)
    record = home.record()
    if form == "json":
        print_json(record | {"is_up": True} if record else {"is_up": False})
    if record is None:
        if form != "json":
            pid = home.running_pid()
            click.echo(
                f"starting (pid {pid})" if pid else f"nothing is up in {home.path}: `ponder up` starts it", err=True
            )
        sys.exit(exit_code.FAILED)
    if form == "json":
        return
    click.echo(f"{record['url']}, up since {moment(record['started_at'])}, data and logs in {home.path}", err=True)
    print_rows(
        record["services"],
        [
            Column("service", lambda row: row["name"]),
            Column("state", lambda row: "running" if row["pid"] else "down, will be restarted"),
            Column("pid", lambda row: str(row["pid"] or "–"), is_number=True),
            Column("restarts", lambda row: str(row["restarts"]), is_number=True),
        ],
    )


def plan(
    *,
    port: int | None = None,
    num_workers: int = 1,
    model: str | None = None,
    reward_model: str | None = None,
    name: str | None = None,
    machine: str = "cpu",
    market: str = "on_demand",
    options: WorkerOptions | None = None,
    autoscaling: Autoscaling | None = None,
    with_large: bool = False,
) -> Plan:
    """Plans the stack of this PONDER_HOME, by default with the demo's generator and reward model.

    with_large: has the demo's large generator too, on a worker of its own.
    """
    settings = Settings()
    if model is not None:
        named = name or model_name(model)
        models = [ModelPlan(named, absolute(model) or "", absolute(reward_model) or "", num_workers)]
    elif num_workers:
        models = _demo_models(name, absolute(reward_model), num_workers, with_large=with_large)
    else:
        models = [ModelPlan(name or MODEL_NAME, "", num_workers=0)]
    return Plan(
        home=str(settings.home.absolute()),
        host=settings.host,
        port=port or settings.port,
        models=tuple(models),
        machine=machine,
        market=market,
        options=options or WorkerOptions(),
        autoscaling=autoscaling,
    )


def _autoscaling(is_wanted: bool, min_workers: int | None, max_workers: int | None) -> Autoscaling | None:
    """Raises UsageError for options that contradict each other."""
    given = {
        name
        for name, source in ((name, click.get_current_context().get_parameter_source(name)) for name in _FIXED)
        if source is click.core.ParameterSource.COMMANDLINE
    }
    if not is_wanted:
        if min_workers is not None or max_workers is not None:
            raise click.UsageError("--min and --max are bounds of --autoscale")
        return None
    if max_workers is None:
        raise click.UsageError("--autoscale needs --max")
    if given:
        raise click.UsageError(
            f"with --autoscale there is no --{min(given).replace('_', '-')}: its workers come and go"
        )
    if (min_workers or 0) > max_workers:
        raise click.UsageError("--min is above --max")
    return Autoscaling(min_workers or 0, max_workers)


def _demo_models(name: str | None, reward_model: str | None, num_workers: int, *, with_large: bool) -> list[ModelPlan]:
    """Raises SetupError where the demo's models are not installed."""
    weights = demo_weights()
    if weights is None or shutil.which(sys.executable) is None:
        raise SetupError(f"a worker needs the demo extra: {pip_install('ponder[demo]')} (or `ponder up --workers 0`)")
    reward = reward_model or str(weights / "reward")
    models = [ModelPlan(name or MODEL_NAME, str(weights / "generator"), reward, num_workers)]
    return [*models, ModelPlan(LARGE_MODEL_NAME, str(weights / "large"), reward)] if with_large else models


def _check_same(home: Home, asked: Callable[[], Plan]) -> None:
    """Raises Conflict if options are given and the running stack was started with other ones."""
    context = click.get_current_context()
    sources = [context.get_parameter_source(name) for name in context.params if name != "is_opened"]
    if click.core.ParameterSource.COMMANDLINE not in sources:
        return
    running = (home.record() or {}).get("plan")
    if running is not None and running != asked().document():
        (first, *_) = running.get("models") or [running]  # an older plan names its only model itself
        raise Conflict(
            f"ponder is up in {home.path} with other options and the model {first['name']!r}: "
            "`ponder down` stops it; unfinished batches continue at the next `ponder up`"
        )


@contextmanager
def phases() -> Iterator[Callable[[str], None]]:
    """Shows on stderr what is being started."""
    console = err()
    with console.status("starting …") as line:
        yield lambda phase: line.update(f"starting {phase} …") if console.is_terminal else None


@contextmanager
def client_of_stack(home: Home, stack: Callable[[], Plan]) -> Iterator[Client]:
    """Yields a client of the stack that runs in this home, or of one that runs as long as this context."""
    from ponder.embedded.launch import in_foreground, wait_until_ready

    if home.running_pid() is not None:
        wait_until_ready(home)
        with _client(home) as client:
            yield client
        return
    with ExitStack() as running:
        with phases() as on_phase:
            running.enter_context(in_foreground(home, stack(), on_phase))
        with _client(home) as client:
            yield client
        click.echo("\nstopping what was started …", err=True)


def _client(home: Home) -> Client:
    key, url = home.key(), home.recorded_url()
    assert key is not None, "a ready stack has written its key"
    assert url is not None, "a ready stack has recorded its address"
    return Client.of(url, key, patience_s=60)


def _say_up(stack: Plan) -> None:
    (first, *_) = stack.models
    click.echo(
        f"ponder is up: {stack.url}\n"
        f"  model {first.name!r}, {_workers(stack)}; data, logs and your API key in {stack.home}\n"
        f'  next: eval "$(ponder env)", ponder run FILE --model {first.name} -o results.jsonl, ponder down',
        err=True,
    )


def _say_console(home: Home, *, is_opened: bool) -> None:
    from ponder.cli.commands.show import open_in_browser

    try:
        with _client(home) as client:
            address = client.console_link()
    except NotFound:  # an earlier release is up, which has no console
        return
    click.echo(f"  in a browser: {address}\n  (signs in once, within ten minutes; later: ponder open)", err=True)
    if is_opened:
        open_in_browser(address)


def _workers(stack: Plan) -> str:
    if stack.autoscaling is None:
        return f"{stack.models[0].num_workers} worker(s)"
    return f"{stack.autoscaling.min_workers} to {stack.autoscaling.max_workers} workers as needed (`ponder fleet log`)"
