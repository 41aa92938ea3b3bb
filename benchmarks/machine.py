"""What a result says of where it comes from."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def origin() -> dict[str, Any]:
    """Machine, versions, command, date, and the load so far."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {_processor()}, {os.cpu_count()} cores",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_hidden, sys.argv[1:])]),
    }


def _processor() -> str:
    lines = subprocess.run(["lscpu"], capture_output=True, text=True, check=False).stdout.splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model name")]
    return names[0] if names else platform.processor()


def _hidden(argument: str) -> str:
    """Without the places of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument
