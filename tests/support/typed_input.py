"""Input injected into a real X server, together with what it must come out as."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mcilib.errors import DisplayError
from mcilib.events import Event, Gap, KeyPress, KeyRelease, Layout, Move, Press, Release, Scroll
from mcilib.testing.xvfb import VirtualDisplay

#: What an event says, without its time.
Said = tuple[object, ...]

_KEYS = (
    ("a", "letter"),
    ("5", "digit"),
    ("comma", "punctuation"),
    ("Return", "enter"),
    ("Left", "navigation"),
)


def inject(x: VirtualDisplay, rounds: int, *, start: int = 0) -> list[Said]:
    """`rounds` of a move, a click, two scroll steps and a key; what each must be recorded as, in order.

    Paced: after each round the server has carried it out.
    """
    expected: list[Said] = []
    for n in range(start, start + rounds):
        at = (101 + n % 900, 77 + n % 600)
        button, name = ((1, "left"), (3, "right"))[n % 2]
        keysym, cls = _KEYS[n % len(_KEYS)]
        x.move(*at)
        x.click(button)
        x.scroll(dy=2 if n % 2 else -2)
        x.tap(x.keycode(keysym))
        x.sync()
        expected += [("move", *at), ("press", *at, name), ("release", *at, name)]
        expected += [("scroll", *at, 0, 2 if n % 2 else -2, 2), ("key_press", cls), ("key_release", cls)]
        time.sleep(0.02)
    return expected


def said(event: Event) -> Said:
    """The same of an event that was read back."""
    match event:
        case Move():
            return event.kind, event.x, event.y
        case Press() | Release():
            return event.kind, event.x, event.y, event.button
        case Scroll():
            return event.kind, event.x, event.y, event.dx, event.dy, event.count
        case KeyPress() | KeyRelease():
            return event.kind, event.key
        case Gap():
            return event.kind, event.source
        case Layout():
            return event.kind, event.name
    raise TypeError(f"{event.kind} is nothing that is typed")


def of_pointer(events: list[Said]) -> list[Said]:
    """Pointer events, scroll steps of one place folded: a key in between may have split their row."""
    folded: list[Said] = []
    for event in events:
        if event[0] not in ("move", "press", "release", "scroll"):
            continue
        before = folded[-1] if folded else ()
        if event[0] == "scroll" and before[:3] == event[:3]:
            sums = [int(str(a)) + int(str(b)) for a, b in zip(before[3:], event[3:], strict=True)]
            folded[-1] = (*event[:3], *sums)
        else:
            folded.append(event)
    return folded


def of_keys(events: list[Said]) -> list[Said]:
    return [event for event in events if event[0] in ("key_press", "key_release")]


@contextmanager
def somebody_works(x: VirtualDisplay) -> Iterator[None]:
    """Somebody moves, clicks and types all the while."""
    done = threading.Event()

    def work() -> None:
        n = 0
        with suppress(DisplayError):
            while not done.is_set():
                inject(x, 1, start=n)
                n += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
