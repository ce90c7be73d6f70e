"""The keyboard: when keys go down and up and of which class they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.events import KeyPress, KeyRelease
from mcilib.privacy import KeyDetail, key_label
from mcilib.protocols import EventSink
from mcilib.sources._listening import ListeningSource
from mcilib.sources._pynput import keyboard_listener
from mcilib.sources._xkeys import Key
from mcilib.sources._xrecord import KEY_PRESS, KEY_RELEASE, KeyReader, XRecordListener


class KeyboardSource(ListeningSource):
    """Emits `KeyPress` and `KeyRelease` (scope `keys`).

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

    def start(self, sink: EventSink) -> None:
        self._down.clear()
        self._code_point = False
        if self.detail is not KeyDetail.NONE:
            super().start(sink)

    def _make_listener(self, on_heard: Callable[[], None]) -> Any:
        if self._backend == "xrecord":
            keys = KeyReader()
            return XRecordListener(
                (KEY_PRESS, KEY_RELEASE),
                lambda kind, code, t_ns, _x, _y, state: self._on_key(
                    t_ns, code, kind == KEY_PRESS, keys.look_up(code, state)
                ),
                on_heard,
                self._server,
                lambda: self._read_interval_s,
                keys,
            )
        return keyboard_listener(
            lambda code, down, key: self._on_key(self._now_ns(), code, down, key), on_heard, self._server
        )

    def _on_key(self, t_ns: int, code: int, down: bool, key: Key) -> None:
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
