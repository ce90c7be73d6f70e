"""The pointer: moves, buttons and scrolling, heard through pynput."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcilib.events import Move, Press, Release, Scroll
from mcilib.sources._listening import ListeningSource
from mcilib.sources._pynput import pointer_listener

_BUTTONS = {"x1": "back", "x2": "forward", "button8": "back", "button9": "forward"}


class PointerSource(ListeningSource):
    """Emits `Move`, `Press`, `Release` and `Scroll` (scope `pointer`).

    Coordinates are the system's pixels: whole ones on X11 and Windows, fractions on macOS. On X11
    the display that `DISPLAY` names is heard, and `t_ns` is the server's own time of the event, to 1 ms; elsewhere,
    and with a server on another machine, it is the time at which the listener was called (see `clock`).
    """

    name = "pointer"
    scope = "pointer"

    def _make_listener(self, on_heard: Callable[[], None]) -> Any:
        callbacks: dict[str, Callable[..., None]] = {
            "on_move": self._on_move,
            "on_click": self._on_click,
            "on_scroll": self._on_scroll,
        }
        return pointer_listener(callbacks, on_heard, self._server)

    def _on_move(self, x: float, y: float, injected: bool = False) -> None:
        self._emit(Move(self._now_ns(), x, y))

    def _on_click(self, x: float, y: float, button: Any, pressed: bool, injected: bool = False) -> None:
        kind = Press if pressed else Release
        self._emit(kind(self._now_ns(), x, y, _BUTTONS.get(button.name, button.name)))

    def _on_scroll(self, x: float, y: float, dx: float, dy: float, injected: bool = False) -> None:
        self._emit(Scroll(self._now_ns(), x, y, dx, dy))
