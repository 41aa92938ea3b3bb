"""The providers, one file each, and how the operator's options make one."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from ponder.embedded.address import database_url, redis_url
from ponder.embedded.home import Home
from ponder.errors import InvalidInput
from ponder.fleet.provider import Pool, Provider
from ponder.fleet.providers.kubernetes import Kubernetes, deployment_name
from ponder.fleet.providers.local import Local
from ponder.fleet.providers.scripts import Command, Scripts
from ponder.fleet.providers.skypilot import SkyPilot, start_command, stop_command
from ponder.settings import Settings

_BELONGS = {
    "start_command": ("command",),
    "stop_command": ("command",),
    "list_command": ("command",),
    "command_timeout_s": ("command", "skypilot"),
    "deployment": ("kubernetes",),
    "namespace": ("kubernetes",),
    "worker_arguments": ("local", "skypilot"),
}
"""The providers that the options are for."""
_COMMAND_TIMEOUT_S = 60.0
_DEPLOYMENT = "ponder-worker-{model}-{machine}-{market}"
"""The name that the Helm chart gives if the release is called `ponder`."""
_OWN = ("--name", "--machine", "--market", "--worker-name")
"""Options of `ponder worker` that the autoscaler gives."""


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """The options of `ponder autoscaler` about its provider.

    machines: those that may be started, with their markets; none means any that the plan wants. worker_arguments: the
    options of `ponder worker`, for providers that start it themselves. None means that an option was not given.
    """

    provider: str
    models: tuple[str, ...]
    machines: tuple[tuple[str, str], ...] = ()
    worker_arguments: tuple[str, ...] = ()
    start_command: str | None = None
    stop_command: str | None = None
    list_command: str | None = None
    command_timeout_s: float | None = None
    deployment: str | None = None
    namespace: str | None = None


def make_provider(options: ProviderOptions, settings: Settings) -> Provider:
    """Makes the provider. Raises InvalidInput for an option that is missing, wrong, or for another provider."""
    for name, providers in _BELONGS.items():
        if getattr(options, name) not in (None, ()) and options.provider not in providers:
            option = "--" if name == "worker_arguments" else f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{option} is for {' and '.join(providers)}, not for --provider {options.provider}")
    timeout_s = options.command_timeout_s or _COMMAND_TIMEOUT_S
    if options.provider == "local":
        return _local(options, settings)
    if options.provider == "command":
        if options.start_command is None or options.stop_command is None:
            raise InvalidInput("the provider `command` needs --start-command and --stop-command", param="--provider")
        scripts = Scripts.parse(options.start_command, options.stop_command, options.list_command)
        return Command(scripts, offers=options.machines, timeout_s=timeout_s)
    if options.provider == "kubernetes":
        return _kubernetes(options)
    folder = settings.home / "skypilot"
    scripts = Scripts(start_command(folder, has_token=bool(os.environ.get("HF_TOKEN"))), stop_command())
    commands = Command(scripts, offers=options.machines, timeout_s=timeout_s)
    return SkyPilot(_worker_arguments(options), commands, folder, Path.cwd())


def _kubernetes(options: ProviderOptions) -> Kubernetes:
    pattern = options.deployment or _DEPLOYMENT
    # Names that may come are not known yet: any two stand for them.
    places = options.machines or tuple(itertools.product(("h100", "h200"), ("on_demand", "spot")))
    pools: dict[str, Pool] = {}
    for model, (machine, market) in itertools.product(dict.fromkeys(options.models) or ("one", "two"), places):
        pool = Pool(model, machine, market)
        try:
            name = deployment_name(pattern, pool)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            known = "its placeholders are {model}, {machine} and {market}"
            raise InvalidInput(f"--deployment {pattern}: {known}") from error
        if pools.setdefault(name, pool) != pool:
            raise InvalidInput(
                f"--deployment {pattern}: {pools[name]} and {pool} would share {name}; "
                "put {model}, {machine} and {market} in it, or name fewer pools with --model and --machine"
            )
    return Kubernetes(deployment=pattern, namespace=options.namespace, offers=options.machines)


def _local(options: ProviderOptions, settings: Settings) -> Local:
    if len(options.machines) != 1:
        raise InvalidInput("the provider `local` needs exactly one --machine: the machine it runs on")
    (machine, market) = options.machines[0]
    # Workers that touched the autoscaler's file would keep a health check from noticing that it hangs.
    inherited = {name: value for name, value in os.environ.items() if name != "PONDER_ALIVE_FILE"}
    environment = inherited | {
        "PONDER_HOME": str(settings.home.absolute()),
        "PONDER_DATABASE_URL": database_url(settings),
        "PONDER_REDIS_URL": redis_url(settings),
    }
    home = Home(settings.home)
    home.prepare()
    arguments = _worker_arguments(options)
    return Local(arguments, machine=machine, market=market, log=home.log("worker"), environment=environment)


def _worker_arguments(options: ProviderOptions) -> list[str]:
    if len(options.models) != 1:
        raise InvalidInput(f"the provider `{options.provider}` needs exactly one --model: what its workers serve")
    if not options.worker_arguments:
        raise InvalidInput(
            f"the provider `{options.provider}` needs the options of `ponder worker` after --: -- --model FOLDER …",
            param="--",
        )
    for word in options.worker_arguments:
        if (name := word.partition("=")[0]) in _OWN:
            raise InvalidInput(f"the autoscaler itself gives {name} to its workers", param=f"-- {name}")
    return [*options.worker_arguments, "--name", options.models[0]]
