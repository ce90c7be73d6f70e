"""`mcilib inspect`: what waits, in words and as JSON; sealed batches with the participant's key; nothing is changed."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from commands import Run, refused
from left_batches import KEYS, MOVES, contents, leave, waiting

from mcilib.cli import _event_words as event_words
from mcilib.events import (
    EVENT_TYPES,
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    KeyRelease,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
)
from mcilib.format.seal import generate

WORDS: list[tuple[Event, str]] = [
    (Move(0, 10, 20.5), "the pointer moves to 10, 20.5"),
    (Press(0, 1, 2, "left"), "left button down at 1, 2"),
    (Press(0, 1, 2, "left", synthetic=True), "left button down at 1, 2, by a program"),
    (Release(0, 1, 2, "middle", synthetic=False), "middle button up at 1, 2"),
    (Scroll(0, 1, 2, 0, 3), "scrolling 3 up at 1, 2"),
    (Scroll(0, 1, 2, -1, -2), "scrolling 2 down and 1 left at 1, 2"),
    (KeyPress(0, "letter"), "key down: letter"),
    (KeyRelease(0, "ctrl+c"), "key up: ctrl+c"),
    (KeyPress(0, None), "key down: which is not kept"),
    (Gap(0, 3_000_000_000, "pointer"), "nothing was seen by the source pointer for 3.0 s"),
    (Display(0, 0, 0, 0, 1280, 800), "display 0 has 1280 x 800 pixels, from 0, 0"),
    (Display(0, 1, 0, 0, 0, 0), "display 1 has gone"),
    (Layout(0, "de"), "the keyboard layout is de"),
    (Focus(0, "xterm"), "in use: xterm"),
    (Focus(0, "xterm", "a \x1b[8m title"), 'in use: xterm, "a \\x1b[8m title"'),
    (Focus(0, None), "in use: a program that is not said"),
]


@pytest.mark.parametrize(("event", "words"), WORDS, ids=lambda value: getattr(value, "kind", ""))
def test_each_event_in_words(event: Event, words: str) -> None:
    assert event_words.words(event) == words


def test_every_kind_has_words() -> None:
    assert {event.kind for event, _ in WORDS} == set(EVENT_TYPES) == set(event_words.KIND_WORDS)


def test_moves_that_follow_each_other_are_one_line() -> None:
    events: list[Event] = [Move(1, 0, 0), Move(2, 5, 5), KeyPress(3, "letter"), Move(4, 7, 7)]
    assert list(event_words.lines(events)) == [
        (1, "the pointer moves to 5, 5, over 2 positions"), (3, "key down: letter"), (4, "the pointer moves to 7, 7"),
    ]  # fmt: skip


def test_the_list_says_when_what_and_how_large(mcilib: Run, granted: Path) -> None:
    first, second = leave(granted, 3_600, events=MOVES), leave(granted)
    before = contents(granted)
    done = mcilib("inspect", "--state", granted)
    assert done.returncode == 0
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["batch", "from", "to", "bytes", "sealed", "what"]
    assert [line.split()[0] for line in lines] == [first, second]
    assert lines[0].endswith("no      2 moves")
    assert lines[1].endswith("no      2 moves, 1 key press")
    began = datetime.fromisoformat(" ".join(lines[0].split()[1:3]))
    assert abs(time.time() - 3_600 - began.timestamp()) < 60
    assert done.stderr.startswith("2 batches on this device, ")
    told = json.loads(mcilib("inspect", "--state", granted, "--json").stdout)
    assert told["running"] is False
    assert [one["batch"] for one in told["batches"]] == [first, second]
    assert told["batches"][1]["kinds"] == {"move": 2, "key_press": 1}
    assert told["batches"][1]["bytes"] == Path(told["batches"][1]["file"]).stat().st_size
    assert contents(granted) == before, "looking changes nothing"


def test_nothing_waits(mcilib: Run, granted: Path) -> None:
    done = mcilib("inspect", "--state", granted)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No batch waits on this device.\n")


def test_one_batch_in_words(mcilib: Run, granted: Path) -> None:
    batch = leave(granted)
    before = contents(granted)
    done = mcilib("inspect", batch[:7], "--state", granted)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Batch {batch}, " in done.stdout
    shown = [line.split("  ", 1)[1] for line in done.stdout.splitlines() if "  " in line]
    assert shown == [
        "the pointer moves to 10, 20", "key down: letter", "the pointer moves to 30, 40",
    ]  # fmt: skip
    told = json.loads(mcilib("inspect", batch, "--state", granted, "--json").stdout)
    assert [event["kind"] for event in told["events"]] == ["move", "key_press", "move"]
    assert contents(granted) == before


def test_a_batch_that_is_not_there(mcilib: Run, granted: Path) -> None:
    batch = leave(granted)
    refused(mcilib("inspect", "zz", "--state", granted), 6, "No batch that waits here has the id 'zz'")
    leave(granted)
    refused(mcilib("inspect", "", "--state", granted), 6, "the id ''")
    assert batch in waiting(granted)


def test_a_sealed_batch_needs_the_participants_key(mcilib: Run, granted: Path, here: Path) -> None:
    (_, operators), (mine, my_public) = generate(), generate()
    (here / "my.key").write_text(f"{mine}\n")
    batch = leave(granted, recipients=[operators, my_public])
    done = mcilib("inspect", "--state", granted)
    assert done.returncode == 0
    line = done.stdout.splitlines()[1]
    assert line.endswith("yes     needs a key that opens it")
    assert "?" not in line, "the journal knows when"
    assert "1 batch sealed: only who has a key" in done.stderr
    assert "--identity" in done.stderr
    refused(mcilib("inspect", batch, "--state", granted), 8, "is sealed", "your own key with --identity")
    opened = mcilib("inspect", "--identity", "my.key", "--state", granted)
    assert opened.stdout.splitlines()[1].endswith("yes     2 moves, 1 key press")
    assert "key down: letter" in mcilib("inspect", batch, "--identity", "my.key", "--state", granted).stdout
    refused(mcilib("inspect", "--identity", "none.key", "--state", granted), 8, "none.key cannot be read")
    assert mine not in opened.stdout + opened.stderr


def test_a_key_that_does_not_fit(mcilib: Run, granted: Path, here: Path) -> None:
    (_, operators), (mine, _) = generate(), generate()
    (here / "my.key").write_text(f"{mine}\n")
    batch = leave(granted, recipients=[operators])
    done = mcilib("inspect", batch, "--identity", "my.key", "--state", granted)
    assert done.returncode == 8
    told: Any = json.loads(
        mcilib("inspect", batch, "--identity", "my.key", "--state", granted, "--json").stdout
    )
    assert told["kinds"] is None
    assert told["problem"]


def test_a_damaged_batch_is_named(mcilib: Run, granted: Path) -> None:
    leave(granted, events=KEYS)
    bad = leave(granted, events=MOVES)
    (file,) = (granted / "spool" / "ready").glob(f"*{bad}*")
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(bytes(data))
    done = mcilib("inspect", "--state", granted)
    assert done.returncode == 7
    assert "1 key press" in done.stdout
