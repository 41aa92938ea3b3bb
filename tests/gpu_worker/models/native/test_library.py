"""Compilation of the C code, what happens if it fails, and the folder in which it is kept."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ponder_worker.models.native import library as module
from ponder_worker.models.native.native_operations import native_operations, native_sampler

CPU = torch.device("cpu")
ANSWERS = '#!/bin/sh\necho "$@" >> {calls}\n[ "$1" = --version ] && exec echo fake 1.0\n'
FAILS = ANSWERS + "echo unknown: __builtin_shufflevector >&2\nexit 1\n"
HANGS = ANSWERS + "sleep 600 &\necho $! > {calls}.child\nwait\n"
QUICK = ("-std=gnu11", "-O0", "-pthread", "-shared", "-fPIC", "-w")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that nobody else may write to. Afterwards the libraries are loaded anew."""
    caches = (module.library, native_operations, module.cache_dir)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "_is_safe", lambda folder: True)  # the folders of pytest are under /tmp
    yield tmp_path
    for cached in caches:
        cached.cache_clear()


def put_first(fake: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake `cc` first on the path. Returns the file to which it writes its calls."""
    folder, calls = home / "bin", home / "calls"
    folder.mkdir()
    calls.touch()
    (folder / "cc").write_text(fake.replace("{calls}", str(calls)))
    (folder / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return calls


def restart() -> None:
    """Forget what was loaded, as at the next start."""
    module.library.cache_clear()
    native_operations.cache_clear()
    module.cache_dir.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_computes_where_nothing_compiles_and_the_log_says_so(
    dtype: torch.dtype, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(home))
    assert native_operations(dtype, 32) is None
    assert native_sampler(CPU) is None
    assert "2.5 to 3 times slower: install gcc 12 or newer. there is no C compiler" in caplog.text


def test_a_compiler_that_fails_is_quoted_and_not_asked_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = put_first(FAILS, home, monkeypatch)
    assert native_operations(torch.float32, 32) is None
    assert "install gcc 12 or newer" in caplog.text
    assert "unknown: __builtin_shufflevector" in caplog.text
    caplog.clear()
    restart()
    assert native_operations(torch.float32, 32) is None
    assert calls.read_text().count(" -o ") == 1
    (failed,) = (home / ".cache" / "ponder").iterdir()
    assert f"unknown: __builtin_shufflevector\n(remove {failed} to try again)" in caplog.text


def test_a_failure_of_an_hour_ago_does_not_count(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = put_first(FAILS, home, monkeypatch)
    for num_tries in (1, 2):
        restart()
        assert native_operations(torch.float32, 32) is None
        assert calls.read_text().count(" -o ") == num_tries
        (failed,) = (home / ".cache" / "ponder").iterdir()
        hour_ago = time.time() - 3601
        os.utime(failed, (hour_ago, hour_ago))


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = put_first(HANGS, home, monkeypatch)
    monkeypatch.setattr(module, "_LIMIT_S", 1.0)
    assert module.library(torch.float32) is None
    assert "was not done after 1 s" in caplog.text
    assert not runs(int((home / "calls.child").read_text()))
    restart()
    assert module.library(torch.float32) is None
    assert calls.read_text().count(" -o ") == 1


def runs(process: int) -> bool:
    """Whether the process still runs after a moment. An ended one may wait to be collected."""
    for _ in range(50):
        try:
            if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX":
                return False
        except OSError:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.usefixtures("compiler")
def test_a_library_is_kept_for_the_next_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_flags", lambda: QUICK)
    assert module.library(torch.float32) is not None
    (kept,) = (home / ".cache" / "ponder").iterdir()
    first = kept.stat().st_ino
    restart()
    assert module.library(torch.float32) is not None
    assert kept.stat().st_ino == first


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_library_cut_short_or_open_to_others_is_made_again(mode: int, tmp_path: Path) -> None:
    kept = tmp_path / "kept.so"
    kept.write_bytes(b"\x7fELF")
    kept.chmod(mode)
    sources = [str(Path(module.__file__).parent / name) for name in module._SOURCES]
    assert module._opened(kept, ["cc", *QUICK, "-DBFLOAT16=0", *sources]).has_products() == 0
    assert module.is_ours(kept)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_shared_home_gives_each_processor_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", read)
    names = []
    for name in ("one", "two"):
        monkeypatch.setattr(module.platform, "node", lambda name=name: name)
        names.append(module._processor())
    assert names == [b"one", b"two"]


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_nothing_is_kept_below_a_folder_that_others_may_write_to(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    safe = module._is_safe
    monkeypatch.setattr(module, "_is_safe", lambda folder: safe(folder) if folder.is_relative_to(home) else True)
    monkeypatch.setenv("HOME", str(home))
    module.cache_dir.cache_clear()
    try:
        assert module.cache_dir() == home / ".cache" / "ponder"
        module.cache_dir.cache_clear()
        home.chmod(mode)
        found = module.cache_dir()
        assert not found.is_relative_to(home)
        assert found.stat().st_mode & 0o777 == 0o700
        assert f"others may write to {home}" in caplog.text
    finally:
        module.cache_dir.cache_clear()


def test_a_link_is_not_our_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    (tmp_path / "link").symlink_to("file")
    assert module.is_ours(tmp_path / "file")
    assert not module.is_ours(tmp_path / "link")
    assert not module.is_ours(tmp_path / "none")
