"""A filter, in seccomp's bytecode, for the system calls that a program may not make.

https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
"""

from __future__ import annotations

import errno
import platform
import struct

# AUDIT_ARCH_… of linux/audit.h
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Calls that no answer needs. They give access to sockets, namespaces, memory that no limit counts, and the parts of the
# kernel in which holes are found. The numbers are those of the two architectures.
_DENIED: dict[str, tuple[int, int]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "personality": (135, 92),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_NEW_NAMESPACES = 0x7E020000
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000


def syscall_filter(machine: str | None = None) -> bytes:
    """Returns an array of `struct sock_filter`, which is empty for an unknown architecture."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return b""
    column = list(_ARCHITECTURES).index(machine)
    # A step is (code, value, target if true, target if false). Targets get their places once all steps are known.
    steps: list[tuple[int, int, str, str]] = [(_EQUAL, numbers[column], "fail", "") for numbers in _DENIED.values()]
    if machine == "x86_64":
        steps.insert(0, (_AT_LEAST, _X32, "fail", ""))
    steps += [
        (_EQUAL, _CLONE3[column], "absent", ""),  # its flags are behind a pointer; libc then uses clone
        (_EQUAL, _CLONE[column], "", "allow"),
        (_LOAD, _FIRST_ARGUMENT, "", ""),
        (_ANY_BIT, _NEW_NAMESPACES, "fail", "allow"),
    ]
    ends = {"allow": _ALLOW, "fail": _FAIL | errno.EPERM, "absent": _FAIL | errno.ENOSYS}
    places = {name: len(steps) + place for place, name in enumerate(ends)}
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER))
    for place, (operation, value, so, not_so) in enumerate(steps):
        jumps = [places[name] - place - 1 if name else 0 for name in (so, not_so)]
        code.append((operation, jumps[0], jumps[1], value))
    code += [(_RETURN, 0, 0, value) for value in ends.values()]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
