"""Runs a program inside the sandbox. It is a script that gives asyncio a pipe instead of a pair of sockets."""

import os
import sys


class _PipeEnd:
    """The few methods of a socket that asyncio uses to wake itself up."""

    def __init__(self, number):  # type: ignore[no-untyped-def]
        os.set_blocking(number, False)
        self.fileno = lambda: number
        self.recv = lambda num_bytes: os.read(number, num_bytes)
        self.send = lambda data: os.write(number, data)
        self.close = lambda: os.close(number)


class _OnImport:
    """An import hook that patches asyncio when it is imported, so that other programs pay nothing."""

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name == "asyncio.unix_events":
            sys.meta_path.remove(self)
            from asyncio.selector_events import BaseSelectorEventLoop

            BaseSelectorEventLoop._make_self_pipe = _make_self_pipe  # type: ignore[attr-defined]


def _make_self_pipe(loop):  # type: ignore[no-untyped-def]
    loop._ssock, loop._csock = map(_PipeEnd, os.pipe())
    loop._internal_fds += 1
    loop._add_reader(loop._ssock.fileno(), loop._read_from_self)


sys.meta_path.insert(0, _OnImport())
__file__ = sys.argv[0] = "/program.py"
with open(__file__, encoding="utf-8") as _file:
    _code = compile(_file.read(), __file__, "exec")
exec(_code)  # noqa: S102
