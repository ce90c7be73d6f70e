"""Files that a person names: a device or a pipe, which may never end, and a file that is too large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import Run, refused

from mcilib.cli._keys import KEY_FILE_MAX_BYTES
from mcilib.cli._parser import TOKEN_FILE_MAX_BYTES
from mcilib.cli.grant import POLICY_MAX_BYTES
from mcilib.config.read import CONFIG_MAX_BYTES

#: Arguments of a command that reads the file, and its largest size.
NAMED: dict[str, tuple[list[str], int]] = {
    "--config": (["status"], CONFIG_MAX_BYTES),
    "--policy": (
        ["grant", "--operator", "Example Lab", "--purpose", "a study", "--scope", "keys"],
        POLICY_MAX_BYTES,
    ),
    "--token-file": (["run", "--endpoint", "http://127.0.0.1:9"], TOKEN_FILE_MAX_BYTES),
    "--recipients": (["run", "--endpoint", "http://127.0.0.1:9"], KEY_FILE_MAX_BYTES),
    "--identity": (["export", "store"], KEY_FILE_MAX_BYTES),
}
CODES = {"--recipients": 8, "--identity": 8}


def state(flag: str, folder: Path) -> list[str]:
    return [] if flag == "--identity" else ["--state", str(folder)]


@pytest.mark.parametrize("flag", NAMED)
@pytest.mark.parametrize("kind", ["a device", "a pipe"])
def test_what_may_never_end_is_not_read(flag: str, kind: str, mcilib: Run, here: Path, granted: Path) -> None:
    os.mkfifo(here / "pipe")
    path = "pipe" if kind == "a pipe" else "/dev/zero"
    done = mcilib(*NAMED[flag][0], *state(flag, granted), flag, path, timeout=10)
    refused(done, CODES.get(flag, 2), f"{path}", "cannot be read (it is no ordinary file)")


@pytest.mark.parametrize("flag", NAMED)
def test_what_is_too_large_is_not_read(flag: str, mcilib: Run, here: Path, granted: Path) -> None:
    args, most = NAMED[flag]
    good = b"# x\n" if flag == "--config" else b"token\n"
    (here / "file").write_bytes(good + b"#" * (most + 1 - len(good)))
    done = mcilib(*args, *state(flag, granted), flag, "file")
    refused(
        done,
        CODES.get(flag, 2),
        f"file{':' if flag == '--config' else ''} cannot be read (it is larger than {most // 1024} KiB)",
    )

    (here / "file").write_bytes(good + b"#" * (most - len(good)))
    done = mcilib(*args, *state(flag, granted), flag, "file")
    assert "cannot be read" not in done.stderr


def test_a_link_to_a_file_is_a_file(mcilib: Run, here: Path) -> None:
    (here / "real.toml").write_text('[agent]\nstate = "here"\n')
    (here / "agent.toml").symlink_to("real.toml")
    assert mcilib("status", "--config", "agent.toml").returncode == 0
