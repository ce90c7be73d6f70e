"""A file that cannot be written is not left behind, and nothing else is removed in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcilib.delivery._files import write_durably

FULL = Path("/dev/full")
NEVER_NS = 2**100
"""No file can be dated so: a failure after everything has been written."""


def test_what_was_begun_is_removed(tmp_path):
    with pytest.raises(OverflowError):
        write_durably(tmp_path / "a", b"1", NEVER_NS)
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_there_is_written_anew_and_stays(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    write_durably(path, b"678")
    assert path.read_bytes() == b"678"
    with pytest.raises(OverflowError):
        write_durably(path, b"9", NEVER_NS)
    assert path.exists()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_device_stays(tmp_path):
    """By a link, which is all that a fault can remove."""
    link = tmp_path / "full"
    link.symlink_to(FULL)
    with pytest.raises(OSError, match="No space left"):
        write_durably(link, b"1")
    assert os.path.lexists(link)
