"""Events in a person's words, for `mcilib inspect`. Moves that follow each other are one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mcilib.cli._output import count, one_line
from mcilib.events import (
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

KIND_WORDS = {
    "move": "move", "press": "button press", "release": "button release", "scroll": "scroll", "key_press": "key press",
    "key_release": "key release", "gap": "gap", "display": "display", "layout": "keyboard layout", "focus": "window",
}  # fmt: skip
"""What a kind of event is called, as a noun that can be counted."""


def lines(events: Iterable[Event]) -> Iterator[tuple[int, str]]:
    """The events in order, each with its monotonic time (ns)."""
    began_ns, run = 0, list[Move]()
    for event in events:
        if isinstance(event, Move):
            began_ns = began_ns if run else event.t_ns
            run.append(event)
            continue
        if run:
            yield began_ns, _run_words(run)
            run = []
        yield event.t_ns, words(event)
    if run:
        yield began_ns, _run_words(run)


def _run_words(moves: list[Move]) -> str:
    return words(moves[-1]) + (f", over {count(len(moves), 'position')}" if len(moves) > 1 else "")


def words(event: Event) -> str:
    """One event."""
    match event:
        case Move():
            said = f"the pointer moves to {_place(event.x, event.y)}"
        case Press():
            said = f"{event.button} button down at {_place(event.x, event.y)}"
        case Release():
            said = f"{event.button} button up at {_place(event.x, event.y)}"
        case Scroll():
            steps = [(event.dy, "up", "down"), (event.dx, "right", "left")]
            ways = [f"{abs(n):g} {more if n > 0 else less}" for n, more, less in steps if n]
            said = f"scrolling {' and '.join(ways) or 'nowhere'} at {_place(event.x, event.y)}"
        case KeyPress():
            said = f"key down: {_key(event.key)}"
        case KeyRelease():
            said = f"key up: {_key(event.key)}"
        case Gap():
            return (
                f"nothing was seen by the source {one_line(event.source)} for {event.duration_ns / 1e9:.1f} s"
            )
        case Display():
            if not event.width:
                return f"display {event.display} has gone"
            return f"display {event.display} has {event.width} x {event.height} pixels, from {_place(event.x, event.y)}"
        case Layout():
            return f"the keyboard layout is {one_line(event.name)}"
        case Focus():
            program = one_line(event.app) if event.app is not None else "a program that is not said"
            return f"in use: {program}" + (f', "{one_line(event.title)}"' if event.title is not None else "")
    return said + (", by a program" if event.synthetic else "")


def kinds_words(kinds: dict[str, int]) -> str:
    """`12 moves, 1 key press`."""
    return (
        ", ".join(count(number, KIND_WORDS.get(kind, kind)) for kind, number in kinds.items()) or "no events"
    )


def _place(x: float, y: float) -> str:
    return f"{x:g}, {y:g}"


def _key(key: str | None) -> str:
    return one_line(key) if key is not None else "which is not kept"
