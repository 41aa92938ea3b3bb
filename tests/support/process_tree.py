"""Processes and their descendants, as Linux tells of them under /proc."""

from __future__ import annotations

import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """All descendants, parents first."""
    parent_of = {child: parent for child in _processes() if (parent := _parent(child)) is not None}
    found: list[int] = []
    parents = {pid}
    while fresh := [child for child, parent in parent_of.items() if parent in parents and child not in found]:
        found += fresh
        parents = set(fresh)
    return found


def is_alive(pid: int) -> bool:
    state = _stat(pid)
    return bool(state) and state[0] != "Z"


def command_of(pid: int) -> str:
    """Its command line; empty when it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace")


def processes_of(folder: Path) -> list[int]:
    """Living processes other than this one that were started with something in `folder`, or stand in it."""
    mark = os.fsencode(folder)
    return [
        pid
        for pid in _processes()
        if pid != os.getpid() and is_alive(pid) and (mark in _read(pid, "environ") or _stands_in(pid, folder))
    ]


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _parent(pid: int) -> int | None:
    state = _stat(pid)
    return int(state[1]) if state else None


def _stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold spaces: state, parent, …"""
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _stands_in(pid: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(folder)
    except OSError:
        return False
