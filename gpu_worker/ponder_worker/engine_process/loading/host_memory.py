"""The memory that the host has left."""

from pathlib import Path

_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""For cgroups v2 and v1: a container's limit, its use, its statistics, and the field there of droppable file cache."""


def available_bytes(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns what can be taken without swapping and within a container's limit; 0 if the system does not say.

    Caches that the kernel would give up count as free.
    """
    left = [_field(proc / "meminfo", "MemAvailable:") << 10]
    for limit, used, told, cached in _GROUPS:
        most, taken = _number(groups / limit), _number(groups / used)
        if most is not None and taken is not None:
            left.append(most - taken + _field(groups / told, cached))  # weights just read from files are in that cache
    return max(0, min(left))


def _field(path: Path, name: str) -> int:
    """Returns the number behind a name at the start of a line; 0 if there is no such line."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def _number(path: Path) -> int | None:
    """Returns the number in a file; None if there is none, as in "max"."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None
