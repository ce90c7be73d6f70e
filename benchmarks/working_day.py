"""What a person does at a computer, minute by minute, and its replay into real X servers at its own pace.

Generated, the same for the same seed: somebody types for some seconds, points at 125 Hz with rests between, clicks,
scrolls, drags, and stops for a moment. Or put together from recorded traces: some seconds of pointing, some of
typing, in turn, each cut where nothing is held; pauses of over `PAUSE_S` seconds are taken out.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

import capture_cost
import traces

from mcilib.events import Event, Move, Press, Release, Scroll
from mcilib.testing.xvfb import VirtualDisplay

MS = 1_000_000
PAUSE_S, LEFT_S = 2.0, 0.5
"""What is left of a longer pause of a recording, and no generated one is longer: the minutes are active ones."""
SLICE_S = 20.0
"""Of pointing, and of typing, before the other has its turn; in a shorter time each has half of it."""
WIDTH_PX, HEIGHT_PX = traces.WIDTH, traces.HEIGHT
START = (5, 5)
"""Where `rig.steady_display` leaves the pointer."""
SYNC_EVERY = 20
"""Events after which the X server is waited for: unpaced bursts make its RECORD extension drop some."""

Act: TypeAlias = "tuple[int, str, int | str, int | bool]"
"""When (ns from the beginning), and `move` x y, `button` number down, `scroll` dx dy or `key` keysym down."""

BUTTONS = {"left": 1, "middle": 2, "right": 3, "back": 8, "forward": 9}
LETTERS = "etaoinshrdlucmfwygpbvk"
OFTEN = [len(LETTERS) - n for n in range(len(LETTERS))]


# --- generated ----------------------------------------------------------------------------------------------


class Person:
    """Makes acts, one after the other, from a random source."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._hand = WIDTH_PX / 2, HEIGHT_PX / 2
        self._now_ns = 200 * MS
        self.acts: list[Act] = []

    def work(self, seconds: float) -> list[Act]:
        """Bursts of one thing after the other, with moments of rest between."""
        doing: list[Callable[[], None]] = [self.type, self.point, self.point, self.scroll, self.drag]
        while self._now_ns < seconds * 1e9:
            self._random.choices(doing, (4, 4, 4, 2, 1))[0]()
            self._wait(min(self._random.expovariate(1 / 0.9), PAUSE_S))
        return [act for act in self.acts if act[0] < seconds * 1e9]

    def type(self) -> None:
        """Some words: two keys are often down at once, some letters are capitals, some are taken back."""
        draw = self._random
        for _ in range(draw.randrange(4, 16)):
            word = draw.choices(LETTERS, OFTEN, k=draw.randrange(2, 9))
            if draw.random() < 0.1:
                self._stroke("Shift_L", 260)
                self._wait(0.09)
            for letter in word:
                self._stroke(letter, draw.randrange(60, 130))
                self._wait(draw.lognormvariate(4.85, 0.4) / 1e3)
            if draw.random() < 0.08:
                for _ in range(draw.randrange(1, 5)):
                    self._stroke("BackSpace", 75)
                    self._wait(draw.uniform(0.12, 0.25))
            self._stroke(draw.choices(("space", "period", "comma", "Return"), (17, 1, 1, 1))[0], 80)
            self._wait(draw.lognormvariate(5.0, 0.4) / 1e3)

    def point(self) -> None:
        """To something, a rest, and mostly a click."""
        for _ in range(self._random.randrange(1, 5)):
            self._reach()
            self._wait(self._random.uniform(0.05, 0.3))
            if self._random.random() < 0.75:
                button = 1 if self._random.random() < 0.93 else 3
                for _ in range(2 if self._random.random() < 0.1 else 1):
                    self._button(button)
            self._wait(min(self._random.expovariate(1 / 0.7), PAUSE_S))

    def scroll(self) -> None:
        """A few turns of the wheel, reading between them."""
        way = self._random.choice((-1, -1, -1, 1))
        for _ in range(self._random.randrange(1, 4)):
            for _ in range(self._random.randrange(2, 10)):
                self._do("scroll", 0, way)
                self._wait(self._random.uniform(0.012, 0.06))
            self._wait(self._random.uniform(0.3, 1.5))

    def drag(self) -> None:
        self._reach()
        self._wait(0.1)
        self._do("button", 1, True)
        self._wait(0.12)
        self._reach()
        self._wait(0.1)
        self._do("button", 1, False)

    def _reach(self) -> None:
        period_s = traces.MOUSE_125_HZ.period_ns / 1e9
        for x, y in traces.reach(self._random, self._hand, period_s):
            self._wait(period_s)
            self._hand = x, y
            self._do("move", *map(round, self._hand))

    def _button(self, number: int) -> None:
        self._do("button", number, True)
        self._wait(self._random.uniform(0.05, 0.12))
        self._do("button", number, False)
        self._wait(self._random.uniform(0.05, 0.1))

    def _stroke(self, key: str, held_ms: int) -> None:
        self._do("key", key, True)
        self.acts.append((self._now_ns + held_ms * MS, "key", key, False))

    def _do(self, kind: str, first: int | str, second: int | bool) -> None:
        self.acts.append((self._now_ns, kind, first, second))

    def _wait(self, seconds: float) -> None:
        self._now_ns += int(seconds * 1e9)


# --- from recordings ----------------------------------------------------------------------------------------


def recorded(folder: Path, seconds: float) -> list[Act]:
    """From pointer_office_*.csv(.gz) and keyboard_*.csv(.gz) of a folder; those used up begin again."""
    pointers = [pointed(traces.read(file)) for file in sorted(folder.glob("pointer_office_*.csv*"))]
    keyboards = [list(typed(file)) for file in sorted(folder.glob("keyboard_*.csv*"))]
    if not pointers or not keyboards:
        raise SystemExit(f"{folder} needs pointer_office_*.csv(.gz) and keyboard_*.csv(.gz)")
    slice_s = min(SLICE_S, seconds / 2)
    sides = cycle([cycle_all(pointers, slice_s), cycle_all(keyboards, slice_s)])
    acts: list[Act] = []
    while (began_ns := acts[-1][0] if acts else 0) < seconds * 1e9:
        acts += [(t_ns + began_ns, *act) for t_ns, *act in next(next(sides))]  # type: ignore[misc]
    return [act for act in acts if act[0] < seconds * 1e9]


def cycle_all(sessions: Sequence[Sequence[Act]], slice_s: float = SLICE_S) -> Iterator[list[Act]]:
    """A slice of each session in turn, without end."""
    for session in cycle([slices(acts, slice_s) for acts in sessions]):
        yield next(session)


def slices(session: Sequence[Act], slice_s: float = SLICE_S) -> Iterator[list[Act]]:
    """Pieces of about `slice_s` seconds, each from 0 on, cut at the first moment at which nothing is held (or at twice
    that: recordings miss releases); it begins again without end."""
    piece: list[Act] = []
    held: set[int | str] = set()
    now_ns, last_ns = 0, session[0][0]
    for t_ns, kind, first, second in cycle(session):
        gone_s = (t_ns - last_ns) / 1e9
        now_ns += int((gone_s if 0 <= gone_s <= PAUSE_S else LEFT_S) * 1e9)
        last_ns = t_ns
        piece.append((now_ns, kind, first, second))
        if kind in ("button", "key"):
            (held.add if second else held.discard)(first)
        if now_ns > slice_s * 1e9 and (not held or now_ns > 2 * slice_s * 1e9):
            yield piece
            piece, now_ns = [], 0


def pointed(events: Iterable[Event]) -> list[Act]:
    acts: list[Act] = []
    for event in events:
        match event:
            case Move():
                acts.append((event.t_ns, "move", round(event.x), round(event.y)))
            case Press() | Release() if event.button in BUTTONS:
                acts.append((event.t_ns, "button", BUTTONS[event.button], isinstance(event, Press)))
            case Scroll():
                acts += [(event.t_ns, "scroll", 0, 1 if event.dy > 0 else -1)] * event.count
    return acts


def typed(file: Path) -> Iterator[Act]:
    for t_ns, down, key in capture_cost.recorded(file):
        yield t_ns, "key", capture_cost.KEYSYMS.get(key, key), down


# --- made to fit an X server --------------------------------------------------------------------------------


def clean(acts: Iterable[Act]) -> list[Act]:
    """In order of time and such that each makes one event: no move to where the pointer is, nothing pressed that is
    down (it goes up first) nor released that is up, all inside the screen; what is held at the end is released."""
    fit: list[Act] = []
    spot = START
    held: dict[tuple[str, int | str], None] = {}
    t_ns = 0
    for t_ns, kind, first, second in sorted(acts, key=lambda act: act[0]):
        if kind == "move":
            place = min(max(int(first), 0), WIDTH_PX - 1), min(max(int(second), 0), HEIGHT_PX - 1)
            if place == spot:
                continue
            spot = place
            fit.append((t_ns, kind, *place))
        elif kind == "scroll":
            fit.append((t_ns, kind, first, second))
        else:
            down = (kind, first) in held
            if down:
                del held[kind, first]
                fit.append((t_ns, kind, first, False))
            if second:
                held[kind, first] = None
                fit.append((t_ns, kind, first, True))
    return fit + [(t_ns, kind, first, False) for kind, first in held]


def counts(acts: Iterable[Act]) -> Counter[str]:
    """How many events of each kind they make."""
    seen = Counter[str]()
    for _, kind, first, second in acts:
        match kind:
            case "button":
                seen["press" if second else "release"] += 1
            case "key":
                seen["key_press" if second else "key_release"] += 1
            case "scroll":
                seen["scroll"] += abs(int(first)) + abs(int(second))
            case _:
                seen[kind] += 1
    return seen


@dataclass(frozen=True)
class Day:
    """The acts of some active minutes."""

    acts: Sequence[Act]
    source: str

    @property
    def seconds(self) -> float:
        return self.acts[-1][0] / 1e9

    def split(self, seconds: float) -> tuple[Day, Day]:
        """What is before and what is after; each from 0 on."""
        cut = next((n for n, act in enumerate(self.acts) if act[0] >= seconds * 1e9), len(self.acts))
        rest = [(t_ns - int(seconds * 1e9), *act) for t_ns, *act in self.acts[cut:]]
        return Day(self.acts[:cut], self.source), Day(rest, self.source)  # type: ignore[arg-type]

    def counts(self) -> Counter[str]:
        return counts(self.acts)


def make(seconds: float, *, seed: int, traces_in: Path | None) -> Day:
    """Generated from `seed`, or from the recordings of a folder."""
    if traces_in is not None:
        acts, source = recorded(traces_in, seconds), "recorded traces"
    else:
        acts, source = Person(seed).work(seconds), f"generated, seed {seed}"
    return Day(clean(acts), source)


# --- replayed -----------------------------------------------------------------------------------------------


def replay(day: Day, displays: Sequence[VirtualDisplay], tell: Callable[[float], None]) -> float:
    """Each act at its time into all displays, one after the other; `tell` is called every half minute or so with the
    seconds that are left. Gives how late the latest act was, in seconds."""
    codes = [
        {key: capture_cost.keycode(display, str(key)) for _, kind, key, _ in day.acts if kind == "key"}
        for display in displays
    ]
    began_s = time.monotonic()
    latest_s, told_s = 0.0, 0.0
    for number, (t_ns, kind, first, second) in enumerate(day.acts, 1):
        late_s = time.monotonic() - began_s - t_ns / 1e9
        if late_s < 0:
            time.sleep(-late_s)
        latest_s = max(latest_s, late_s)
        for display, keys in zip(displays, codes, strict=True):
            match kind:
                case "move":
                    display.move(int(first), int(second))
                case "button":
                    display.button(int(first), bool(second))
                case "scroll":
                    display.scroll(int(first), int(second))
                case _:
                    display.key(keys[first], bool(second))
            if number % SYNC_EVERY == 0:
                display.sync()
        if t_ns / 1e9 >= told_s + 30:
            told_s = t_ns / 1e9
            tell(day.seconds - told_s)
    for display in displays:
        display.sync()
    return latest_s
