"""The tree tells nothing about the machine it was written on."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tree() -> list[Path]:
    """Every file that is, or would be, committed."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name.decode() for name in done.stdout.split(b"\0") if name)
    return sorted(p for p in paths if p.is_file())


def index_hosts() -> set[str]:
    """The package index that pip uses here, whatever it is: from its configuration, never from a list."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        capture_output=True,
        text=True,
    )
    return {
        host for url in re.findall(r"https?://[^\s'\"]+", done.stdout) if (host := urlsplit(url).hostname)
    }


def traces_of_this_machine() -> set[str]:
    found = {f"{ROOT}/", *index_hosts()}
    if Path.home() != Path("/"):
        found.add(f"{Path.home()}/")
    name = socket.gethostname()
    if len(name) >= 6 and name not in ("localhost", "debian", "ubuntu"):
        found.add(name)
    return found


def test_no_path_host_or_index_of_this_machine() -> None:
    traces = traces_of_this_machine()
    found = []
    for path in tree():
        content = path.read_bytes()
        found += [f"{path.relative_to(ROOT)}: {trace}" for trace in traces if trace.encode() in content]
    assert not found, "\n".join(found)


def test_no_file_is_large() -> None:
    large = [p.relative_to(ROOT).as_posix() for p in tree() if p.stat().st_size > 2_000_000]
    assert not large, "data of this size is made by a script, not committed"
