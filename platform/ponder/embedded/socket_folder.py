"""Finds the folder of the embedded services' sockets."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from ponder.embedded.cluster import owners
from ponder.errors import SetupError

_LONGEST = 80  # a socket's whole path may have 107 bytes


def socket_folder(home: Path) -> Path:
    """Returns `home/sockets`, or if that path is too long a folder under the temporary folder named after it.

    Raises SetupError for a folder that is not ours alone: anybody may have made it under the temporary folder, and
    would then answer in our place.
    """
    folder = home.resolve() / "sockets"
    if len(os.fsencode(folder)) > _LONGEST:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"ponder-{os.getuid()}-{name}"
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return folder
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners() or found.st_mode & 0o077:
        raise SetupError(
            f"{folder} must be a folder that is yours and that only you can open (mode 0700): remove what is there, "
            f"or set PONDER_HOME to a path of at most {_LONGEST - len('/redis/sockets')} bytes"
        )
    return folder


def make_socket_folder(home: Path) -> Path:
    socket_folder(home).mkdir(exist_ok=True, mode=0o700)
    return socket_folder(home)  # checks the folder as it is now
