"""pynput, and the only module that knows it: its listeners, guarded.

What pynput does and this guards against: a callback that raises or returns False ends the listener; a
listener cannot be restarted; `wait()`, `join()` and the import itself hang on a display that does not answer;
on X11 `stop()` leaves the thread until the next event, a lost connection ends it in silence, and keys are read
with a mapping that is never refreshed; on macOS a missing permission looks like silence.

Windows and macOS take the same path without the X11 parts: not yet run on hardware.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mcilib.sources._x11 import ServerClock, check_display, close, ignore_errors, on_x11, shut
from mcilib.sources._xkeys import Key, Keymap, read_keymap
from mcilib.sources._xrecord import XRecordListener

_log = logging.getLogger("mcilib")

OnKey: TypeAlias = Callable[[int, bool, Key], None]
"""(which physical key, went down?, what it is)"""


def pointer_listener(
    callbacks: Mapping[str, Callable[..., None]], on_heard: Callable[[], None], server: ServerClock
) -> Any:
    """An unstarted `pynput.mouse.Listener` with `on_move`, `on_click`, `on_scroll` from `callbacks`.

    On X11 `server` is told the time of each event before its callback is called.
    """
    if on_x11():
        check_display()
    from pynput.mouse import Listener

    return _hearing(Listener, on_heard, server)(**{name: _guarded(f) for name, f in callbacks.items()})


def keyboard_listener(
    on_key: OnKey, on_heard: Callable[[], None], server: ServerClock, *, x11_keys: bool = True
) -> Any:
    """An unstarted `pynput.keyboard.Listener` that tells each key to `on_key`, and on X11 its time to `server`.

    On X11 keys are looked up in the server's own map; `x11_keys=False` uses pynput's reading there too, as
    on the other systems.
    """
    if on_x11():
        check_display()
    from pynput.keyboard import Listener

    base = _hearing(Listener, on_heard, server)
    if x11_keys and on_x11() and hasattr(Listener, "_handle_message"):
        return _x11_keys(base, _guarded(on_key), server)()
    portable = _PortableKeys(on_key)
    return base(on_press=_guarded(portable.press), on_release=_guarded(portable.release))


def _hearing(listener: Any, on_heard: Callable[[], None], server: ServerClock) -> Any:
    """A subclass that says when input is heard: on X11 when RECORD starts, elsewhere when pynput is ready."""

    class Hearing(listener):  # type: ignore[misc]
        if on_x11() and hasattr(listener, "_handler") and hasattr(listener, "_handle_message"):

            def _handler(self, reply: Any) -> None:
                if reply.category == 4:  # StartOfData, from Xlib.ext.record
                    server.compare(reply.server_time)
                    ignore_errors(self._display_stop)
                    on_heard()
                else:
                    super()._handler(reply)

            def _handle_message(self, display: Any, event: Any, injected: bool) -> None:
                server.stamp(event.time)
                super()._handle_message(display, event, injected)

        else:

            def _mark_ready(self) -> None:
                super()._mark_ready()
                on_heard()

    return Hearing


def _x11_keys(listener: Any, on_key: Callable[..., None], server: ServerClock) -> Any:
    """Looks keys up in a map read from the server, again whenever the server says that it changed."""

    class X11Keys(listener):  # type: ignore[misc]
        _keymap: Keymap | None = None

        def _initialize(self, display: Any) -> None:
            self._keymap = read_keymap()

        def _handle_message(self, display: Any, event: Any, injected: bool) -> None:
            changed = False
            while display.pending_events():  # only MappingNotify comes unasked
                changed = display.next_event().type == 34 or changed
            if changed or self._keymap is None:
                self._keymap = read_keymap()
            server.stamp(event.time)
            on_key(event.detail, event.type == 2, self._keymap.look_up(event.detail, event.state))

    return X11Keys


class _PortableKeys:
    """pynput's own reading of keys, with the modifiers held told by their presses and releases."""

    def __init__(self, on_key: OnKey) -> None:
        self._on_key = on_key
        self._held: set[str] = set()

    def press(self, key: Any, injected: bool = False) -> None:
        self._tell(key, True)

    def release(self, key: Any, injected: bool = False) -> None:
        self._tell(key, False)

    def _tell(self, key: Any, down: bool) -> None:
        named = getattr(key, "name", None)
        name = named.removesuffix("_l").removesuffix("_r") if named else None
        if name in ("ctrl", "alt", "shift", "cmd", "alt_gr"):
            (self._held.add if down else self._held.discard)(name)
        held = self._held
        types_with_alt = sys.platform == "darwin" and "alt" in held  # Option types characters
        altgr_as_ctrl_alt = sys.platform == "win32" and {"ctrl", "alt"} <= held
        code = getattr(getattr(key, "value", key), "vk", None) or hash(key)
        char = None if named or getattr(key, "is_dead", False) else getattr(key, "char", None)
        if char is not None and "ctrl" in held and char < " ":
            char = chr(ord(char) + 0x60)  # Windows gives ctrl+c as the control character 3
        self._on_key(
            code,
            down,
            Key(
                char=char,
                name=name,
                ctrl="ctrl" in held,
                alt="alt" in held,
                shift="shift" in held,
                cmd="cmd" in held,
                level3="alt_gr" in held or types_with_alt or altgr_as_ctrl_alt,
            ),
        )


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """Neither an exception nor a returned False may end the listener."""

    def call(*args: Any) -> None:
        try:
            callback(*args)
        except Exception:
            _log.exception("mcilib: an event could not be read and was dropped")

    return call


def drain_listener(listener: Any) -> None:
    """Asks for an orderly end of a listener's `run`: X RECORD then hands over the events that it holds back
    in its 1 KB buffer while no window takes them. Does not wait, and need not succeed."""
    if isinstance(listener, XRecordListener):
        listener.hurry()
    control, context = getattr(listener, "_display_stop", None), getattr(listener, "_context", None)
    if control is not None and context is not None:
        with contextlib.suppress(Exception):
            control.record_disable_context(context)
            control.flush()


def end_listener(listener: Any) -> None:
    """Ends a listener's `run` from outside. On X11 by shutting its socket: pynput's stop waits for an event."""
    record = getattr(listener, "_display_record", None)
    if record is not None:
        shut(record)
    elif listener is not None and not on_x11():
        listener.stop()


def close_listener(listener: Any) -> None:
    """Frees the connections of a listener that has ended."""
    for name in ("_display_record", "_display_stop"):
        close(getattr(listener, name, None))
