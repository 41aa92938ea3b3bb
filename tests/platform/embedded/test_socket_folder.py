from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.embedded.socket_folder import make_socket_folder, socket_folder
from ponder.errors import SetupError


@pytest.fixture
def deep_home(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home so deep that its sockets are under the temporary folder, which is one of the test's own."""
    temporary = home.parent / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    return deep


def test_sockets_of_a_deep_home_are_in_a_folder_for_its_owner_only(deep_home: Path) -> None:
    folder = make_socket_folder(deep_home)
    assert folder.parent == Path(tempfile.gettempdir())
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
    assert socket_folder(deep_home) == make_socket_folder(deep_home) == folder


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def open_to_a_group(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o750)


def a_link(folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def a_file(folder: Path) -> None:
    folder.touch(mode=0o600)


def of_another_user(folder: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o700)
    os.chown(folder, 61_183, 61_183)


@pytest.mark.parametrize("make", [open_to_all, open_to_a_group, a_link, a_file, of_another_user])
def test_a_folder_made_by_somebody_else_is_refused_by_servers_and_clients(
    deep_home: Path, make: Callable[[Path], None]
) -> None:
    for server in (EmbeddedPostgres(deep_home), EmbeddedRedis(deep_home)):
        make(socket_folder(deep_home / "redis" if isinstance(server, EmbeddedRedis) else deep_home))
        with pytest.raises(SetupError, match="set PONDER_HOME"):
            server.url  # noqa: B018
        with pytest.raises(SetupError, match="set PONDER_HOME"):
            server.start()
        if make is a_link:
            Path(tempfile.gettempdir(), "elsewhere").rmdir()


def test_a_deep_home_serves(deep_home: Path) -> None:
    with EmbeddedRedis(deep_home) as server:
        assert server.url.startswith(f"unix://{tempfile.gettempdir()}/ponder-")
