"""The displays: where each one is, how large, how it is turned. Without them the place of a click means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.events import Display
from mcilib.format.rows import DISPLAY_MAX
from mcilib.sources._x11 import x_error
from mcilib.sources._xreader import XSource, is_news
from mcilib.sources._xrecord import Told

_CLOCKWISE = {0x1: 0, 0x2: 270, 0x4: 180, 0x8: 90}
"""RandR counts counter-clockwise; its other bits are reflections."""
_CHANGES = 0x1 | 0x2 | 0x4
"""Of the screen, of what drives a display, of what is plugged in."""


class DisplaySource(XSource):
    """Emits a `Display` for each display at the start, and for each that changed (scope `pointer`). X11 only.

    A display is a CRTC of RandR that is on; they are counted as the server lists them. Place and size are in the pixels
    of event positions. `scale` differs from 1 only under a transform of RandR: what desktops call scaling is done by
    the programs. `t_ns` is the time at which a change was told, within milliseconds. Nothing is read while nothing
    changes. `read_interval_s` is there for those that it reads with.
    """

    name = "display"
    scope = "pointer"

    def __init__(
        self, *, read_interval_s: float = limits.READ_INTERVAL_S, clock: Clock | None = None
    ) -> None:
        super().__init__(clock, read_interval_s=read_interval_s)
        self._known: dict[int, Display] = {}
        self._control: Any = None
        self._event = 0

    def _begin(self, control: Any, out: Told) -> None:
        from Xlib.ext import randr

        self._known, self._control, self._event = {}, control, 0
        extension = control.query_extension("RANDR")
        if extension is not None:
            self._event = extension.first_event
            randr.select_input(control.screen().root, _CHANGES)
        self._look(out)

    def _take_notices(self, notices: Sequence[Any], unread: bool, out: Told) -> int | None:
        if self._event and any(notice.type - self._event in (0, 1) for notice in notices):
            self._look(out)
        return None

    def _look(self, out: Told) -> None:
        now_ns = self._moment_ns()
        displays = _displays(self._control, now_ns) if self._event else []
        found = {display.display: display for display in displays or [_screen(self._control, now_ns)]}
        for number in sorted({*found, *self._known}):
            now = found.get(number, Display(now_ns, number, 0, 0, 0, 0))
            if is_news(now, self._known.get(number)):
                out.append(now)
        self._known = found


def _displays(control: Any, now_ns: int) -> list[Display]:
    from Xlib.ext import randr

    root = control.screen().root
    resources = randr.get_screen_resources_current(root)
    modes = {mode["id"]: (mode["width"], mode["height"]) for mode in resources.modes}
    found = []
    for number, crtc in enumerate(resources.crtcs[: DISPLAY_MAX + 1]):
        try:
            info = randr.get_crtc_info(control, crtc, resources.config_timestamp)
        except x_error():  # it has just gone, of which there will be a notice
            continue
        if not (info.mode and info.width and info.height):
            continue
        rotation = _CLOCKWISE.get(info.rotation & 0xF, 0)
        across, down = modes.get(info.mode, (info.width, info.height))
        scale = (across if rotation in (0, 180) else down) / info.width
        found.append(Display(now_ns, number, info.x, info.y, info.width, info.height, scale, rotation))
    return found


def _screen(control: Any, now_ns: int) -> Display:
    """All of it, for a server that lists no displays."""
    root = control.screen().root.get_geometry()
    return Display(now_ns, 0, 0, 0, root.width, root.height)
