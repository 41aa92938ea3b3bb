"""Links from ports of 127.0.0.1 to the Unix sockets of Postgres and Redis, which break when they are told to."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 65_536


class Link:
    """One port. Its methods may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Callable[[], Path]) -> None:
        self._loop = loop
        self._target = target
        self._is_lit = asyncio.Event()
        self._is_lit.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def listen(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def darken(self) -> None:
        """Nothing passes, and nobody is told: what a lost network looks like."""
        self._loop.call_soon_threadsafe(self._is_lit.clear)

    def lighten(self) -> None:
        self._loop.call_soon_threadsafe(self._is_lit.set)

    def reset(self) -> None:
        """Both ends of every connection are told RST."""
        self._loop.call_soon_threadsafe(self._reset)

    def _reset(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target())
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._writers |= ends
        pumps = [asyncio.ensure_future(self._pump(*way)) for way in ((reader, far_writer), (far_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= ends
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await self._is_lit.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            return


class Network:
    """All links, in a thread of their own. Nothing of them is left after the `with`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")

    def link(self, target: Callable[[], Path]) -> Link:
        """A link that can be cut. target: returns where the socket is; it is called for every connection."""

        async def listen() -> Link:
            return await Link(self._loop, target).listen()

        return asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST instead of FIN, and forgets what was not sent yet."""
    ours = writer.get_extra_info("socket")
    if ours is not None and ours.family == socket.AF_INET:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
