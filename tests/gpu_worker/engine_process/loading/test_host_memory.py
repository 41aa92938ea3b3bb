"""The memory that the host has left, according to its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponder_worker.engine_process.loading.host_memory import available_bytes

MEMINFO = "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    8000 kB\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "kibibytes"),
    [
        ({}, 8000),
        ({"memory.max": "max\n", "memory.current": "4096\n"}, 8000),
        ({"memory.max": "2048000\n", "memory.current": "1024000\n"}, 1000),
        ({"memory.max": "1024\n", "memory.current": "2048\n"}, 0),
        ({"memory/memory.limit_in_bytes": "2048000\n", "memory/memory.usage_in_bytes": "0\n"}, 2000),
    ],
)
def test_a_container_has_what_its_limit_leaves(tmp_path: Path, files: dict[str, str], kibibytes: int) -> None:
    proc = write(tmp_path / "proc", {"meminfo": MEMINFO})
    groups = write(tmp_path / "groups", files)
    assert available_bytes(proc=proc, groups=groups) == kibibytes << 10


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory.max": "2048000\n",
            "memory.current": "2048000\n",
            "memory.stat": "anon 512000\ninactive_file 1024000\nactive_file 512000\n",
        },
        {
            "memory/memory.limit_in_bytes": "2048000\n",
            "memory/memory.usage_in_bytes": "2048000\n",
            "memory/memory.stat": "inactive_file 7\ntotal_rss 512000\ntotal_inactive_file 1024000\n",
        },
    ],
)
def test_weights_just_read_from_files_leave_a_container_as_much_as_before(
    tmp_path: Path, files: dict[str, str]
) -> None:
    proc = write(tmp_path / "proc", {"meminfo": MEMINFO})
    assert available_bytes(proc=proc, groups=write(tmp_path / "groups", files)) == 1000 << 10


def test_where_the_system_does_not_say_there_is_none(tmp_path: Path) -> None:
    assert available_bytes(proc=tmp_path, groups=tmp_path) == 0
