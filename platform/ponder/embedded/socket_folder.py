"""Where the embedded services listen."""

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
    """`home/sockets`, or a short folder of the same identity under the temporary folder where that path is too long.

    Raises SetupError for one that is not ours alone: under the temporary folder anybody may have made it before us, and
    would be who answers there.
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
    return socket_folder(home)  # as it is now
