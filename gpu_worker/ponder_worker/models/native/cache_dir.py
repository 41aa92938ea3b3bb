"""The folder for compiled libraries. Write access to it allows code to run as the current user."""

import atexit
import logging
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@cache
def cache_dir() -> Path:
    """The folder `~/.cache/ponder`, if only the current user and root may write to it and to the folders above it.

    Otherwise it is a temporary folder, which is removed at exit.
    """
    try:
        cached = Path.home() / ".cache"
        cached.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = cached / "ponder"
        folder.mkdir(mode=0o700, exist_ok=True)
        folder = folder.resolve(strict=True)
        refused = next((path for path in (folder, *folder.parents) if not _is_safe(path)), None)
        reason = f"others may write to {refused}"
        if refused is None and os.access(folder, os.W_OK):
            return folder
        if refused is None:
            reason = f"{folder} is read-only"
    except (OSError, RuntimeError) as error:
        reason = str(error)
    logging.getLogger(__name__).warning("compiled libraries are not kept for the next start: %s", reason)
    own = Path(tempfile.mkdtemp(prefix="ponder-"))
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def is_ours(path: Path) -> bool:
    """Whether this is a file that only the current user can have written. A link is not."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & _OTHERS


def _is_safe(folder: Path) -> bool:
    state = folder.stat()
    return state.st_uid in (os.getuid(), 0) and not state.st_mode & _OTHERS
