from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from ponder.embedded.postgres import EmbeddedPostgres
from ponder.embedded.redis import EmbeddedRedis
from ponder.embedded.socket_folder import socket_folder
from ponder.store.database import connect


def test_a_half_made_cluster_is_made_again_and_a_whole_one_is_kept(home: Path) -> None:
    draft = home / "postgres.draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")  # what a killed initdb leaves
    with EmbeddedPostgres(home) as server:
        engine = connect(server.url)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE kept (id int)"))
        engine.dispose()
    assert not draft.exists()
    with EmbeddedPostgres(home) as server:
        engine = connect(server.url)
        with engine.begin() as connection:
            connection.execute(text("SELECT id FROM kept"))
        engine.dispose()


@pytest.fixture
def closed_home(home: Path) -> Path:
    """A home below a folder that only its owner may pass through."""
    above = home.parent / "closed"
    above.mkdir(mode=0o700)
    return above / "home"


def test_folders_above_keep_their_modes_and_what_is_made_is_for_its_owner_only(closed_home: Path) -> None:
    with EmbeddedPostgres(closed_home), EmbeddedRedis(closed_home):
        assert stat.S_IMODE(closed_home.parent.stat().st_mode) == 0o700
        made = [closed_home, *closed_home.rglob("*")]
        assert {"postgres.log", "redis.log", "pg_hba.conf", "appendonlydir"} <= {path.name for path in made}
        assert [path for path in made if stat.S_IMODE(path.lstat().st_mode) & 0o077] == []


def test_a_log_that_others_could_read_is_closed(home: Path) -> None:
    home.mkdir()
    (home / "redis.log").touch(mode=0o644)
    with EmbeddedRedis(home):
        assert stat.S_IMODE((home / "redis.log").stat().st_mode) == 0o600


def connects(socket: Path, uid: int) -> str:
    """Returns what a user is told at a socket."""
    program = (
        "import os, pg8000.native, sys\n"
        "os.setuid(int(sys.argv[2]))\n"
        "try:\n"
        "    pg8000.native.Connection('postgres', database='ponder', unix_sock=sys.argv[1])\n"
        "    print('let in')\n"
        "except Exception as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", program, socket, str(uid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_let_in_even_at_an_open_socket(home: Path) -> None:
    with EmbeddedPostgres(home):
        socket = socket_folder(home) / ".s.PGSQL.5432"
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert connects(socket, 0) == "let in\n"
        for folder in (home.parent, home, socket_folder(home), socket):
            folder.chmod(0o777)
        said = connects(socket, pwd.getpwnam("nobody").pw_uid)
    assert "let in" not in said  # the server's last words may be lost: it closes the connection behind them
    assert "Peer authentication failed" in (home / "postgres.log").read_text()


def test_a_cluster_that_admitted_everybody_no_longer_does(home: Path) -> None:
    with EmbeddedPostgres(home):
        pass
    rules = home / "postgres" / "pg_hba.conf"
    rules.write_text("local all all trust\n")
    with EmbeddedPostgres(home):
        assert "trust" not in rules.read_text()
