"""One device's hand on pointer and keyboard: takes rows, gives actions. Knows nothing of files."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

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
from mcilib.format.batch import Batch
from mcilib.reader.actions import Action, Break, Place
from mcilib.reader.begun import (
    CLICK_PAUSE_NS,
    SCROLL_PAUSE_NS,
    Begun,
    Clicks,
    Held,
    KeyDown,
    Keys,
    Path,
    Scene,
    Scrolls,
)

MOTION_PAUSE_NS = 500_000_000
"""A longer rest ends a motion."""
KEY_PAUSE_NS = 2_000_000_000
"""A longer rest ends a run of keys: what research on writing takes for the end of a burst."""
KEY_DOWN_MAX_NS = 10_000_000_000
"""A key that is down for longer is taken to have come up unseen."""
DOWN_MAX = 64
"""Keys, and buttons, that are down at once; of more, those that went down first are taken to be up."""
ROWS_MAX = 16_384
"""Of one action; a longer one is cut. What keeps memory constant, with the next one."""
WAITING_MAX = 4_096
"""Finished actions held back because one that began earlier still goes on; beyond it, that one comes late."""


class Hand:
    """What is under way. Takes rows in order; actions come in order of when they began."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._displays: dict[int, Display] = {}
        self._focus: Focus | None = None
        self._layout: str | None = None

        self._motion: Path | None = None
        self._held: dict[str, Held] = {}  # by button, in order of their presses
        self._click: Clicks | None = None  # the button is up again; another click may follow
        self._scroll: Scrolls | None = None
        self._keys: Keys | None = None  # takes presses
        self._typed: list[Keys] = []  # take no more, but keys of theirs are down
        self._keys_down: list[KeyDown] = []

        self._ready: list[tuple[int, int, Action | Break]] = []
        self._order = 0
        self._due_ns: int | None = None  # when something else than a motion ends by itself

    def take(self, batch: Batch) -> Iterator[Action | Break]:
        """The rows of the next batch."""
        for index, event in enumerate(batch.events):
            if type(event) is Move:
                if self._due_ns is not None and event.t_ns > self._due_ns:
                    self._expire(event.t_ns)
                self._move(batch, index, event)
            else:
                self._expire(event.t_ns)
                self._rare(batch, index, event)
                self._due_ns = min(self._dues(), default=None)
            if self._ready:
                yield from self._release()

    def end(self) -> Iterator[Action | Break]:
        """What comes next cannot be put together with what came: what is under way is cut."""
        self._cut_pointer()
        self._cut_keys()
        yield from self._release()

    # --- rows -----------------------------------------------------------------------------------------------

    def _rare(self, batch: Batch, index: int, event: Event) -> None:
        match event:
            case Press():
                self._press(batch, index, event)
            case Release():
                self._lift(event)
            case Scroll():
                self._turn(batch, index, event)
            case KeyPress():
                if self._keys is not None and self._keys.rows >= ROWS_MAX:
                    self._close_keys()
                if self._keys is None:
                    self._keys = Keys(self._scene(batch, index), event)
                self._keys_down.append(self._keys.press(event))
                if len(self._keys_down) > DOWN_MAX:
                    self._forget_key()
            case KeyRelease():
                self._key_up(event)
            case Gap():
                self._gap(batch, event)
            case Display():
                self._displays[event.display] = event  # one that has gone has no size: nothing is on it
            case Layout():
                self._close_keys()
                self._layout = event.name
            case Focus():
                if self._focus is None or self._focus.app != event.app:
                    self._close_keys()
                self._focus = event

    def _move(self, batch: Batch, index: int, event: Move) -> None:
        if self._held:
            held = next(iter(self._held.values()))
            held.add(event)
            if held.rows >= ROWS_MAX:
                self._split(held, batch, index, event)
            return
        motion = self._motion
        if motion is not None:
            if event.t_ns - motion.last_ns <= MOTION_PAUSE_NS and motion.rows < ROWS_MAX:
                motion.add(event)
                return
            self._finish_motion(whole=event.t_ns - motion.last_ns > MOTION_PAUSE_NS)
        self._motion = Path(self._scene(batch, index), event)

    def _press(self, batch: Batch, index: int, event: Press) -> None:
        self._finish_scroll()
        self._close_keys()
        click, self._click = self._click, None
        if click is not None and (self._held or not click.goes_on(event) or not self._rests_at(click)):
            self._finish(click, click.action())
            click = None
        if click is not None:
            self._absorb(click)
        self._finish_motion()
        if (before := self._held.pop(event.button, None)) is not None:  # its release is not there
            self._cut_held(before)
        if len(self._held) >= DOWN_MAX:
            self._cut_held(self._held.pop(next(iter(self._held))))
        scene = self._scene(batch, index, self._place(event.x, event.y))
        self._held[event.button] = Held(scene, event, event.button, click)

    def _lift(self, event: Release) -> None:
        held = self._held.pop(event.button, None)
        if held is None:
            return
        held.add(event)
        if not held.is_click or held.cut:
            self._finish_held(held, self._place(event.x, event.y))
            return
        self._finish_click()  # of another button
        self._click = held.click if held.click is not None else Clicks(held)
        self._click.add(held)

    def _turn(self, batch: Batch, index: int, event: Scroll) -> None:
        self._finish_click()
        self._close_keys()
        scroll = self._scroll
        if scroll is not None and scroll.goes_on(event) and self._rests_at(scroll):
            self._absorb(scroll)
            scroll.add(event)
        else:
            self._finish_scroll()
            self._finish_motion()
            self._scroll = Scrolls(self._scene(batch, index, self._place(event.x, event.y)), event)

    def _key_up(self, event: KeyRelease) -> None:
        for number, down in enumerate(self._keys_down):
            if down.key == event.key:
                down.run.lift(down, event)
                del self._keys_down[number]
                self._finish_typed()
                return

    def _gap(self, batch: Batch, event: Gap) -> None:
        if event.source == "window":
            self._focus = None
        elif event.source == "display":
            self._displays.clear()
        if event.source not in ("keyboard", "window", "display"):
            self._cut_pointer()
        if event.source not in ("pointer", "window", "display"):
            self._cut_keys()
        cut = Break(
            device=self.device,
            boot=batch.metadata.boot,
            seq=batch.header.sequence,
            cause="gap",
            t_ns=batch.metadata.anchor.to_wall_ns(event.t_ns),
            monotonic_ns=event.t_ns,
            duration_ns=event.duration_ns,
            source=event.source,
        )
        heapq.heappush(self._ready, (event.t_ns, self._next_order(), cut))

    # --- ends -----------------------------------------------------------------------------------------------

    def _dues(self) -> Iterator[int]:
        if self._click is not None:
            yield self._click.pressed_ns + CLICK_PAUSE_NS
        if self._scroll is not None:
            yield self._scroll.last_ns + SCROLL_PAUSE_NS
        if self._keys is not None:
            yield self._keys.pressed_ns + KEY_PAUSE_NS
        if self._keys_down:
            yield self._keys_down[0].t_ns + KEY_DOWN_MAX_NS

    def _expire(self, t_ns: int) -> None:
        """Ends what nothing that happens from `t_ns` on can belong to."""
        if self._motion is not None and t_ns - self._motion.last_ns > MOTION_PAUSE_NS:
            self._finish_motion()
        if self._click is not None and t_ns - self._click.pressed_ns > CLICK_PAUSE_NS:
            self._finish_click()
        if self._scroll is not None and t_ns - self._scroll.last_ns > SCROLL_PAUSE_NS:
            self._finish_scroll()
        if self._keys is not None and t_ns - self._keys.pressed_ns > KEY_PAUSE_NS:
            self._close_keys()
        while self._keys_down and t_ns - self._keys_down[0].t_ns > KEY_DOWN_MAX_NS:
            self._forget_key()
        self._finish_typed()
        self._due_ns = min(self._dues(), default=None)

    def _forget_key(self) -> None:
        self._keys_down.pop(0).run.down -= 1

    def _finish(self, begun: Begun, action: Action) -> None:
        heapq.heappush(self._ready, (begun.first_ns, begun.order, action))

    def _finish_motion(self, whole: bool = True) -> None:
        if (motion := self._motion) is not None:
            self._finish(motion, motion.motion(whole))
            self._motion = None

    def _finish_click(self) -> None:
        if (click := self._click) is not None:
            self._finish(click, click.action())
            self._click = None

    def _finish_scroll(self, whole: bool = True) -> None:
        if (scroll := self._scroll) is not None:
            self._finish(scroll, scroll.action(whole))
            self._scroll = None

    def _finish_held(self, held: Held, end: Place, released: bool = True) -> None:
        """A drag, or a click that is cut."""
        if held.click is not None:  # the clicks before it stand for themselves
            self._finish(held.click, held.click.action())
        if not held.is_click:
            self._finish(held, held.drag(end))
            return
        click = Clicks(held)
        click.add(held, released)
        self._finish(click, click.action())

    def _close_keys(self) -> None:
        """The run takes no more presses; it ends when its keys are up."""
        if self._keys is not None:
            self._typed.append(self._keys)
            self._keys = None
            self._finish_typed()

    def _finish_typed(self) -> None:
        for run in self._typed:
            if not run.down:
                self._finish(run, run.action())
        self._typed = [run for run in self._typed if run.down]

    def _cut_pointer(self) -> None:
        self._finish_click()
        self._finish_motion(whole=False)
        self._finish_scroll(whole=False)
        for held in self._held.values():
            self._cut_held(held)
        self._held.clear()

    def _cut_held(self, held: Held) -> None:
        held.cut = True
        self._finish_held(held, self._place(held.x[-1], held.y[-1]), released=False)

    def _cut_keys(self) -> None:
        for run in (*self._typed, *([self._keys] if self._keys is not None else [])):
            self._finish(run, run.action(whole=False))
        self._keys = None
        self._typed.clear()
        self._keys_down.clear()

    def _split(self, held: Held, batch: Batch, index: int, event: Move) -> None:
        """What is too long for one action goes on as another one, from here."""
        self._cut_held(held)
        rest = Held(self._scene(batch, index, self._place(event.x, event.y)), event, held.button)
        rest.cut, rest.rows = True, 0  # this row is counted already
        self._held[held.button] = rest  # in its old place

    def _release(self) -> Iterator[Action | Break]:
        """Those before which nothing that is under way began."""
        under_way: list[Begun | None] = [self._motion, self._click, self._scroll, self._keys, *self._typed]
        for held in self._held.values():
            under_way += (held, held.click)
        first = min(((one.first_ns, one.order) for one in under_way if one is not None), default=None)
        ready = self._ready
        while ready and (first is None or ready[0][:2] < first or len(ready) > WAITING_MAX):
            yield heapq.heappop(ready)[2]

    # --- what is known --------------------------------------------------------------------------------------

    def _scene(self, batch: Batch, index: int, place: Place | None = None) -> Scene:
        keys_down = tuple(down.key for down in self._keys_down)
        return Scene(batch, index, self._next_order(), place, self._focus, self._layout, keys_down)

    def _next_order(self) -> int:
        self._order += 1
        return self._order

    def _place(self, x: float, y: float) -> Place:
        """With the display and the focused window that the point is in."""
        on = [d for d in self._displays.values() if _inside(x, y, d.x, d.y, d.width, d.height)]
        window = self._focus
        if window is None or not _inside(x, y, window.x, window.y, window.width, window.height):
            window = None
        return Place(x, y, min(on, key=lambda display: display.display, default=None), window)

    def _rests_at(self, begun: Begun) -> bool:
        """The pointer has stayed where that is."""
        return self._motion is None or self._motion.near(begun.place.x, begun.place.y)

    def _absorb(self, begun: Begun) -> None:
        """Moves while it rests are no motion of their own."""
        if self._motion is not None:
            begun.rows += self._motion.rows
            begun.say(self._motion.synthetic)
            self._motion = None


def _inside(
    x: float, y: float, left: int | None, top: int | None, width: int | None, height: int | None
) -> bool:
    if left is None or top is None or width is None or height is None:
        return False
    return left <= x < left + width and top <= y < top + height
