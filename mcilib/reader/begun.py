"""Actions that are under way: each gathers its rows, and becomes a record when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcilib.events import Focus, InputEvent, KeyPress, KeyRelease, Move, Press, Release, Scroll
from mcilib.format.batch import Batch
from mcilib.reader.actions import Click, Drag, KeyRun, Motion, Place, Scrolling

CLICK_PX = 4
"""A press whose pointer goes no farther than this before its release is a click, else a drag; and clicks no
farther apart than this may be one. Windows' SM_CXDRAG and SM_CXDOUBLECLK; on each axis, either way."""
CLICK_PAUSE_NS = 500_000_000
"""From press to press of a double click, at most: the default of Windows."""
SCROLL_PAUSE_NS = 500_000_000
"""A longer rest ends a scrolling."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is known when something begins."""

    batch: Batch
    index: int
    """Of the row that begins it."""
    order: int
    """Rises from one to the next: settles which of two at the same time is first."""
    place: Place | None
    """Where the pointer is, for those who care."""
    focus: Focus | None
    layout: str | None
    keys_down: tuple[str | None, ...]


class Begun:
    """What all have in common."""

    __slots__ = ("first_ns", "last_ns", "order", "rows", "scene", "synthetic")

    def __init__(self, scene: Scene, event: InputEvent) -> None:
        self.scene = scene
        self.first_ns = self.last_ns = event.t_ns
        self.order = scene.order
        self.rows = 1
        self.synthetic = event.synthetic

    def join(self, event: InputEvent) -> int:
        """One more row; returns its time from the beginning, never less than that of the row before: where
        batches meet, sources may be some milliseconds out of step."""
        self.last_ns = max(self.last_ns, event.t_ns)
        self.rows += 1
        self.say(event.synthetic)
        return self.last_ns - self.first_ns

    def say(self, synthetic: bool | None) -> None:
        if synthetic is not self.synthetic:
            self.synthetic = None

    @property
    def place(self) -> Place:
        if self.scene.place is None:
            raise ValueError("it began nowhere")
        return self.scene.place

    def common(self, duration_ns: int, whole: bool) -> dict[str, Any]:
        """The fields that every action has."""
        scene = self.scene
        header, metadata = scene.batch.header, scene.batch.metadata
        return {
            "device": header.device, "boot": metadata.boot, "seq": header.sequence, "i": scene.index,
            "rows": self.rows, "t_ns": metadata.anchor.to_wall_ns(self.first_ns),
            "monotonic_ns": self.first_ns, "duration_ns": duration_ns, "focus": scene.focus,
            "layout": scene.layout, "synthetic": self.synthetic, "whole": whole,
        }  # fmt: skip


class Path(Begun):
    """Where the pointer goes, with no button down."""

    __slots__ = ("at_ns", "x", "y")

    def __init__(self, scene: Scene, event: Move | Press) -> None:
        super().__init__(scene, event)
        self.at_ns = [0]
        self.x, self.y = [event.x], [event.y]

    def add(self, event: Move | Release) -> None:
        self.at_ns.append(self.join(event))
        self.x.append(event.x)
        self.y.append(event.y)

    def near(self, x: float, y: float) -> bool:
        """Nowhere farther from there than a click's pointer may go."""
        reach_px = (*(abs(one - x) for one in self.x), *(abs(one - y) for one in self.y))
        return max(reach_px) <= CLICK_PX

    def way(self) -> dict[str, Any]:
        return {"at_ns": tuple(self.at_ns), "x": tuple(self.x), "y": tuple(self.y)}

    def motion(self, whole: bool) -> Motion:
        return Motion(**self.common(self.at_ns[-1], whole), **self.way())


class Held(Path):
    """A button is down: where the pointer goes meanwhile."""

    __slots__ = ("button", "click", "cut")

    def __init__(self, scene: Scene, event: Press | Move, button: str, click: Clicks | None = None) -> None:
        super().__init__(scene, event)
        self.button = button
        self.click = click
        """Of which it is the next one."""
        self.cut = False
        """Its beginning or its end is not there."""

    @property
    def is_click(self) -> bool:
        return self.near(self.x[0], self.y[0])

    def drag(self, end: Place) -> Drag:
        return Drag(
            **self.common(self.at_ns[-1], not self.cut), **self.way(),
            button=self.button, begin=self.place, end=end, keys_down=self.scene.keys_down,
        )  # fmt: skip


class Clicks(Begun):
    """Clicks of one button at one place; another one may follow."""

    __slots__ = ("at_ns", "button", "held_ns", "pressed_ns", "whole")

    def __init__(self, held: Held) -> None:
        self.scene, self.order = held.scene, held.order
        self.first_ns = self.last_ns = self.pressed_ns = held.first_ns
        self.rows, self.synthetic = 0, held.synthetic
        self.button = held.button
        self.at_ns: list[int] = []
        self.held_ns: list[int | None] = []
        self.whole = True

    def add(self, held: Held, released: bool = True) -> None:
        """One more, from its press on."""
        self.pressed_ns = max(self.last_ns, held.first_ns)
        self.at_ns.append(self.pressed_ns - self.first_ns)
        self.held_ns.append(held.at_ns[-1] if released else None)
        self.last_ns = self.pressed_ns + held.at_ns[-1]
        self.rows += held.rows
        self.say(held.synthetic)
        self.whole = self.whole and not held.cut

    def goes_on(self, press: Press) -> bool:
        near = max(abs(press.x - self.place.x), abs(press.y - self.place.y)) <= CLICK_PX
        return near and press.button == self.button and press.t_ns - self.pressed_ns <= CLICK_PAUSE_NS

    def action(self) -> Click:
        return Click(
            **self.common(self.last_ns - self.first_ns, self.whole),
            button=self.button, count=len(self.at_ns), place=self.place, at_ns=tuple(self.at_ns),
            held_ns=tuple(self.held_ns), keys_down=self.scene.keys_down,
        )  # fmt: skip


class Scrolls(Begun):
    """Scroll steps."""

    __slots__ = ("count", "dx", "dy")

    def __init__(self, scene: Scene, event: Scroll) -> None:
        super().__init__(scene, event)
        self.dx, self.dy, self.count = event.dx, event.dy, event.count

    def goes_on(self, step: Scroll) -> bool:
        near = max(abs(step.x - self.place.x), abs(step.y - self.place.y)) <= CLICK_PX
        same = _sign(step.dx) == _sign(self.dx) and _sign(step.dy) == _sign(self.dy)
        return near and same and step.t_ns - self.last_ns <= SCROLL_PAUSE_NS

    def add(self, step: Scroll) -> None:
        self.join(step)
        self.dx += step.dx
        self.dy += step.dy
        self.count += step.count

    def action(self, whole: bool) -> Scrolling:
        return Scrolling(
            **self.common(self.last_ns - self.first_ns, whole),
            place=self.place, dx=self.dx, dy=self.dy, count=self.count, keys_down=self.scene.keys_down,
        )  # fmt: skip


class Keys(Begun):
    """A run of keys."""

    __slots__ = ("at_ns", "down", "held_ns", "keys", "pressed_ns")

    def __init__(self, scene: Scene, event: KeyPress) -> None:
        super().__init__(scene, event)
        self.rows = 0
        self.keys: list[str | None] = []
        self.at_ns: list[int] = []
        self.held_ns: list[int | None] = []
        self.pressed_ns = event.t_ns
        self.down = 0
        """How many of its keys are."""

    def press(self, event: KeyPress) -> KeyDown:
        self.at_ns.append(self.join(event))
        self.keys.append(event.key)
        self.held_ns.append(None)
        self.pressed_ns = self.last_ns
        self.down += 1
        return KeyDown(event.key, self, len(self.keys) - 1, self.last_ns)

    def lift(self, key: KeyDown, event: KeyRelease) -> None:
        self.held_ns[key.number] = max(0, event.t_ns - key.t_ns)
        self.join(event)
        self.down -= 1

    def action(self, whole: bool = True) -> KeyRun:
        return KeyRun(
            **self.common(self.last_ns - self.first_ns, whole),
            keys=tuple(self.keys), at_ns=tuple(self.at_ns), held_ns=tuple(self.held_ns),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class KeyDown:
    """A key that is down, and which press of which run it was."""

    key: str | None
    run: Keys
    number: int
    t_ns: int


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
