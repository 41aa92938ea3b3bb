"""The contract that every provider keeps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes_api import Cluster, service_account, serving
from waiting import until

from ponder.fleet.provider import Order, Pool, Provider, ProviderFailed
from ponder.fleet.providers.kubernetes import Kubernetes
from ponder.fleet.providers.local import Local
from ponder.fleet.providers.scripts import Command, Scripts
from ponder.fleet.providers.skypilot import SkyPilot, start_command, stop_command

POOL = Pool("demo/large", "h200", "spot")

_SLEEPER = "import sys, time; time.sleep(600)"
_FOLDER_SCRIPT = """#!/bin/sh
# A cloud whose machines are files.
machines="$(dirname "$0")/machines"
mkdir -p "$machines"
test -e "$(dirname "$0")/broken" && { echo "no quota" >&2; exit 3; }
case "$1" in
  start) echo "$@" >"$machines/$2"; echo "{\\"handle\\": \\"i-$2\\"}" ;;
  stop) rm -f "$machines/$2" ;;
  list) (cd "$machines" && printf '['; separator=; for f in *; do test -e "$f" && printf '%s"%s"' "$separator" "$f" \
    && separator=,; done; printf ']') ;;
esac
"""


@dataclass(frozen=True)
class Site:
    """A provider, and the place where its workers can be counted and broken."""

    provider: Provider
    num_running: Callable[[], int]
    break_it: Callable[[], None]


def _script(folder: Path, name: str = "cloud") -> Path:
    path = folder / name
    path.write_text(_FOLDER_SCRIPT)
    path.chmod(0o755)
    return path


def _num_machines(folder: Path) -> int:
    return len(list((folder / "machines").glob("*")))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Site]:
    environment = os.environ | {"PONDER_HOME": str(tmp_path)}
    provider = Local(
        [], machine="h200", market="spot", log=tmp_path / "worker.log", environment=environment,
        program=[sys.executable, "-c", _SLEEPER],
    )  # fmt: skip

    def break_it() -> None:
        provider._log.unlink(missing_ok=True)
        provider._log.mkdir()

    yield Site(provider, lambda: len(provider.workers(POOL)), break_it)
    provider.close()
    assert not provider.workers(POOL), "no process outlives the autoscaler"


def _command(folder: Path, *, has_list: bool) -> Site:
    script = _script(folder)
    listing = f"{script} list" if has_list else None
    scripts = Scripts.parse(f"{script} start {{id}} {{model}}", f"{script} stop {{id}}", listing)
    provider = Command(scripts, offers=[("h200", "spot")])
    return Site(provider, lambda: _num_machines(folder), (folder / "broken").touch)


@pytest.fixture
def command(tmp_path: Path) -> Site:
    return _command(tmp_path, has_list=True)


@pytest.fixture
def command_without_list(tmp_path: Path) -> Site:
    return _command(tmp_path, has_list=False)


@pytest.fixture
def skypilot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The command `sky` is a stranger's: a script that takes the same arguments stands in for it."""
    sky = tmp_path / "sky"
    sky.write_text(
        f'#!/bin/sh\nverb=$1\nwhile test $# -gt 1; do test "$1" = --cluster && id=$2; shift; done\n'
        f'case "$verb" in\n launch) test -s "$1" && exec {_script(tmp_path)} start "$id" ;;\n'
        f' down) exec {_script(tmp_path)} stop "$1" ;;\nesac\nexit 2\n'
    )
    sky.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    folder = tmp_path / "tasks"
    commands = Command(Scripts(start_command(folder), stop_command()), offers=[("h200", "spot")])
    provider = SkyPilot(["--model", "/models/large"], commands, folder, Path(__file__).parents[4])
    return Site(provider, lambda: _num_machines(tmp_path), (tmp_path / "broken").touch)


@pytest.fixture
def kubernetes(tmp_path: Path) -> Iterator[Site]:
    cluster = Cluster(replicas={"ponder-worker-demo-large-spot": 0})
    with serving(cluster) as address:
        provider = Kubernetes(
            deployment="ponder-worker-{model}-{market}", offers=[("h200", "spot")], api_server=address,
            service_account=service_account(tmp_path / "account"),
        )  # fmt: skip
        yield Site(provider, lambda: len(cluster.pods), lambda: setattr(cluster, "failure", 503))
        provider.close()


@pytest.fixture(params=["local", "command", "command_without_list", "skypilot", "kubernetes"])
def site(request: pytest.FixtureRequest) -> Site:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Site)
    return made


def order(site: Site, number: int, num_workers: int) -> Order:
    """The order that the autoscaler would send, with the name of the worker as far as it is known."""
    names = sorted(site.provider.workers(POOL) or ())
    chosen = names[number - 1] if number <= len(names) else None
    id = f"fleet-{number:012x}"
    return Order(id, POOL, num_workers, chosen if site.provider.names_workers else id)


def test_a_worker_comes_once_however_often_it_is_ordered_and_goes_once_it_is_stopped(site: Site) -> None:
    first = order(site, 1, 1)
    site.provider.start(first)
    until(lambda: site.num_running() == 1, 30)
    site.provider.start(first)
    assert site.num_running() == 1
    site.provider.start(order(site, 2, 2))
    until(lambda: site.num_running() == 2, 30)

    names = site.provider.workers(POOL)
    if names is not None and not site.provider.names_workers:
        assert names == {"fleet-000000000001", "fleet-000000000002"}
    leaving = order(site, 1, 1)
    site.provider.stop(leaving)
    until(lambda: site.num_running() == 1, 30)
    if names is not None:
        assert site.provider.workers(POOL) == names - {leaving.worker}, "this one, and no other"
    site.provider.stop(leaving)
    assert site.num_running() == 1, "a second time stops nobody else"


def test_an_autoscaler_that_becomes_active_again_can_go_on_with_it(site: Site) -> None:
    site.provider.start(order(site, 1, 1))
    until(lambda: site.num_running() == 1, 30)
    site.provider.close()
    num_left = site.num_running()
    site.provider.start(order(site, 2, 2))
    until(lambda: site.num_running() == num_left + 1, 30)


def test_it_offers_only_what_the_operator_allows(site: Site) -> None:
    assert site.provider.offers("h200", "spot")
    assert not site.provider.offers("h200", "on_demand")
    assert not site.provider.offers("b200", "spot")


def test_what_goes_wrong_is_one_sentence_and_stopping_what_is_gone_is_nothing(site: Site) -> None:
    site.provider.stop(order(site, 9, 0))
    site.break_it()
    with pytest.raises(ProviderFailed) as failure:
        site.provider.start(order(site, 1, 1))
    assert "\n" not in str(failure.value)
    assert any(said in str(failure.value) for said in ("no quota", "503", "Is a directory"))
    assert site.num_running() == 0 or site.provider.names_workers
