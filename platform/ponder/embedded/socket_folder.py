"""Where the embedded services listen."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

_LONGEST = 80  # a socket's whole path may have 107 bytes


def socket_folder(home: Path) -> Path:
    """`home/sockets`, or a short folder of the same identity under the temporary folder where that path is too long."""
    folder = home.resolve() / "sockets"
    if len(os.fsencode(folder)) <= _LONGEST:
        return folder
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"ponder-{os.getuid()}-{name}"
