"""What can be wrong with grant, display, endpoint and spool: one line, the right exit code, nothing lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Background, Receiver, Run, record, refused
from waiting import until

from mcilib.delivery.spool import DirectorySpool
from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

NOBODY = "http://127.0.0.1:9"  # the discard port: nothing listens


def waiting(state: Path) -> int:
    return DirectorySpool.read_statistics(state / "spool").waiting_batches


# --- grant --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drain", [[], ["--drain"]])
def test_no_grant(drain: list[str], here: Path, mcilib: Run) -> None:
    refused(
        mcilib("run", "--state", "state", "--endpoint", NOBODY, *drain),
        3,
        "There is no grant in state",
        "`mcilib grant`",
    )
    assert not (here / "state").exists()


@pytest.mark.parametrize(
    ("text", "drain"), [("", []), ("{", ["--drain"]), ('{"participant": 1}', []), ('{"zzz": 1}', [])]
)
def test_an_unreadable_grant(text: str, drain: list[str], granted: Path, mcilib: Run) -> None:
    record(granted)
    (granted / "grant.json").write_text(text)
    refused(
        mcilib("run", "--state", granted, "--endpoint", NOBODY, *drain), 3, str(granted), "`mcilib grant`"
    )
    assert waiting(granted) == 1


@pytest.mark.parametrize("drain", [[], ["--drain"]])
def test_an_expired_grant(
    drain: list[str], granted: Path, mcilib: Run, receiver: Callable[..., Receiver]
) -> None:
    record(granted)
    example_grant(expires_in=timedelta(seconds=-1)).save(granted)
    target = receiver()
    refused(mcilib("run", "--state", granted, "--endpoint", target.url, *drain), 3, "The grant expired at")
    assert (waiting(granted), target.batches) == (1, 0)


def test_a_source_that_the_grant_does_not_cover(here: Path, mcilib: Run) -> None:
    example_grant("pointer").save("state")
    done = mcilib("run", "--state", "state", "--endpoint", NOBODY, "--sources", "pointer,keyboard")
    refused(done, 3, "The grant covers pointer, which does not allow to capture the keyboard", "--sources")


# --- display ------------------------------------------------------------------------------------------------


@pytest.fixture
def run_here(granted: Path, mcilib: Run, endpoint: str) -> Callable[..., str]:
    """`mcilib run` with a display that is named by `env`; gives the one line of its refusal."""

    def run(*words: str, **env: str) -> str:
        import os

        done = mcilib("run", "--state", granted, "--endpoint", endpoint, env={**os.environ, **env})
        return refused(done, 4, *words)

    return run


def test_no_display(run_here: Callable[..., str]) -> None:
    run_here("There is no display (DISPLAY is not set)", "xvfb-run")


@pytest.mark.parametrize("name", [":4242", "nonsense"])
def test_a_display_that_is_not_there(name: str, run_here: Callable[..., str]) -> None:
    run_here(f"The display {name} cannot be reached", "DISPLAY", DISPLAY=name)


@pytest.mark.x11
def test_a_dead_display(own_xserver: VirtualDisplay, run_here: Callable[..., str]) -> None:
    own_xserver.kill()
    run_here("cannot be reached")


@pytest.mark.x11
def test_a_frozen_display(own_xserver: VirtualDisplay, run_here: Callable[..., str]) -> None:
    own_xserver.freeze()
    run_here(f"The display {own_xserver.display} does not answer", "mcilib doctor")


def test_wayland_without_an_x_server(run_here: Callable[..., str]) -> None:
    run_here("Wayland", "X11 session", WAYLAND_DISPLAY="wayland-0", XDG_SESSION_TYPE="wayland")


@pytest.fixture
def xwayland(here: Path, tmp_path: Path) -> Iterator[str]:
    """A real Xwayland on a real Wayland compositor without a screen."""
    for tool in ("weston", "Xwayland"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    import os

    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    weston = ["weston", "--backend=headless-backend.so", "--socket=way", "--idle-time=0", "--no-config"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(weston, env=env, **quiet) as compositor:  # type: ignore[call-overload]
        try:
            until((runtime / "way").exists, 20, "the compositor's socket")
            command = ["Xwayland", "-displayfd", "1", "-rootless"]
            env["WAYLAND_DISPLAY"] = "way"
            with subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            ) as server:
                try:
                    assert server.stdout is not None
                    yield f":{int(server.stdout.readline())}"
                finally:
                    server.send_signal(signal.SIGKILL)
        finally:
            compositor.send_signal(signal.SIGKILL)


def test_wayland_with_xwayland(xwayland: str, run_here: Callable[..., str]) -> None:
    run_here("This is a Wayland session", "X11 session", DISPLAY=xwayland)


# --- endpoint -----------------------------------------------------------------------------------------------


def never_works(mcilib: Run, state: Path, endpoint: str, *args: str | Path, words: str) -> None:
    """Refused by `run` before anything is captured, and by `run --drain`; what waits still waits."""
    record(state)
    line = refused(mcilib("run", "--state", state, "--endpoint", endpoint, *args), 5, words)
    assert "secret" not in line
    refused(mcilib("run", "--state", state, "--endpoint", endpoint, *args, "--drain"), 5, words)
    assert DirectorySpool.read_statistics(state / "spool").committed_batches == 1
    assert waiting(state) == 1


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://192.0.2.1:8750", "plain HTTP"),
        ("127.0.0.1:8750", "not an https address"),
        ("https://me:secret@example.org", "a user name or password"),
    ],
)
def test_an_address_that_can_never_work(endpoint: str, words: str, granted: Path, mcilib: Run) -> None:
    never_works(mcilib, granted, endpoint, words=words)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>Welcome to the hotel</html>", "like a web page, not like an mcilib receiver"),
        (302, b"", "not like an mcilib receiver"),
        (404, b"", "no mcilib receiver at this address"),
        (410, b"", "the programme has ended"),
    ],
)
def test_not_our_server(
    status: int, body: bytes, words: str, granted: Path, mcilib: Run, web: Callable[[int, bytes], str]
) -> None:
    never_works(mcilib, granted, web(status, body), words=words)


def test_a_wrong_certificate(
    granted: Path, mcilib: Run, tls: dict[str, Path], here: Path, receiver: Any
) -> None:
    (here / "token").write_text("t")
    target = receiver("--tls-cert", tls["cert"], "--tls-key", tls["key"])
    never_works(mcilib, granted, target.url, words="certificate of")
    never_works_again = mcilib(
        "run", "--state", granted, "--endpoint", target.url, "--ca-file", tls["cert"], "--drain"
    )
    refused(never_works_again, 5, "certificate of")


@pytest.mark.parametrize(
    ("file", "words"), [("none.pem", "cannot be read"), ("empty.pem", "holds no certificate")]
)
def test_a_ca_file_that_is_none(file: str, words: str, granted: Path, mcilib: Run, here: Path) -> None:
    (here / "empty.pem").write_text("")
    never_works(mcilib, granted, "https://localhost:9", "--ca-file", file, words=words)


@pytest.mark.parametrize("token", [[], ["--token-file", "wrong"]])
def test_a_token_that_is_not_accepted(
    token: list[str], granted: Path, mcilib: Run, here: Path, receiver: Callable[..., Receiver]
) -> None:
    (here / "right").write_text("right")
    (here / "wrong").write_text("wrong")
    never_works(
        mcilib, granted, receiver("--token-file", "right").url, *token, words="does not accept the token"
    )


@pytest.mark.parametrize("content", ["", "\n", "two words", "zażółć"])
def test_a_token_file_without_a_token(content: str, granted: Path, mcilib: Run, here: Path) -> None:
    (here / "token").write_text(content, encoding="utf-8")
    done = mcilib("run", "--state", granted, "--endpoint", NOBODY, "--token-file", "token")
    line = refused(done, 2, "token", "first line")
    assert "two words" not in line


@pytest.mark.x11
def test_an_endpoint_that_is_down_is_a_warning_and_nothing_is_lost(
    xserver: VirtualDisplay, granted: Path, background: Callable[..., Background], mcilib: Run
) -> None:
    agent = background("run", "--state", granted, "--endpoint", NOBODY)
    agent.line("Collecting.")
    xserver.click()
    xserver.sync()
    time.sleep(0.1)
    done = agent.end()
    why = "connection refused by 127.0.0.1:9"
    warning = f"mcilib: {NOBODY} cannot be reached now ({why}). Batches wait on this device.\n"
    assert (done.returncode, done.stderr) == (0, warning)
    assert waiting(granted) == 1
    refused(
        mcilib("run", "--state", granted, "--endpoint", NOBODY, "--drain"),
        5, "1 batch still on this device: connection refused by 127.0.0.1:9. Nothing is lost",
    )  # fmt: skip
    assert waiting(granted) == 1


@pytest.mark.x11
def test_a_busy_endpoint_is_a_warning(
    xserver: VirtualDisplay, granted: Path, mcilib: Run, web: Callable[[int, bytes], str]
) -> None:
    done = mcilib("run", "--state", granted, "--endpoint", web(503, b""), "--for", "1s")
    assert done.returncode == 0
    assert "cannot be reached now (" in done.stderr
    assert "503" in done.stderr


# --- spool --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drain", [[], ["--drain"]])
def test_a_spool_folder_that_is_not_one(drain: list[str], granted: Path, mcilib: Run, endpoint: str) -> None:
    (granted / "spool").write_text("")
    done = mcilib("run", "--state", granted, "--endpoint", endpoint, *drain)
    refused(done, 6, "spool", "--state")


@pytest.mark.x11
def test_a_spool_that_stops_being_writable_is_told_and_what_is_lost_is_counted(
    xserver: VirtualDisplay,
    granted: Path,
    background: Callable[..., Background],
    endpoint: str,
) -> None:
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting.")
    shutil.rmtree(granted / "spool" / "tmp")
    (granted / "spool" / "tmp").write_text("")
    xserver.click()
    xserver.sync()
    time.sleep(0.1)
    done = agent.end()
    assert done.returncode == 6
    assert "not writable" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mcilib: 4 events could not be written and are lost.")


@pytest.mark.parametrize("left", [0, 20])
def test_a_damaged_batch_in_the_spool_does_not_stop_the_others(
    left: int, granted: Path, mcilib: Run, receiver: Callable[..., Receiver]
) -> None:
    record(granted, 3)
    victim = sorted((granted / "spool" / "ready").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:left])
    target = receiver()
    done = mcilib("run", "--state", granted, "--endpoint", target.url, "--drain")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Delivered 2 batches." in done.stdout
    assert "Lost 1 batch; `mcilib status` tells why." in done.stdout
    assert "1 batch damaged on this disk" in mcilib("status", "--state", granted).stdout
    assert target.batches == 2


def test_drain_with_nothing_waiting_is_done(granted: Path, mcilib: Run) -> None:
    done = mcilib("run", "--state", granted, "--endpoint", NOBODY, "--drain")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Delivered 0 batches." in done.stdout
