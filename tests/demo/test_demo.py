"""The real `mcilib demo`: on a virtual display, on a display that a person might sit at, and when things go wrong."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import COMMAND, Background, refused, run
from waiting import until

from mcilib.cli._demo.show import ARRIVE_S
from mcilib.cli._demo.typist import plan
from mcilib.events import Move
from mcilib.reader import Reader
from mcilib.sources.keyboard import KeyboardSource
from mcilib.sources.pointer import PointerSource
from mcilib.testing.fakes import ListSink
from mcilib.testing.xvfb import VirtualDisplay

SHORT = ("--seconds", "1s")
KINDS = {"move", "press", "release", "scroll", "key_press", "key_release"}
#: How things are, told at the start; nobody injects it.
START = {"display": 1, "layout": 1}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No display, and a place for temporary files that shows what is left."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "XDG_SESSION_TYPE", "MCILIB_STATE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def processes(text: str, of: Path | None = None) -> list[str]:
    """Command lines that hold `text`; of processes that have `of` in their environment, if it is given."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                mine = of is None or os.fsencode(of) in (entry / "environ").read_bytes()
                found += [line] if text in line and mine else []
    return found


@pytest.mark.needs("Xvfb")
def test_on_a_virtual_display_all_is_received_and_the_table_says_so(temporary: Path) -> None:
    done = run("demo", "--seconds", "3s")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    out = done.stdout
    # The grant, in full.
    assert all(
        word in out for word in ("Who collects:", "What for:", "keys:", "pointer:", "Ends:", "Kept for:")
    )
    assert "recorded, as far as the scopes above say" in " ".join(out.split())
    rows = {row[0]: row[1:] for row in map(str.split, out.splitlines()) if row}
    assert rows["events"] == ["injected", "captured", "spooled", "received", "exported"]
    for kind in KINDS:
        assert len(set(rows[kind])) == 1, (kind, rows[kind])
        assert int(rows[kind][0].replace(",", "")) > 0
    for kind in START:
        assert rows[kind] == ["-", "1", "1", "1", "1"]
    assert "The same everywhere, by kind and by batch id." in out
    assert re.search(r"Size +\d+\.\d\d bytes per event", out)
    assert re.search(r"CPU +\d+\.\d\d s while capturing", out)
    assert re.search(r"Wake-ups +[\d,]+ of the collector's threads", out)
    assert re.search(r"Keys kept as .*letter \d+.*ctrl\+", " ".join(out.split()))
    # Where the data lies is still true, and the commands that read it work as they are printed.
    (folder,) = temporary.iterdir()
    assert f"{folder}/store" in out
    commands = re.findall(r"^    (\S.* export .*)$", out, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(command, shell=True, check=True, capture_output=True)
    assert (folder / "events.parquet").stat().st_size > 0
    delete = re.findall(r"^    (rm -r .*)$", out, re.MULTILINE)
    subprocess.run(shlex.split(delete[0]), check=True)
    assert not list(temporary.iterdir()), "nothing else is left"
    assert not processes(str(folder))


@pytest.mark.needs("Xvfb")
def test_json_says_the_same_and_keep_names_the_folder(tmp_path: Path, temporary: Path) -> None:
    kept = tmp_path / "kept"
    done = run("demo", "--json", "--keep", kept, *SHORT)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["same"] is True
    assert result["differences"] == []
    assert result["virtual"] is True
    counts = result["counts"]
    assert list(counts) == ["injected", "captured", "spooled", "received", "exported"]
    assert set(counts["injected"]) <= KINDS
    told = {**counts["injected"], **START}
    assert all(counts[name] == told for name in counts if name != "injected")
    assert result["events"] == sum(told.values())
    batches = result["batches"]
    assert (
        batches["spooled"]
        == batches["received"]
        == batches["exported"]
        == sorted(Reader(kept / "store").batch_ids())
    )
    assert result["bytes_per_event"] == pytest.approx(result["batch_bytes"] / result["events"], abs=0.001)
    assert result["cpu_s"] > 0
    assert result["seconds"] < plan(1)[-1].at_s + ARRIVE_S, "it ended when all had arrived"
    assert result["wakeups"] > 0
    assert result["grant"]["given_via"] == "unattended"
    assert "Who collects:" in done.stderr, "the grant is shown here too"
    lines = (kept / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["kind"] for line in lines} <= {*KINDS, *START}
    assert not list(temporary.iterdir())


# --- when it is not the same --------------------------------------------------------------------------------

LOSES = """
import sys
from mcilib.cli import main
from mcilib.cli._demo import children, show

upload, perform = show._upload, children.Typist.perform
def lossy(spool, endpoint, grant):
    upload(spool, endpoint, grant)
    batch = sorted((spool.parent.parent / "store").rglob("*.mcib"))[0]
    if sys.argv[1] == "lost":
        batch.unlink()
    elif sys.argv[1] == "damaged":
        data = bytearray(batch.read_bytes())
        data[len(data) // 2] ^= 1
        batch.write_bytes(data)
def boasting(self, progress):
    injected = dict(perform(self, progress))
    if sys.argv[1] == "boasting":
        injected["press"] += 1
    return injected
show._upload, children.Typist.perform = lossy, boasting
sys.exit(main(["demo", *sys.argv[2:]]))
"""


@pytest.mark.needs("Xvfb")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("lost", "received"),
        ("damaged", "received"),
        ("boasting", "press: injected"),
    ],
)
def test_it_ends_with_7_when_the_store_loses_a_batch_or_an_injected_event_is_missing(
    how: str, words: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-c", LOSES, how, *SHORT, "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 7, done.stdout + done.stderr
    assert "NOT the same:" in done.stdout
    assert words in done.stdout.split("NOT the same:")[1]
    assert done.stderr.startswith("mcilib: Not the same everywhere: ")
    assert (tmp_path / "kept" / "store").exists(), "what differs is kept, to be looked at"


# --- a display that a person might sit at -------------------------------------------------------------------


@pytest.fixture
def theirs(own_xserver: VirtualDisplay) -> Iterator[tuple[VirtualDisplay, ListSink]]:
    """A display that is not the demo's own (DISPLAY names it), and everything that happens on it."""
    sink = ListSink()
    sources = [PointerSource(), KeyboardSource()]
    for source in sources:
        source.start(sink)
    yield own_xserver, sink
    for source in sources:
        source.stop()


def test_on_a_persons_display_nothing_is_injected(theirs: tuple[VirtualDisplay, ListSink]) -> None:
    display, sink = theirs
    display.move(7, 7)
    display.sync()
    until(lambda: any(isinstance(event, Move) and event.x == 7 for event in list(sink.events)))
    before = len(sink.events)
    done = run("demo", "--json", *SHORT)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["virtual"], result["display"]) == (False, display.display)
    assert result["counts"] == dict.fromkeys(("captured", "spooled", "received", "exported"), START)
    assert "nothing was typed and nothing moved" in result["notes"]
    assert "Please type and move" in done.stderr
    assert len(sink.events) == before, "the demo injected something into a display that is not its own"


def test_what_a_person_does_there_goes_all_the_way(theirs: tuple[VirtualDisplay, ListSink]) -> None:
    display, _ = theirs
    demo = Background("demo", "--seconds", "6s")
    demo.line("Please type and move")
    for n in range(60):
        display.move(100 + n, 50)
        display.tap(display.keycode("a"))
        display.sync()
        time.sleep(0.01)
    done = demo.end(None)
    rows = {row[0]: row[1:] for row in map(str.split, done.stdout.splitlines()) if row}
    assert done.returncode == 0
    assert (rows["move"], rows["key_press"]) == (["60"] * 4, ["60"] * 4)
    assert "The same everywhere" in done.stdout


def test_virtual_leaves_the_persons_display_alone(theirs: tuple[VirtualDisplay, ListSink]) -> None:
    display, sink = theirs
    before = len(sink.events)
    result = json.loads(run("demo", "--virtual", "--json", *SHORT).stdout)
    assert result["virtual"] is True
    assert result["display"] != display.display
    assert {**result["counts"]["injected"], **START} == result["counts"]["exported"]
    assert len(sink.events) == before


@pytest.mark.parametrize(("answer", "code"), [("no", 3), ("yes", 0)])
def test_a_person_at_a_terminal_is_asked_first(
    answer: str, code: int, own_xserver: VirtualDisplay, temporary: Path
) -> None:
    terminal, theirs = pty.openpty()
    demo = subprocess.Popen([*COMMAND, "demo", "--seconds", "1s"], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = _read_until(terminal, "Do you agree? Type yes:")
    assert "Who collects:" in seen
    os.write(terminal, f"{answer}\n".encode())
    seen = _read_until(terminal, None)
    assert demo.wait(20) == code, seen
    assert ("No grant was given" in seen) == (answer == "no")
    assert ("1 s left" in seen and "█" in seen) == (answer == "yes"), "the bar"
    assert len(list(temporary.iterdir())) == (answer == "yes")
    os.close(terminal)


def _read_until(terminal: int, text: str | None) -> str:
    seen, until_s = "", time.monotonic() + 30
    while time.monotonic() < until_s and (text is None or text not in seen):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # the other side has closed
                break
            seen += piece.decode(errors="replace")
    return seen


def test_a_display_that_is_not_there_leads_to_a_virtual_one(
    monkeypatch: pytest.MonkeyPatch, needs: Any
) -> None:
    needs("Xvfb")
    monkeypatch.setenv("DISPLAY", ":9876")
    done = run("demo", "--seconds", "1s", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["virtual"] is True
    assert "A virtual display is used: The display :9876 cannot be reached" in done.stderr


# --- what can go wrong --------------------------------------------------------------------------------------


@pytest.mark.needs("Xvfb")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["The demo grant", "Typing and moving"])
def test_ctrl_c_ends_it_and_leaves_nothing(number: int, when: str, temporary: Path) -> None:
    demo = Background("demo", start_new_session=True)
    demo.line(when)
    if when == "Typing and moving":
        time.sleep(0.3)
    done = demo.end(number)
    assert done.returncode == 130, done.stderr
    assert demo.seconds < 6  # the plan takes longer
    assert done.stderr == ""
    assert not list(temporary.iterdir())
    assert not processes(str(temporary)), "the receiver runs on"
    assert not processes("_demo.typist", of=temporary), "the typist runs on"
    assert not processes("Xvfb", of=temporary), "its display runs on"


def test_without_xvfb_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setenv("PATH", str(temporary / "nothing"))
    done = run("demo")
    refused(done, 4, "Xvfb", "not installed", "apt-get install xvfb")
    assert not list(temporary.iterdir())


def test_without_the_receiver_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "uvicorn.py").write_text("raise ModuleNotFoundError('no uvicorn', name='uvicorn')\n")
    there = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(blocked), *([there] if there else [])]))
    refused(run("demo"), 2, "The receiver did not start", "uvicorn", "pip install 'mcilib[receiver]'")
    assert not list(temporary.iterdir())


def test_a_folder_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    refused(run("demo", "--keep", tmp_path / "full"), 2, "is not empty", "--keep")
    refused(run("demo", "--keep", tmp_path / "full" / "file"), 6, "cannot be used", "--keep")
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_the_same_plan_each_time_with_every_kind_and_each_key_released() -> None:
    steps = plan(8)
    assert steps == plan(8)
    assert {step.kind for step in steps} == KINDS
    assert 8 <= steps[-1].at_s < 12
    held: set[object] = set()
    change: dict[str, Callable[[object], None]] = {
        "key_press": held.add, "press": held.add, "key_release": held.remove, "release": held.remove,
    }  # fmt: skip
    for step in steps:
        if step.kind in change:
            change[step.kind](step.what)
    assert not held
