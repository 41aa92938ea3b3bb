"""The folder in which compiled libraries are kept."""

from pathlib import Path

import pytest

from ponder_worker.models.native import cache_dir


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_nothing_is_kept_below_a_folder_that_others_may_write_to(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    safe = cache_dir._is_safe
    monkeypatch.setattr(cache_dir, "_is_safe", lambda folder: safe(folder) if folder.is_relative_to(home) else True)
    monkeypatch.setenv("HOME", str(home))
    cache_dir.cache_dir.cache_clear()
    try:
        assert cache_dir.cache_dir() == home / ".cache" / "ponder"
        cache_dir.cache_dir.cache_clear()
        home.chmod(mode)
        found = cache_dir.cache_dir()
        assert not found.is_relative_to(home)
        assert found.stat().st_mode & 0o777 == 0o700
        assert f"others may write to {home}" in caplog.text
    finally:
        cache_dir.cache_dir.cache_clear()


def test_a_link_is_not_our_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    (tmp_path / "link").symlink_to("file")
    assert cache_dir.is_ours(tmp_path / "file")
    assert not cache_dir.is_ours(tmp_path / "link")
    assert not cache_dir.is_ours(tmp_path / "none")
