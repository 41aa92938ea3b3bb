"""The circumstances of a run, as its report describes them, and the publication of a report."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

EXTENSIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}


def circumstances(
    what: str, *packages: str, threads: int | None = None, versions: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The first entries of a report.

    packages: installed packages whose versions matter. versions: other versions. threads: the number of torch threads.
    """
    processors = f"{os.cpu_count()} processors" + (f", {threads} thread{'s'[: threads - 1]}" if threads else "")
    return {
        "what": what,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {_processor()}, {processors}",
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
            **(versions or {}),
        },
        "command": " ".join(["python", _script(), *map(_hidden, sys.argv[1:])]),
    }


def publish(report: dict[str, Any], out: Path | None) -> None:
    """Writes a report to `out`, if given, and as the last line of standard output."""
    if out is not None:
        out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


def _processor() -> str:
    """The processor's name and the widest instruction set that matters here."""
    fields = dict(line.split(":", 1) for line in _lines(Path("/proc/cpuinfo")) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    extension = next((name for flag, name in EXTENSIONS.items() if flag in fields.get("flags", "").split()), None)
    return " with ".join(filter(None, (fields.get("model name") or platform.processor(), extension)))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _script() -> str:
    place, here = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parents[1]
    return str(place.relative_to(here)) if place.is_relative_to(here) else place.name


def _hidden(argument: str) -> str:
    """The text without paths of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument
