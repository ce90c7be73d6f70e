"""Nothing that an agent leaves behind, sends or says names the machine or its user."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import uuid
from pathlib import Path

import pytest
from canary import frames_in, opened
from commands import COMMAND, Background, input_on, run
from wire import Wire

from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

pytestmark = pytest.mark.x11

MADE_UP = {"user name": "zquser7f", "host name": "zqhost7f", "home folder": "zqhome7f"}
"""What the agent is told by its environment; and by the kernel, where a test may change that for one process."""


def traces() -> dict[str, list[bytes]]:
    """By what it is: how it could look."""
    found = {what: [word] for what, word in MADE_UP.items()}
    own = {
        "own user name": getpass.getuser(),
        "own host name": socket.gethostname(),
        "own home": Path.home().name,
    }
    found |= {what: [word] for what, word in own.items() if len(word) >= 5}  # `root` and `vm` are words
    for path in Path("/sys/class/net").glob("*/address"):
        address = path.read_text().strip()
        if re.fullmatch("(?!00:00:00:00:00:00)([0-9a-f]{2}:){5}[0-9a-f]{2}", address):
            plain = address.replace(":", "")
            found[f"address of {path.parent.name}"] = [
                address,
                address.replace(":", "-"),
                plain,
                plain.upper(),
            ]
    for name in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        if Path(name).is_file() and (text := Path(name).read_text().strip()):
            found[name] = [text, text.replace("-", "")]
    found["node of uuid1"] = [f"{uuid.getnode():012x}"]
    return {what: [word.encode() for word in words] for what, words in found.items()}


def named_in(data: bytes) -> set[str]:
    lowered = data.lower()
    return {what for what, words in traces().items() if any(word.lower() in lowered for word in words)}


@pytest.fixture
def agent_and_all(
    xserver: VirtualDisplay, wire: Wire, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    """An agent that worked, was paused, exempted and asked to forget, was cut off from its receiver, and ended: what it
    left where."""
    home = tmp_path / MADE_UP["home folder"]
    home.mkdir()
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, MADE_UP["user name"])
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HOSTNAME", MADE_UP["host name"])
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "state"
    grant = example_grant("keys", "pointer", "apps")
    grant.save(state)
    agent = Background(
        "run", "--state", "state", "--endpoint", wire.url, "--debug", prefix=in_a_host_of_its_own()
    )
    agent.line("Collecting.")
    said = b""
    for words in (
        ["pause", "5m"],
        ["resume"],
        ["exempt", "--hours", "mon-sun 03:00-03:01", "--reason", "personal"],
    ):
        said += run(words[0], "--state", "state", *words[1:]).stdout.encode()
        input_on(xserver)
    said += run("flush", "--state", "state").stdout.encode()
    arguments = Path(f"/proc/{agent.process.pid}/comm").read_bytes()
    input_on(xserver)
    wire.hold()
    done = agent.end()
    files = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    stored = {
        path: path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and grant.participant in read(path)
    }
    left = [*files.items(), *stored.items()]
    sent = bytes(wire.asked)
    assert frames_in(sent), "nothing was sent"
    assert any(path.suffix == ".mcib" for path in files), "nothing waits"
    return {
        "files": b"".join(data for _, data in left),
        "names of files": b"\n".join(
            str(path.relative_to(state if state in path.parents else store)).encode() for path, _ in left
        ),
        "batches": b"".join(text for data in (sent, *files.values()) for frame in frames_in(data) for text in opened(frame)),
        "wire": sent,
        "answers": bytes(wire.answered),
        "output": done.stdout.encode() + said,
        "log": done.stderr.encode(),
        "name of the process": arguments,
        "the file of a batch to be shown": run("batch", "show", next(iter(state.rglob("*.mcib")))).stdout.encode(),
    }  # fmt: skip


def read(path: Path) -> str:
    return str(path) + path.read_bytes().decode("latin-1")


def in_a_host_of_its_own() -> list[str]:
    """What to put before a command so that it runs as on another machine by name, where that is allowed."""
    if shutil.which("unshare") is None:
        return []
    inside = ["unshare", *(["--user", "--map-root-user"] if os.geteuid() else []), "--uts"]
    script = f"hostname {MADE_UP['host name']} && hostname"
    tried = subprocess.run([*inside, "sh", "-c", script], capture_output=True, text=True)
    if tried.stdout.strip() != MADE_UP["host name"]:
        return []
    return [*inside, "sh", "-c", f'hostname {MADE_UP["host name"]} && exec "$@"', "sh"]


def test_no_name_of_the_machine_or_its_user_is_anywhere(agent_and_all: dict[str, bytes]) -> None:
    named = {where: names for where, data in agent_and_all.items() if (names := named_in(data))}
    assert not named


def test_the_search_would_find_them() -> None:
    """The same words in what could have been left."""
    for what, words in traces().items():
        for word in words:
            assert what in named_in(b"x" + word + b"y")
    assert COMMAND
