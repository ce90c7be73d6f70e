"""The keyboard: when keys go down and up and of which class they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.events import KeyPress, KeyRelease, Layout
from mcilib.privacy import KeyDetail, key_label
from mcilib.protocols import EventSink
from mcilib.sources._input import InputSource
from mcilib.sources._pynput import keyboard_listener
from mcilib.sources._xkeys import RULES, Key, KeyReader, read_layout_names
from mcilib.sources._xrecord import KEY_PRESS, KEY_RELEASE, PROPERTY_CHANGES, PROPERTY_NOTIFY, Told


class KeyboardSource(InputSource):
    """Emits `KeyPress` and `KeyRelease`, and on X11 `Layout` at the start and when it changes (scope `keys`).

    `detail` says how much of a key is kept; it is applied before a record exists, so that what must not be
    kept is never held. At `KeyDetail.NONE` nothing is emitted and no hook is set. A release carries what its
    press said, also when the modifiers have changed in between. Times, `backend` and `read_interval_s` as in
    `PointerSource`. A key whose meaning changed between the press and its reading is told as `other`. What an input
    method makes of keys is not seen.
    """

    name = "keyboard"
    scope = "keys"

    def __init__(
        self,
        *,
        detail: KeyDetail = KeyDetail.CLASS,
        backend: str = "auto",
        read_interval_s: float = limits.READ_INTERVAL_S,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock, backend=backend, read_interval_s=read_interval_s)
        self.detail = KeyDetail(detail)
        self._down: dict[int, str | None] = {}
        self._code_point = False  # ctrl+shift+u was pressed and both are still held
        self._layout: str | None = None
        self._keys = KeyReader()
        self._control: Any = None
        self._rules = 0

    def start(self, sink: EventSink) -> None:
        self._down.clear()
        self._code_point, self._layout = False, None
        if self.detail is not KeyDetail.NONE:
            super().start(sink)

    def _wanted(self) -> Sequence[tuple[int, int]]:
        return [(KEY_PRESS, KEY_RELEASE)]

    def _begin(self, control: Any, out: Told) -> None:
        self._control, self._rules, self._layout = control, control.intern_atom(RULES), None
        control.screen().root.change_attributes(event_mask=PROPERTY_CHANGES)
        control.sync()  # or a change that comes before it, and after the next line, would not be told
        self._keys.begin()
        out += self._layout_events(self._moment_ns(), self._keys.layout)

    def _take_notices(self, notices: Sequence[Any], unread: bool, out: Told) -> int | None:
        changed = self._keys.changed(notices, unread=unread)
        # The mapping comes first, and may be read before it has its name.
        renamed = any(notice.type == PROPERTY_NOTIFY and notice.atom == self._rules for notice in notices)
        if renamed:
            self._keys.rename(read_layout_names(self._control))
        if changed or renamed:
            out += self._layout_events(self._moment_ns(), self._keys.layout)
        return None

    def _read(self, kind: int, detail: int, t_ns: int, x: int, y: int, state: int) -> Told:
        return self._key_events(t_ns, detail, kind == KEY_PRESS, self._keys.look_up(detail, state))

    def _make_listener(self, on_heard: Callable[[], None]) -> Any:
        def on_key(code: int, down: bool, key: Key) -> None:
            for event in self._key_events(self._now_ns(), code, down, key):
                self._emit(event)

        return keyboard_listener(on_key, on_heard, self._server)

    def _key_events(self, t_ns: int, code: int, down: bool, key: Key) -> Told:
        """The layout if it is another one, and the key."""
        if down:
            self._down[code] = label = self._label(key)
        elif code in self._down:
            label = self._down.pop(code)
        else:  # it was down before listening began, with whatever modifiers: its class only
            label = key_label(self.detail, key.char, key.name)
        events = self._layout_events(t_ns, key.layout)
        events.append((KeyPress if down else KeyRelease)(t_ns, label))
        return events

    def _layout_events(self, t_ns: int, name: str | None) -> Told:
        if name is None or name == self._layout:
            return []
        self._layout = name
        return [Layout(t_ns, name)]

    def _label(self, key: Key) -> str | None:
        """The one shortcut that types: after ctrl+shift+u input methods take a code point while both are held,
        so what follows is kept as classes."""
        self._code_point = self._code_point and key.ctrl and key.shift
        if self._code_point:
            return key_label(self.detail, key.char, key.name)
        label = key_label(
            self.detail, key.char, key.name,
            ctrl=key.ctrl, alt=key.alt, shift=key.shift, cmd=key.cmd, level3=key.level3,
        )  # fmt: skip
        self._code_point = label == "ctrl+shift+u"
        return label
