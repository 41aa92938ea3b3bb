"""Suggests commands that install what is missing on this machine."""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit


def pip_install(what: str) -> str:
    """Returns the command that installs a package, or an extra of ponder (`ponder[demo]`), beside the running ponder.

    An extra comes from the checkout that ponder was installed from, if any, because no index may have ponder.
    """
    name, bracket, extra = what.partition("[")
    checkout = _checkout() if name == "ponder" else None
    wanted = f"'{what}'" if bracket else what
    if checkout is not None:
        wanted = f"-e '{_short(checkout)}{bracket}{extra}'"
    return f"{_pip()} install {wanted}"


def _pip() -> str:
    """Returns the pip of this environment, by its path if the shell would find another one."""
    pip = Path(sys.prefix, "bin", "pip")
    is_environment = sys.prefix != sys.base_prefix
    return _short(pip) if is_environment and pip.exists() else f"{_short(Path(sys.executable))} -m pip"


def _short(path: Path) -> str:
    here = os.path.relpath(path)
    return str(path) if here.startswith("..") else here


def _checkout() -> Path | None:
    """Returns the folder that the running ponder was installed from (PEP 610)."""
    try:
        written = distribution("ponder").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = urlsplit(json.loads(written)["url"] if written else "")
    return Path(unquote(url.path)) if url.scheme == "file" and Path(unquote(url.path)).is_dir() else None
