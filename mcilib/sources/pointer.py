"""The pointer: moves, buttons and scrolling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.events import Event, Move, Press, Release, Scroll
from mcilib.sources._input import InputSource
from mcilib.sources._pynput import narrow, pointer_listener
from mcilib.sources._xrecord import BUTTON_PRESS, BUTTON_RELEASE, MOTION

_X11_BUTTONS = {1: "left", 2: "middle", 3: "right", 8: "back", 9: "forward"}
_SCROLLS = {4: (0, 1), 5: (0, -1), 6: (-1, 0), 7: (1, 0)}
_BUTTONS = {"x1": "back", "x2": "forward", "button8": "back", "button9": "forward"}


class PointerSource(InputSource):
    """Emits `Move`, `Press`, `Release` and `Scroll` (scope `pointer`).

    Coordinates are the system's pixels: whole ones on X11 and Windows, fractions on macOS. On X11
    the display that `DISPLAY` names is heard, and `t_ns` is the server's own time of the event, to 1 ms; of a
    server with another clock than ours, to some 2 ms and the way to it. Elsewhere it is the system's own time where
    there is one, else that of the call (see `clock`).

    `backend`: on X11 `xrecord` (what `auto` takes) reads in bulk every `read_interval_s` seconds; `pynput` reads each
    event as it comes, and is the only one elsewhere. Both tell the same. Without `motion` the system is asked for no
    moves at all, where it can be: a moving pointer then costs nothing, and clicks and scrolls still say where.
    """

    name = "pointer"
    scope = "pointer"

    def __init__(
        self,
        *,
        backend: str = "auto",
        read_interval_s: float = limits.READ_INTERVAL_S,
        motion: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock, backend=backend, read_interval_s=read_interval_s)
        self._motion = motion
        self._listener: Any = None  # pynput's

    @property
    def motion(self) -> bool:
        """Whether moves are told; may be changed while it runs, without losing a click."""
        return self._motion

    @motion.setter
    def motion(self, wanted: bool) -> None:
        self._motion = wanted
        self._reader.deliver()
        if self._listener is not None:
            narrow(
                self._listener, wanted
            )  # where it cannot be, and while moves are on their way, `_on_move` drops them

    def _wanted(self) -> Sequence[tuple[int, int]]:
        return [(BUTTON_PRESS, MOTION if self._motion else BUTTON_RELEASE)]

    def _read(self, kind: int, detail: int, t_ns: int, x: int, y: int, state: int) -> Event | None:
        if kind == MOTION:
            return Move(t_ns, x, y)
        if detail not in _SCROLLS:
            name = _X11_BUTTONS.get(detail, f"button{detail}")
            return (Press if kind == BUTTON_PRESS else Release)(t_ns, x, y, name)
        return Scroll(t_ns, x, y, *_SCROLLS[detail]) if kind == BUTTON_PRESS else None

    def _make_listener(self, on_heard: Callable[[], None]) -> Any:
        callbacks: dict[str, Callable[..., None]] = {
            "on_move": self._on_move,
            "on_click": self._on_click,
            "on_scroll": self._on_scroll,
        }
        self._listener = pointer_listener(callbacks, on_heard, self._server, motion=self._motion)
        return self._listener

    def _on_move(self, x: float, y: float, injected: bool = False) -> None:
        if self._motion:
            self._emit(Move(self._now_ns(), x, y))

    def _on_click(self, x: float, y: float, button: Any, pressed: bool, injected: bool = False) -> None:
        kind = Press if pressed else Release
        self._emit(kind(self._now_ns(), x, y, _BUTTONS.get(button.name, button.name)))

    def _on_scroll(self, x: float, y: float, dx: float, dy: float, injected: bool = False) -> None:
        self._emit(Scroll(self._now_ns(), x, y, dx, dy))
