"""stdout and stderr that are closed, full, or cannot show a text: never a traceback, never an unexpected error."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buses import BusDaemon
from commands import COMMAND, START, Background, Done, Run, kinds, record, refused
from waiting import until

from mcilib.consent import Grant
from mcilib.errors import IndicatorError
from mcilib.testing.xvfb import VirtualDisplay

TERMS = ["--operator", "Lä", "--purpose", "żółw", "--scope", "pointer,keys"]
FULL = Path("/dev/full")


def redirected(how: str, *args: str | Path, **more: Any) -> Done:
    """Runs `mcilib ARGS` with a redirection as a shell writes it."""
    command = ["sh", "-c", f'exec "$@" {how}', "sh", *COMMAND, *map(str, args)]
    done: Done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=40, **more
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def spool(granted: Path) -> Path:
    record(granted, 3)
    return granted / "spool"


# --- closed -------------------------------------------------------------------------------------------------


@pytest.mark.x11
def test_run_without_stdout(here: Path, granted: Path, endpoint: str, xserver: VirtualDisplay) -> None:
    done = redirected(">&-", "run", "--state", granted, "--endpoint", endpoint, "--for", "1s")
    assert done.returncode == 0
    assert done.stderr.startswith("mcilib: Recording has begun. Who collects: Example Lab. ")
    assert done.stderr.count("\n") == 1


@pytest.mark.x11
def test_an_agent_that_nobody_can_see_does_not_start(
    here: Path, granted: Path, endpoint: str, xserver: VirtualDisplay
) -> None:
    """No stdout, no stderr, and nobody who shows notes."""
    done = redirected(">&- 2>&-", "run", "--state", granted, "--endpoint", endpoint, "--for", "1s")
    assert done.returncode == IndicatorError.exit_code
    assert not list((granted / "spool" / "ready").glob("*"))


@pytest.mark.x11
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc on this system")
def test_no_file_of_ours_gets_the_number_of_a_closed_stream(
    here: Path, granted: Path, endpoint: str, xserver: VirtualDisplay, session_bus: BusDaemon
) -> None:
    session_bus.run("org.freedesktop.Notifications", "--session", "--template", "notification_daemon")
    command = [*COMMAND, "run", "--state", str(granted), "--endpoint", endpoint]
    with subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]) as agent:
        try:
            until(lambda: (granted / "spool").exists(), what="an agent that runs")
            time.sleep(0.5)
            assert {os.readlink(f"/proc/{agent.pid}/fd/{number}") for number in (0, 1, 2)} == {os.devnull}
        finally:
            agent.terminate()
        assert agent.wait(10) == 0


def test_export_without_stdout_says_so(spool: Path) -> None:
    refused(redirected(">&-", "export", spool), 6, "no stdout to write to, it is closed", "-o")
    done = redirected(">&-", "export", spool, "-o", "out.jsonl")
    assert (done.returncode, done.stderr) == (0, "Exported 9 rows from 3 batches (6 move, 3 key_press).\n")


def test_remarks_without_stderr_do_not_get_into_the_data(spool: Path, mcilib: Run) -> None:
    done = redirected("2>&-", "export", spool)
    assert done.returncode == 0
    assert [json.loads(line)["i"] for line in done.stdout.splitlines()] == [0, 1, 2] * 3
    assert redirected("2>&-", "status", "--config", "none.toml").stdout == ""


def test_nobody_is_asked_what_is_not_shown(here: Path) -> None:
    """A yes on a terminal that showed nothing would be no agreement."""
    master, slave = pty.openpty()
    os.write(master, b"yes\n")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "grant", "--state", "state", *TERMS], stdin=slave
    )
    os.close(master)
    os.close(slave)
    assert done.returncode == 0
    assert Grant.load("state").given_via == "unattended"


# --- full ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["config", "--example"],
        ["completion", "bash"],
        ["status", "--state", "state"],
        ["export", "state/spool"],
        ["run", "--state", "state", "--endpoint", "http://127.0.0.1:9"],
        ["run", "--state", "state", "--endpoint", "http://127.0.0.1:9", "--drain"],
    ],
    ids=" ".join,
)
def test_an_output_that_cannot_be_written(args: list[str], unbuffered: str, spool: Path) -> None:
    done = redirected(f">{FULL}", *args, env={**os.environ, "PYTHONUNBUFFERED": unbuffered})
    refused(done, 6, "The output cannot be written (No space left on device)")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_remarks_that_cannot_be_written_end_nothing(spool: Path, here: Path) -> None:
    assert redirected(f"2>{FULL}", "export", spool).returncode == 0
    assert redirected(f"2>{FULL}", "fly").returncode == 2
    assert redirected(f"2>{FULL}", "status", "--config", "none.toml").returncode == 2


def test_an_output_that_is_open_for_reading_only(spool: Path) -> None:
    refused(
        redirected("1</dev/null", "status", "--state", "state"), 6, "The output cannot be written (Bad file"
    )


# --- encoding -----------------------------------------------------------------------------------------------


@pytest.fixture
def ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")


def test_what_the_terminal_cannot_show_is_escaped(ascii_only: None, mcilib: Run) -> None:
    done = mcilib("grant", "--state", "state", *TERMS)
    assert done.returncode == 0
    assert "L\\xe4" in done.stdout
    assert "Who collects:  L\\xe4" in mcilib("status", "--state", "state").stdout
    assert Grant.load("state").operator == "Lä"


def test_json_is_json_all_the_same(ascii_only: None, mcilib: Run) -> None:
    assert json.loads(mcilib("grant", "--state", "state", *TERMS, "--json").stdout)["operator"] == "Lä"
    assert json.loads(mcilib("status", "--state", "state", "--json").stdout)["grant"]["purpose"] == "żółw"


@pytest.mark.x11
def test_the_banner_too(
    ascii_only: None, mcilib: Run, xserver: VirtualDisplay, endpoint: str,
    background: Callable[..., Background],
) -> None:  # fmt: skip
    mcilib("grant", "--state", "state", *TERMS)
    agent = background("run", "--state", "state", "--endpoint", endpoint)
    assert "for L\\xe4." in agent.line("records on this device")
    agent.line("Collecting.")
    assert agent.end().returncode == 0
    assert kinds(Path("state/spool")) == START


def test_an_error_shows_no_control_characters(mcilib: Run) -> None:
    line = refused(mcilib("status", "--config", "a\x1b[8m\nb"), 2, "a\\x1b[8m b: cannot be read")
    assert line.isprintable()
    assert refused(mcilib("fly\x1b[8m"), 2).isprintable()
