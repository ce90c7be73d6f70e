"""`mcilib run` on a real display with a real receiver: what it says and what each option does."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buses import Logind
from commands import (
    INPUT,
    START,
    Background,
    Receiver,
    Run,
    input_on,
    kinds,
    record,
    refused,
    summary,
)
from ports import free_port
from waiting import until
from xwindows import Manager

from mcilib.events import Focus, Layout
from mcilib.reader import Reader
from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

Start = Callable[..., Background]
pytestmark = pytest.mark.x11


# --- visible ------------------------------------------------------------------------------------------------


def test_it_says_who_collects_what_where_to_and_how_to_stop(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, endpoint: str
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint, "--upload-every", "15m")
    agent.line("Collecting.")
    said = summary(agent.seen)
    assert agent.seen.startswith("mcilib ")
    assert "records on this device for Example Lab." in agent.seen
    assert said["For"] == "tests"
    assert "What:        display, pointer (where the pointer moves" in agent.seen
    assert "What:        keyboard (when keys go down" in agent.seen
    assert said["Where to"] == f"{endpoint}, every 15m"
    assert said["Until then"] == str(granted)
    assert said["To stop"].startswith(f"press Ctrl-C here, or end process {agent.process.pid}.")
    assert "Unattended" not in agent.seen
    input_on(xserver)
    done = agent.end()
    said = summary(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert said["Captured"] == (
        "16 events (10 move, 1 press, 1 release, 1 key_press, 1 key_release, 1 display, 1 layout)"
    )
    assert said["Committed"] == "1 batch"
    assert said["Delivered"] == "0 batches"
    assert said["Waiting"] == "1 batch. Upload with `mcilib run --drain`."


def test_an_unattended_grant_is_said_first(
    xserver: VirtualDisplay, here: Path, background: Start, endpoint: str
) -> None:
    example_grant(given_via="unattended").save("state")
    agent = background("run", "--state", "state", "--endpoint", endpoint)
    agent.line("Collecting.")
    assert agent.seen.startswith("Unattended: nobody was asked on this device.")


@pytest.mark.needs("ps")
def test_its_process_has_its_own_name(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, endpoint: str
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting.")
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(agent.process.pid)], capture_output=True, text=True, check=True
    ).stdout
    assert "mcilib run" in shown


def test_a_status_line_on_a_terminal_and_none_elsewhere(
    xserver: VirtualDisplay, here: Path, granted: Path, endpoint: str
) -> None:
    # The minute is shortened for the test: a terminal gets the line and a pipe does not.
    code = "import sys; from mcilib import cli; from mcilib.cli import _agent; _agent.STATUS_EVERY_S = 0.3"
    command = [sys.executable, "-P", "-c", f"{code}; sys.exit(cli.main())"]
    command += ["run", "--endpoint", endpoint, "--state"]
    example_grant().save(here / "other")
    piped = subprocess.Popen([*command, "other"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert piped.stdout is not None
    while "Collecting" not in (said := piped.stdout.readline()):
        assert said
    line = rb"0 min: 2 events captured, 0 batches waiting\.\r"
    master, slave = pty.openpty()
    with subprocess.Popen([*command, str(granted)], stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen = b""
        while len(re.findall(line, seen)) < 2:
            seen += os.read(master, 4096)
        process.terminate()
    os.close(master)
    piped.terminate()
    said, _ = piped.communicate(timeout=30)
    assert (process.returncode, piped.returncode) == (0, 0)
    assert "events captured, 0" not in said


def test_the_status_line_says_that_nothing_is_collected_while_the_session_is_locked(
    xserver: VirtualDisplay, logind: Logind, granted: Path, endpoint: str
) -> None:
    mine = logind.add("7")
    logind.own(mine)
    logind.lock(mine)
    code = "import sys; from mcilib import cli; from mcilib.cli import _agent; _agent.STATUS_EVERY_S = 0.2"
    command = [sys.executable, "-P", "-c", f"{code}; sys.exit(cli.main())"]
    command += ["run", "--endpoint", endpoint, "--for", "30s", "--state", str(granted)]
    master, slave = pty.openpty()
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    locked, back = (
        rb"0 events captured, 0 batches waiting\. Nothing is collected: the session is locked\.",
        False,
    )
    while not re.search(rb"[1-9]\d* events captured, \d+ batch(es)? waiting\.\r", seen):
        seen += os.read(master, 4096)
        if not back and re.search(locked, seen):
            back = True
            logind.lock(mine, False)
    process.terminate()
    process.wait(20)
    os.close(master)
    assert back


# --- options, on real input ---------------------------------------------------------------------------------


def test_sources_are_what_was_asked_for(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, endpoint: str
) -> None:
    agent = background(
        "run", "--state", granted, "--endpoint", endpoint, "--sources", "keyboard", "--key-detail", "timing"
    )
    agent.line("Collecting.")
    input_on(xserver)
    agent.end()
    assert kinds(granted / "spool") == {"layout": 1, "key_press": 1, "key_release": 1}
    keys = [event.key for event in Reader(granted / "spool").events() if not isinstance(event, Layout)]
    assert keys == [None, None]


@pytest.mark.parametrize(
    ("scope", "wanted"),
    [
        ("pointer", {"display", "move", "press", "release"}),
        ("keys", {"layout", "key_press", "key_release"}),
        ("apps", {"focus"}),
    ],
)
def test_sources_are_what_the_grant_covers_unless_asked(
    scope: str, wanted: set[str], xserver: VirtualDisplay, here: Path, background: Start, endpoint: str
) -> None:
    example_grant(scope).save("state")
    agent = background("run", "--state", "state", "--endpoint", endpoint)
    agent.line("Collecting.")
    input_on(xserver)
    agent.end()
    assert set(kinds(here / "state" / "spool")) == wanted


@pytest.mark.parametrize(
    ("scopes", "args", "title"),
    [
        (["apps"], [], None),
        (["apps", "titles"], [], None),
        (["apps", "titles"], ["--window-detail", "title"], "A letter to Zoë"),
    ],
)
def test_a_title_is_kept_only_where_it_is_granted_and_asked_for(
    scopes: list[str], args: list[str], title: str | None, own_xserver: VirtualDisplay, here: Path,
    background: Start, endpoint: str,
) -> None:  # fmt: skip
    example_grant(*scopes).save("state")
    manager = Manager()
    manager.use(manager.open("Editor", "A letter to Zoë", at=(30, 40, 300, 200)))
    agent = background("run", "--state", "state", "--endpoint", endpoint, *args)
    agent.line("Collecting.")
    done = agent.end()
    manager.retire()
    assert (done.returncode, done.stderr) == (0, "")
    assert ("and the title of that window" in done.stdout) == (title is not None)
    [focus] = Reader(here / "state" / "spool").events()
    assert focus == Focus(focus.t_ns, "Editor", title, 30, 40, 300, 200)


def test_commit_every_and_upload_every_while_it_runs(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    agent = background(
        *("run", "--state", granted, "--endpoint", target.url),
        *("--commit-every", "1s", "--upload-every", "1s"),
    )
    agent.line("Collecting.")
    input_on(xserver)
    until(lambda: kinds(target.store) == INPUT, 20, "an upload")  # in one batch, or in two
    assert agent.end().returncode == 0
    assert kinds(target.store) == INPUT


def test_token_and_ca_file_on_real_tls(
    xserver: VirtualDisplay, here: Path, granted: Path, mcilib: Run, tls: dict[str, Path], receiver: Any
) -> None:
    (here / "token").write_text("s3cret\n")
    target = receiver("--token-file", "token", "--tls-cert", tls["cert"], "--tls-key", tls["key"])
    url = target.url.replace("127.0.0.1", "localhost")
    good = ["run", "--state", granted, "--endpoint", url, "--token-file", "token", "--ca-file", tls["ca"]]
    done = mcilib(*good, "--for", "1s")
    assert (done.returncode, done.stderr) == (0, "")
    assert kinds(target.store) == START
    record(granted)
    done = mcilib(*good, "--drain")
    assert (done.returncode, target.batches) == (0, 2)


# --- the plan -----------------------------------------------------------------------------------------------


def test_what_the_plan_keeps_back_waits_at_the_end_too(
    xserver: VirtualDisplay, here: Path, granted: Path, mcilib: Run, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    flags = ["--state", granted, "--endpoint", target.url]
    said = summary(mcilib("run", *flags, "--for", "1s", "--quiet-hours", "00:00-24:00").stdout)
    assert (said["Delivered"], said["Waiting"][:23]) == ("0 batches", "1 batch (quiet hours). ")
    assert mcilib("run", *flags, "--drain").returncode == 0
    assert target.batches == 1


def test_status_tells_the_plan_of_an_agent_that_runs(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, mcilib: Run, endpoint: str
) -> None:
    (here / "agent.toml").write_text('[adapt]\nrules = ["not locked: motion endpoints, age 2m"]\n')
    agent = background("run", "--state", granted, "--endpoint", endpoint, "--config", "agent.toml")
    agent.line("Collecting.")

    def shown() -> str:
        return str(mcilib("status", "--state", granted).stdout)

    until(
        lambda: "of the pointer only where it rests, a batch every 2m" in shown(), what="the plan in status"
    )
    assert "Because:" in shown()
    told = json.loads(mcilib("status", "--state", granted, "--json").stdout)["plan"]
    assert told["levers"] == {"motion": "endpoints", "batch_age_s": 120.0}
    assert told["reasons"] == ["not locked: motion endpoints, age 2m"]
    agent.end()
    assert "Plan:" not in shown(), "nobody follows it now"


def test_the_token_is_read_again_for_each_request(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, mcilib: Run,
    receiver: Callable[..., Receiver],
) -> None:  # fmt: skip
    (here / "token").write_text("first")
    port = free_port()
    target = receiver("--token-file", "token", port=port)
    agent = background("run", "--state", granted, "--endpoint", target.url, "--token-file", "token")
    agent.line("Collecting")
    assert mcilib("flush", "--state", granted).returncode == 0
    target.command.end()
    (here / "token").write_text("second")
    again = receiver("--token-file", "token", port=port)
    input_on(xserver)
    assert mcilib("flush", "--state", granted).returncode == 0
    assert agent.end().returncode == 0
    assert kinds(again.store) == INPUT


def test_the_file_is_used_and_flags_win(
    xserver: VirtualDisplay, here: Path, background: Start, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    example_grant().save(here / "conf" / "st")
    (here / "conf" / "agent.toml").write_text(
        '[agent]\nstate = "st"\nsources = ["pointer"]\n[batch]\nmax_events = 4\n'
        f'[upload]\nendpoint = "{target.url}"\ninterval_s = 7\n'
    )
    agent = background("run", "--config", "conf/agent.toml", "--upload-every", "20m")
    agent.line("Collecting.")
    assert "every 20m" in agent.seen
    input_on(xserver)
    agent.end()
    assert sorted(len(batch.events) for batch in Reader(here / "conf" / "st" / "spool").batches()) == [
        4,
        4,
        4,
    ]


def test_killed_and_started_again_nothing_that_was_committed_is_lost(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, receiver: Callable[..., Receiver]
) -> None:
    target = receiver()
    agent = background("run", "--state", granted, "--endpoint", target.url, "--commit-every", "1s")
    agent.line("Collecting.")
    input_on(xserver)
    until(lambda: kinds(granted / "spool") == INPUT, 20)
    agent.kill()
    done = background("run", "--state", granted, "--endpoint", target.url, "--drain").end(None)
    assert done.returncode == 0
    assert kinds(target.store) == INPUT


def test_a_second_agent_on_the_same_folder_is_refused(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, mcilib: Run, endpoint: str
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting.")
    refused(mcilib("run", "--state", granted, "--endpoint", endpoint), 6, "Another mcilib agent runs")
    refused(
        mcilib("run", "--state", granted, "--endpoint", endpoint, "--drain"), 6, "Another mcilib agent runs"
    )
    assert agent.end().returncode == 0


def test_ignored_signals_stay_ignored(
    xserver: VirtualDisplay, here: Path, granted: Path, background: Start, endpoint: str
) -> None:
    agent = background(
        *("run", "--state", granted, "--endpoint", endpoint),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # as nohup does
    )
    agent.line("Collecting.")
    agent.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert agent.process.poll() is None
    assert agent.end().returncode == 0
