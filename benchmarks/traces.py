"""Traces: recorded ones from files, and synthetic ones, the same for the same seed.

A synthetic hand moves in continuous time; what becomes of it is up to a `Mouse`: how often the device
reports, how finely it counts, and which clock stamps its reports. That, not the hand, decides most of the size.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mcilib import ReplaySource
from mcilib.errors import McilibError
from mcilib.events import Event, KeyPress, KeyRelease, Move, Press, Release, Scroll
from mcilib.privacy import key_class
from mcilib.testing.fakes import ListSink, ManualClock

MS = 1_000_000
WIDTH, HEIGHT = 1920, 1080


def name_of(path: Path) -> str:
    """`pointer_office.csv.gz` -> `pointer_office`."""
    return path.name.removesuffix(".gz").removesuffix(".csv")


def read(path: Path) -> list[Event]:
    """The events of a recorded trace; a key is its class. `McilibError` says what is wrong with the file."""
    sink = ListSink(capacity=100_000_000)
    source = ReplaySource(path, speed=None, clock=ManualClock())
    source.start(sink)
    source.wait()
    source.stop()
    if problems := source.health().problems:
        raise McilibError(problems[0].message, problems[0].next_step)
    if not sink.events:
        raise McilibError(f"The trace {path} has no rows", "Give one with events.")
    return [_no_shortcut(event) for event in sink.events]


def _no_shortcut(event: Event) -> Event:
    """A key of a recording as its class only: its other keys are random letters where it was made anonymous,
    and with one release of ctrl that was not recorded all that follows would be shortcuts with them."""
    if isinstance(event, KeyPress | KeyRelease) and event.key is not None and "+" in event.key:
        key = event.key.split("+")[-1] or "+"
        char, name = (key, None) if len(key) == 1 else (None, key)
        return replace(event, key=key_class(char, name))
    return event


# --- pointers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mouse:
    """How a hand's way becomes events."""

    period_ns: int
    """Between two reports, while the hand moves."""
    clock_ns: int
    """Step of the clock that stamps them."""
    late_ns: int
    """Mean delay from report to stamp; it varies."""
    counts_per_px: float
    """What the device can tell apart. More than one: there are reports that do not change the pixel."""


OFFICE = Mouse(period_ns=15_600_100, clock_ns=15_600_100, late_ns=0, counts_per_px=1)
"""Windows' system timer, as remote desktops show it."""
MOUSE_125_HZ = Mouse(period_ns=8 * MS, clock_ns=100, late_ns=MS // 2, counts_per_px=1.1)
MOUSE_1_KHZ = Mouse(period_ns=MS, clock_ns=1, late_ns=MS // 8, counts_per_px=4)


def pointer(seconds: float, mouse: Mouse, seed: int, rest_s: float) -> list[Event]:
    """Reaches for targets with rests of `rest_s` in the mean between them, clicks and scrolling."""
    random_ = random.Random(seed)
    events: list[Event] = []
    t_ns, hand = 1_000_000_000, (WIDTH / 2, HEIGHT / 2)
    counts, spot = (0, 0), (WIDTH // 2, HEIGHT // 2)

    def stamp() -> int:
        late_ns = random_.expovariate(1 / mouse.late_ns) if mouse.late_ns else 0
        last_ns = events[-1].t_ns if events else 0
        return max(last_ns, int((t_ns + late_ns) // mouse.clock_ns * mouse.clock_ns))

    while t_ns < seconds * 1e9:
        for place in reach(random_, hand, mouse.period_ns / 1e9):
            t_ns += mouse.period_ns
            hand, before = place, counts
            counts = round(hand[0] * mouse.counts_per_px), round(hand[1] * mouse.counts_per_px)
            if counts != before:
                spot = round(counts[0] / mouse.counts_per_px), round(counts[1] / mouse.counts_per_px)
                events.append(Move(stamp(), *spot))
        t_ns += random_.randrange(40, 200) * MS
        if random_.random() < 0.8:
            button = "left" if random_.random() < 0.9 else "right"
            for make in (Press, Release):
                events.append(make(stamp(), *spot, button))
                t_ns += random_.randrange(50, 120) * MS
        if random_.random() < 0.2:
            way = random_.choice((-1, 1))
            for _ in range(random_.randrange(2, 15)):
                t_ns += random_.randrange(12, 60) * MS
                events.append(Scroll(stamp(), *spot, 0, way))
        t_ns += int(random_.expovariate(1 / rest_s) * 1e9)  # reading, thinking
    return events


def reach(
    random_: random.Random, start: tuple[float, float], period_s: float
) -> Iterator[tuple[float, float]]:
    """A movement of the hand, every `period_s`: minimum jerk (Flash and Hogan 1985) most of the way to a
    target, then corrections, each slightly off, with a tremor of about 10 Hz."""
    x, y = start
    if random_.random() < 0.5:
        goal = random_.uniform(0, WIDTH), random_.uniform(0, HEIGHT)
    else:  # something nearby
        goal = min(max(x + random_.gauss(0, 90), 0), WIDTH), min(max(y + random_.gauss(0, 60), 0), HEIGHT)
    shake_x = shake_y = 0.0
    keep = max(0.0, 1 - 60 * period_s)  # of the tremor, from one report to the next
    push = 0.6 * (1 - keep**2) ** 0.5
    for part in (random_.uniform(0.8, 1.05), random_.uniform(0.6, 1.0), 1.0)[: random_.randrange(1, 4)]:
        to_x, to_y = x + (goal[0] - x) * part, y + (goal[1] - y) * part
        duration_s = 0.15 + random_.uniform(0.8, 1.4) * math.hypot(to_x - x, to_y - y) ** 0.5 / 60
        steps = max(2, round(duration_s / period_s))
        for n in range(1, steps + 1):
            done = n / steps
            way = done**3 * (10 - 15 * done + 6 * done**2)
            shake_x = keep * shake_x + random_.gauss(0, push)
            shake_y = keep * shake_y + random_.gauss(0, push)
            yield x + (to_x - x) * way + shake_x, y + (to_y - y) * way + shake_y
        x, y = to_x, to_y


# --- keys ---------------------------------------------------------------------------------------------------


def typing(seconds: float, seed: int) -> list[Event]:
    """Words with rollover, spaces, corrections, pauses."""
    random_ = random.Random(seed)
    events: list[Event] = []
    t_ns = 0
    while t_ns < seconds * 1e9:
        for _ in range(random_.randrange(3, 12)):
            for key in ["letter"] * random_.randrange(2, 9) + [
                random_.choices(("space", "punctuation"), (9, 1))[0]
            ]:
                events += [KeyPress(t_ns, key), KeyRelease(t_ns + random_.randrange(60, 130) * MS, key)]
                t_ns += int(random_.lognormvariate(4.8, 0.4) * MS)
            if random_.random() < 0.2:
                for _ in range(random_.randrange(1, 5)):
                    events += [KeyPress(t_ns, "editing"), KeyRelease(t_ns + 80 * MS, "editing")]
                    t_ns += random_.randrange(120, 250) * MS
        t_ns += int(random_.expovariate(1 / 4) * 1e9)
    return sorted(events, key=lambda event: event.t_ns)


def synthetic(share: float = 1.0) -> dict[str, list[Event]]:
    """Those of the headline figures, `share` of their full length (half an hour; at 1 kHz two minutes)."""
    return {
        "office, 15.6 ms clock": pointer(1800 * share, OFFICE, seed=1, rest_s=2),
        "mouse, 125 Hz": pointer(600 * share, MOUSE_125_HZ, seed=2, rest_s=1.5),
        "mouse, 1 kHz": pointer(120 * share, MOUSE_1_KHZ, seed=3, rest_s=1.5),
        "typing": typing(1800 * share, seed=4),
    }
