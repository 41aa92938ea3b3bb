"""How much memory the host has left."""

from pathlib import Path

_GROUPS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""A container's limit and what it uses of it, of the second and of the first version of cgroups."""


def available_bytes(*, proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """That can be taken without swapping, and within a container's limit; 0 where the system does not say."""
    left = [_free(proc / "meminfo")]
    for limit, used in _GROUPS:
        most, taken = _number(groups / limit), _number(groups / used)
        if most is not None and taken is not None:
            left.append(most - taken)
    return max(0, min(left))


def _free(meminfo: Path) -> int:
    """Caches that the kernel would give up count as free."""
    lines = meminfo.read_text().splitlines() if meminfo.is_file() else []
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)


def _number(path: Path) -> int | None:
    """None also for "max"."""
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None
