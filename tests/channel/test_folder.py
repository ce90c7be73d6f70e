"""Which folders and files are taken for this user's alone."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mcilib.channel.folder import check_state_folder, open_folder, open_private
from mcilib.errors import SpoolError

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def test_a_private_folder_is_fine_and_stays_that_one_whatever_its_path_leads_to(folder):
    check_state_folder(folder)
    check_state_folder(str(folder) + "/")
    fd = open_folder(folder)
    try:
        aside = folder.with_name(folder.name + "-aside")
        folder.rename(aside)
        (aside / "here").touch()
        assert os.listdir(fd) == ["here"]
        aside.rename(folder)
    finally:
        os.close(fd)


@pytest.mark.parametrize("end", ["", "/", "/."])
def test_a_link_to_a_folder_is_refused_with_a_slash_at_its_end_too(folder, end):
    link = folder / "link"
    real = folder / "real"
    real.mkdir(mode=0o700)
    link.symlink_to(real)
    with pytest.raises(SpoolError, match="is a symbolic link"):
        check_state_folder(f"{link}{end}")


def test_a_link_above_it_is_none_of_its_own(folder):
    (folder / "real").mkdir(mode=0o700)
    (folder / "real" / "state").mkdir(mode=0o700)
    (folder / "link").symlink_to(folder / "real")
    check_state_folder(folder / "link" / "state")


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o720, 0o704, 0o750, 0o755, 0o777, 0o1777])
def test_a_folder_with_any_bit_for_others_is_refused_and_the_words_say_what_to_do(folder, mode):
    folder.chmod(mode)
    with pytest.raises(SpoolError, match=f"mode {mode:04o}") as caught:
        check_state_folder(folder)
    assert f"chmod 700 {folder}" in caught.value.next_step
    folder.chmod(0o700)
    check_state_folder(folder)


@as_root
def test_a_folder_of_another_user_is_refused(folder):
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(SpoolError, match="belongs to another user"):
        check_state_folder(folder)


@as_root
def test_another_user_may_not_use_roots_either(folder):
    folder.chmod(0o755)
    code = (
        "import sys, os; from mcilib.channel.folder import check_state_folder\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: check_state_folder(sys.argv[1])\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert "belongs to another user" in done.stdout, done.stderr


def test_what_is_no_folder_or_not_there_is_refused(folder):
    (folder / "file").touch(mode=0o600)
    with pytest.raises(SpoolError, match="is no folder"):
        check_state_folder(folder / "file")
    with pytest.raises(SpoolError, match="cannot be opened"):
        check_state_folder(folder / "nothing")


def test_on_windows_links_are_refused_and_modes_are_not_looked_at(folder, monkeypatch):
    """As far as that can be told here: modes mean nothing there."""
    folder.chmod(0o755)
    (folder / "link").symlink_to(folder)
    monkeypatch.setattr(sys, "platform", "win32")
    check_state_folder(folder)
    for name, words in (("link", "is a symbolic link"), ("nothing", "cannot be opened")):
        with pytest.raises(SpoolError, match=words):
            check_state_folder(folder / name)


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_file_is_made_for_this_user_alone_and_read_again(folder, by_folder):
    folder_fd = open_folder(folder) if by_folder else None
    before = os.umask(0)
    try:
        fd = open_private(folder / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder_fd=folder_fd)
    finally:
        os.umask(before)
    os.write(fd, b"words")
    os.close(fd)
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o600
    fd = open_private(folder / "new", os.O_RDONLY, folder_fd=folder_fd)
    assert os.read(fd, 9) == b"words"
    os.close(fd)
    with pytest.raises(FileExistsError):
        open_private(folder / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder_fd=folder_fd)
    with pytest.raises(FileNotFoundError):
        open_private(folder / "other", os.O_RDONLY, folder_fd=folder_fd)
    if folder_fd is not None:
        os.close(folder_fd)


def put(kind: str, path: Path) -> None:
    """Something else in the place of a file."""
    if kind == "link":
        target = path.with_name("target")
        target.write_bytes(bytes(32))
        target.chmod(0o600)
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(path.with_name("elsewhere"))
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(mode=0o700)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
        path.chmod(0o600)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    elif kind == "open to others":
        path.write_bytes(bytes(32))
        path.chmod(0o640)
    elif kind == "another user's":
        path.write_bytes(bytes(32))
        path.chmod(0o600)
        os.chown(path, NOBODY, NOBODY)


KINDS = [
    "link", "dangling link", "fifo", "folder", "socket", "open to others",
    pytest.param("device", marks=as_root), pytest.param("another user's", marks=as_root),
]  # fmt: skip


@pytest.mark.timeout(20)  # a FIFO would be waited for
@pytest.mark.parametrize(
    "flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC]
)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_else_stands_in_a_files_place_is_refused_and_not_touched(folder, kind, flags):
    put(kind, folder / "file")
    before = sorted((p.name, p.lstat().st_mode, p.lstat().st_size) for p in folder.iterdir())
    with pytest.raises(SpoolError) as caught:
        open_private(folder / "file", flags)
    assert str(folder / "file") in caught.value.problem
    assert sorted((p.name, p.lstat().st_mode, p.lstat().st_size) for p in folder.iterdir()) == before


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link", "fifo", "open to others"])
def test_what_comes_between_the_look_and_the_opening_is_refused_too(folder, kind, monkeypatch):
    """A stand-in for that moment: the look finds nothing."""
    monkeypatch.setattr("mcilib.channel.folder.check_file", lambda *args, **options: False)
    put(kind, folder / "file")
    with pytest.raises((SpoolError, OSError)) as caught:
        open_private(folder / "file", os.O_RDONLY)
    assert isinstance(caught.value, SpoolError) or "symbolic links" in str(caught.value)
