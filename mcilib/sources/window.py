"""The window in use: which program it belongs to, where it is, and, only if asked for, its title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.events import Focus
from mcilib.format.metadata import NAME_MAX_BYTES
from mcilib.format.rows import TITLE_MAX_BYTES
from mcilib.sources._x11 import x_error
from mcilib.sources._xreader import XSource, is_news
from mcilib.sources._xrecord import PROPERTY_CHANGES, PROPERTY_NOTIFY, Told
from mcilib.statistics import Health, Problem

_DESTROY_NOTIFY, _UNMAP_NOTIFY, _CONFIGURE_NOTIFY = 17, 18, 22
_STRUCTURE_CHANGES = 1 << 17
_STRING = 31  # the type of a property in Latin-1
_ACTIVE, _MANAGER = "_NET_ACTIVE_WINDOW", "_NET_SUPPORTING_WM_CHECK"
_NAME, _OLD_NAME, _CLASS = "_NET_WM_NAME", "WM_NAME", "WM_CLASS"
_PROPERTIES = (_ACTIVE, _MANAGER, _NAME, _OLD_NAME, _CLASS)
_INTERVAL_NS = int(limits.WINDOW_INTERVAL_S * 1e9)


class WindowSource(XSource):
    """Emits `Focus` at the start, when another window comes into use, and when that one moves. X11 only.

    The window manager says which window that is (`_NET_ACTIVE_WINDOW`); without one nothing is known, which `health`
    says, nor after one has died until its successor says something. `app` is the class of the window (`WM_CLASS`), such
    as `firefox`. With `titles` its title is told too, at
    most 512 bytes in UTF-8, and when it changes; it is asked for in no other case. Scope `apps`, with `titles` scope
    `titles`. Changes of the window in use are told at most once a second; another window at once, with the time at
    which the X server heard of it. Nothing is read while nothing changes.
    """

    name = "window"

    def __init__(
        self,
        *,
        titles: bool = False,
        read_interval_s: float = limits.READ_INTERVAL_S,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock, read_interval_s=read_interval_s)
        self.titles = titles
        self._control: Any = None
        self._atoms: dict[str, int] = {}
        self._root: Any = None
        self._window: Any = None
        self._manager: Any = None
        self._is_managed = False
        self._is_left_behind = False
        """Whether what the root window names is the word of a window manager that is gone."""
        self._told: Focus | None = None
        self._looked_ns = 0
        self._changed_ns: int | None = None
        """When the window in use changed, as long as that is not told."""

    @property
    def scope(self) -> str:  # type: ignore[override]  # it depends on what is asked for
        """`titles` or `apps`."""
        return "titles" if self.titles else "apps"

    def health(self) -> Health:
        health = super().health()
        if self._reading and health.ok and self._control is not None and not self._is_managed:
            message = "No window manager says which window is in use"
            return Health((Problem(self.name, message, "Start one, or leave the window source out."),))
        return health

    def _begin(self, control: Any, out: Told) -> None:
        self._atoms = {name: control.intern_atom(name) for name in _PROPERTIES}
        self._control, self._told, self._changed_ns = control, None, None
        self._root = control.screen().root
        self._root.change_attributes(event_mask=PROPERTY_CHANGES)
        self._window = self._manager = control.create_resource_object("window", 0)
        self._active()
        self._is_left_behind = not self._is_managed
        self._look(self._moment_ns(), out)

    def _take_notices(self, notices: Sequence[Any], unread: bool, out: Told) -> int | None:
        now_ns = self._moment_ns()
        look_ns: int | None = None
        for notice in notices:
            if notice.type == PROPERTY_NOTIFY:
                t_ns = self._reader.server.at(notice.time, now_ns)
                if notice.atom in (self._atoms[_ACTIVE], self._atoms[_MANAGER]):
                    look_ns = t_ns  # of the last one: what is found now was not so before it
                    self._is_left_behind &= notice.atom != self._atoms[_ACTIVE]
                elif notice.window.id == self._window.id and notice.atom in (
                    self._atoms[_NAME],
                    self._atoms[_OLD_NAME],
                ):  # asked for with titles only
                    self._changed_ns = t_ns
            elif notice.type == _CONFIGURE_NOTIFY and notice.window.id == self._window.id:
                self._changed_ns = now_ns
            elif notice.type in (_DESTROY_NOTIFY, _UNMAP_NOTIFY):
                look_ns = look_ns or now_ns
                self._is_left_behind |= (
                    notice.type == _DESTROY_NOTIFY and notice.window.id == self._manager.id
                )
        if look_ns is not None:
            self._look(look_ns, out)
        if self._changed_ns is None:
            return None
        due_ns = self._looked_ns + _INTERVAL_NS
        if now_ns < due_ns:
            return due_ns
        self._look(self._changed_ns, out)
        return None

    def _look(self, t_ns: int, out: Told) -> None:
        """Tells of the window in use, unless nothing has changed since it was told."""
        number = self._active()
        if self._window.id != number:
            if self._changed_ns is not None and (last := self._focus(self._changed_ns)) is not None:
                self._tell(last, out)
            self._watch(number)
        self._changed_ns, self._looked_ns = None, self._moment_ns()
        self._tell(self._focus(t_ns) or Focus(t_ns, None), out)

    def _tell(self, focus: Focus, out: Told) -> None:
        if is_news(focus, self._told):
            out.append(focus)
            self._told = focus

    def _active(self) -> int:
        """The window in use; 0 when there is none, or no window manager lives that would say so."""
        manager = self._number(self._root, _MANAGER)
        if manager != self._manager.id:
            self._manager = self._control.create_resource_object("window", manager)
        if manager:  # each time: a successor may well be given the number of one that died
            self._manager.change_attributes(event_mask=_STRUCTURE_CHANGES | PROPERTY_CHANGES)
        # The root window still names one that was killed; its own window does not.
        named = self._number(self._manager, _MANAGER) if manager not in (0, self._root.id) else None
        self._is_managed = named == manager
        if self._is_left_behind or not self._is_managed:
            return 0
        number = self._number(self._root, _ACTIVE)
        return number if number not in (self._root.id, manager) else 0

    def _watch(self, number: int) -> None:
        """This window from now on, and no other."""
        if self._window.id:
            self._window.change_attributes(event_mask=0)
        self._window = self._control.create_resource_object("window", number)
        if number:
            mask = _STRUCTURE_CHANGES | (PROPERTY_CHANGES if self.titles else 0)
            self._window.change_attributes(event_mask=mask)

    def _focus(self, t_ns: int) -> Focus | None:
        """What the window says of itself. None: there is none, or it is gone."""
        if not self._window.id:
            return None
        try:
            size = self._window.get_geometry()
            at = self._window.translate_coords(
                self._root, 0, 0
            )  # from the root to it: the signs are the other way
        except x_error():
            return None
        name = self._text(self._window, _CLASS)
        names = name[0].split(b"\0") if name is not None else []
        app = _shown(names[1], "latin-1", NAME_MAX_BYTES) if len(names) > 1 else None
        title = self._title() if self.titles else None
        return Focus(t_ns, app, title, -at.x, -at.y, size.width, size.height)

    def _title(self) -> str | None:
        for name in (_NAME, _OLD_NAME):
            if (value := self._text(self._window, name)) is not None and value[0]:
                encoding = "latin-1" if value[1] == _STRING else "utf-8"
                return _shown(value[0], encoding, TITLE_MAX_BYTES)
        return None

    def _text(self, window: Any, name: str) -> tuple[bytes, int] | None:
        """A property of bytes, and its type."""
        found = self._property(window, name)
        return (bytes(found.value), found.property_type) if found is not None and found.format == 8 else None

    def _number(self, window: Any, name: str) -> int:
        """A property that is a window; 0 when it is none."""
        found = self._property(window, name)
        return int(found.value[0]) if found is not None and found.value else 0

    def _property(self, window: Any, name: str) -> Any:
        """At most 4 kB of it; None when there is none, or no such window any more."""
        try:
            return window.get_property(self._atoms[name], 0, 0, 1024)
        except x_error():
            return None


def _shown(raw: bytes, encoding: str, max_bytes: int) -> str | None:
    """As text without control characters, cut to what a batch may hold; None when nothing is left."""
    text = "".join(c if c.isprintable() else " " for c in raw.decode(encoding, "replace"))
    return text.encode()[:max_bytes].decode(errors="ignore").strip() or None
