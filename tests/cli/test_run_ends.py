"""How `mcilib run` ends: by a signal, by itself, with everything on disk and in time."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from commands import (
    COMMAND,
    INPUT,
    Background,
    Receiver,
    input_on,
    kinds,
    record,
    refused,
    spool_of,
    summary,
)

from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

Start = Callable[..., Background]
pytestmark = pytest.mark.x11

ENDS_S = 6.0
"""2 is the promise, of which a second is the uploader's; a busy machine takes more. A request that were waited for takes
10, and a display that does not answer has no end."""


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_soon_with_everything_on_disk(
    number: int, xserver: VirtualDisplay, here: Path, granted: Path, background: Start, endpoint: str
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting.")
    input_on(xserver)
    done = agent.end(number)
    assert (done.returncode, done.stderr) == (0, "")
    assert agent.seconds < ENDS_S
    assert kinds(granted / "spool") == INPUT


@pytest.mark.alone
def test_a_black_hole_does_not_delay_the_end(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start
) -> None:
    """The endpoint takes connections and never answers: at the start, in mid upload, and at the end."""
    import socket

    record(granted)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"http://127.0.0.1:{hole.getsockname()[1]}"
        agent = background("run", "--state", granted, "--endpoint", url, "--upload-every", "1s")
        agent.line("To stop:")
        agent.line("Collecting.")
        input_on(xserver)
        time.sleep(1.2)  # an upload is under way
        done = agent.end()
        assert done.returncode == 0
        assert agent.seconds < ENDS_S
        assert f"{url} cannot be reached now (no answer within 3 s)" in done.stderr
        assert kinds(granted / "spool")["move"] == 10 + 2

        agent = background("run", "--state", granted, "--endpoint", url)
        agent.line("To stop:")  # asks the endpoint now
        done = agent.end()
        assert (done.returncode, done.stderr) == (0, "")
        assert agent.seconds < ENDS_S

        drain = background("run", "--state", granted, "--endpoint", url, "--drain")
        drain.line("Uploading what waits")
        time.sleep(0.5)
        done = drain.end()
        assert drain.seconds < ENDS_S
        refused(done, 5, "still on this device: stopped before it was done")
    assert spool_of(granted).waiting_batches == 2


@pytest.mark.alone
def test_a_display_that_freezes_does_not_delay_the_end(
    own_xserver: VirtualDisplay,
    here: Path,
    granted: Path,
    background: Start,
    endpoint: str,
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting.")
    input_on(own_xserver)
    own_xserver.freeze()
    done = agent.end()
    assert done.returncode == 0
    assert agent.seconds < ENDS_S
    assert kinds(granted / "spool") == INPUT

    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("To stop:")
    time.sleep(0.5)  # the start waits for the display
    done = agent.end()
    assert (done.returncode, done.stderr) == (0, "")
    assert agent.seconds < ENDS_S
    own_xserver.thaw()


def test_a_terminal_that_is_closed_ends_it_with_everything_on_disk(
    xserver: VirtualDisplay, here: Path, granted: Path
) -> None:
    child, terminal = pty.fork()
    if child == 0:  # its session's terminal, as a person's is
        os.execvp(COMMAND[0], [*COMMAND, "run", "--state", str(granted), "--endpoint", "http://127.0.0.1:9"])
    seen = b""
    while b"Collecting." not in seen:
        seen += os.read(terminal, 4096)
    input_on(xserver)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 141)
    assert kinds(granted / "spool") == INPUT


def test_drain_shows_how_much_is_left_on_a_terminal(here: Path, granted: Path, endpoint: str) -> None:
    record(granted, 3)
    master, slave = pty.openpty()
    command = [*COMMAND, "run", "--state", str(granted), "--endpoint", endpoint, "--drain"]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen = b""
        while True:
            try:
                seen += os.read(master, 4096)
            except OSError:
                break
    os.close(master)
    assert process.returncode == 0
    assert b"0 batches waiting" in seen
    assert b"Delivered 3 batches." in seen


def test_for_ends_by_itself_after_one_upload(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    started_s = time.monotonic()
    agent = background("run", "--state", granted, "--endpoint", target.url, "--for", "3s")
    agent.line("Collecting for 3s.")
    input_on(xserver)
    done = agent.end(None)
    assert time.monotonic() - started_s > 3
    assert (done.returncode, done.stderr) == (0, "")
    assert summary(done.stdout)["Delivered"] == "1 batch"
    assert summary(done.stdout)["Waiting"] == "0 batches"
    assert kinds(target.store) == INPUT
    assert spool_of(granted).waiting_batches == 0


def test_for_with_a_receiver_that_has_gone_says_what_waits(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    agent = background("run", "--state", granted, "--endpoint", target.url, "--for", "3s")
    agent.line("Collecting")
    target.command.kill()
    input_on(xserver)
    done = agent.end(None)
    assert done.returncode == 0
    assert re.fullmatch(
        r"1 batch \(.*refused.*\)\. Upload with `mcilib run --drain`\.", summary(done.stdout)["Waiting"]
    )
    again = receiver(port=int(target.url.rpartition(":")[2]))
    done = background("run", "--state", granted, "--endpoint", again.url, "--drain").end(None)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Delivered 1 batch." in done.stdout
    assert kinds(again.store) == INPUT


def test_a_grant_that_expires_ends_it(
    xserver: VirtualDisplay, here: Path, background: Start, endpoint: str
) -> None:
    example_grant(expires_in=timedelta(seconds=8)).save("state")  # until it has started, on a busy machine
    agent = background("run", "--state", "state", "--endpoint", endpoint, "--commit-every", "1s")
    agent.line("Collecting.")
    input_on(xserver)
    done = agent.end(None)
    refused(done, 3, "The grant expired at", "`mcilib grant`")


def test_the_last_upload_keeps_to_the_plan(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, endpoint: str
) -> None:
    record(granted)
    quiet = ["--quiet-hours", "00:00-24:00"]
    agent = background("run", "--state", granted, "--endpoint", endpoint, "--for", "1s", *quiet)
    done = agent.end(None)
    assert spool_of(granted).waiting_batches > spool_of(granted).delivered_batches == 0
    assert "(quiet hours)" in summary(done.stdout)["Waiting"]
