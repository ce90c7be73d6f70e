"""Private files: 0600 whatever the umask, whole or not at all, never through a link."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import pytest
from dying import DIE_AT

from mcilib.files import append, open_log, read_private, remove, write_private


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.json"


@pytest.mark.parametrize("durable", [True, False])
def test_written_and_read(path, durable, open_umask):
    write_private(path, b"one", durable=durable)
    write_private(path, b"two", durable=durable)
    assert read_private(path, 3) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["a.json"]


def test_flushed_before_it_is_in_place_and_the_folder_after(path, monkeypatch):
    done: list[object] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        done.append(stat.S_ISDIR(os.fstat(fd).st_mode))
        fsync(fd)

    def noted_replace(one: str, other: str) -> None:
        done.append("replace")
        replace(one, other)

    monkeypatch.setattr("os.fsync", noted_fsync)
    monkeypatch.setattr("os.replace", noted_replace)
    write_private(path, b"one")
    assert done == [False, "replace", True]
    done.clear()
    write_private(path, b"two", durable=False)
    assert done == ["replace"]


def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(path, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    path.symlink_to(other)
    write_private(path, b"one")
    assert not path.is_symlink()
    assert other.read_bytes() == b"mine"


def test_nobody_can_lay_a_link_where_it_is_written(path, tmp_path, monkeypatch):
    monkeypatch.setattr("os.urandom", lambda n: b"\x00" * n)  # as if it could be guessed
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    (tmp_path / ".a.json.00000000").symlink_to(other)
    with pytest.raises(FileExistsError):
        write_private(path, b"one")
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), os.mkfifo, lambda p: p.symlink_to("b")])
def test_what_is_no_file_of_ours_is_not_read(path, make):
    (path.parent / "b").write_bytes(b"x")
    make(path)
    with pytest.raises((OSError, ValueError)):
        read_private(path, 100)
    with pytest.raises((OSError, ValueError)), open_log(path):
        pass


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a file away: root only")
def test_another_users_file_is_not_read(path):
    path.write_bytes(b"x")
    os.chown(path, 65_534, 65_534)
    with pytest.raises(ValueError, match="another user"):
        read_private(path, 100)
    with pytest.raises(ValueError, match="another user"), open_log(path):
        pass


def test_too_large(path):
    write_private(path, b"four")
    with pytest.raises(ValueError, match="too large"):
        read_private(path, 3)


def test_a_full_disk_leaves_what_was_there_and_nothing_else(small_disk):
    path = small_disk() / "a.json"
    write_private(path, b"one")
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"x" * 2_000_000)
    assert path.read_bytes() == b"one"
    assert os.listdir(path.parent) == ["a.json"]
    with open_log(path.with_name("log")) as fd:
        append(fd, b"first\n")
        with pytest.raises(OSError, match="No space"):
            append(fd, b"x" * 2_000_000)
        append(fd, b"second\n")
    assert path.with_name("log").read_bytes() == b"first\nsecond\n"


def test_a_death_at_any_point_leaves_one_or_the_other(path):
    """Also durably: see the crash tests, which cut the power."""
    for point in range(1, 12):
        write_private(path, b"before")
        script = (
            f"{DIE_AT}\nfrom pathlib import Path\nfrom mcilib.files import write_private\nimport mcilib.digest\n"
            f"die_at({point})\nwrite_private(Path({str(path)!r}), b'after')\n"
        )
        code = subprocess.run([sys.executable, "-c", script], timeout=30).returncode
        assert path.read_bytes() in (b"before", b"after")
        if code == 0:
            assert path.read_bytes() == b"after"
            break
    else:
        raise AssertionError("it never ended")
    assert point > 3
    remove(path)
    assert not os.listdir(path.parent), "with what was left halfway"


def test_two_threads_leave_a_whole_one(path):
    def write(letter: bytes) -> None:
        for _ in range(50):
            write_private(path, letter * 10_000, durable=False)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(path.read_bytes())) == 1
    assert os.listdir(path.parent) == ["a.json"]
