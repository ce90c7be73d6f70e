"""The keyboard: when keys go down and up and of which class they are, heard through pynput."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcilib.clock import Clock
from mcilib.events import KeyPress, KeyRelease
from mcilib.privacy import KeyDetail, key_label
from mcilib.protocols import EventSink
from mcilib.sources._listening import ListeningSource
from mcilib.sources._pynput import keyboard_listener
from mcilib.sources._xkeys import Key


class KeyboardSource(ListeningSource):
    """Emits `KeyPress` and `KeyRelease` (scope `keys`).

    `detail` says how much of a key is kept; it is applied before a record exists, so that what must not be
    kept is never held. At `KeyDetail.NONE` nothing is emitted and no hook is set. A release carries what its
    press said, also when the modifiers have changed in between. Times as in `PointerSource`.
    """

    name = "keyboard"
    scope = "keys"

    def __init__(self, *, detail: KeyDetail = KeyDetail.CLASS, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.detail = KeyDetail(detail)
        self._down: dict[int, str | None] = {}
        self._code_point = False  # ctrl+shift+u was pressed and both are still held

    def start(self, sink: EventSink) -> None:
        self._down.clear()
        self._code_point = False
        if self.detail is not KeyDetail.NONE:
            super().start(sink)

    def _make_listener(self, on_heard: Callable[[], None]) -> Any:
        return keyboard_listener(self._on_key, on_heard, self._server)

    def _on_key(self, code: int, down: bool, key: Key) -> None:
        t_ns = self._now_ns()
        if down:
            self._down[code] = label = self._label(key)
            self._emit(KeyPress(t_ns, label))
        elif code in self._down:
            self._emit(KeyRelease(t_ns, self._down.pop(code)))
        else:  # it was down before listening began, with whatever modifiers: its class only
            self._emit(KeyRelease(t_ns, key_label(self.detail, key.char, key.name)))

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
