"""pynput, and the only module that knows it: its listeners, guarded.

What pynput does and this guards against: a callback that raises or returns False ends the listener; a
listener cannot be restarted; `wait()`, `join()` and the import itself hang on a display that does not answer;
on X11 `stop()` leaves the thread until the next event, a lost connection ends it in silence, and keys are read
with a mapping that is never refreshed; on macOS a missing permission looks like silence.

Windows and macOS take the same path, with `_win32` and `_darwin` in the place of the X11 parts: not yet run on
hardware.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mcilib.sources import _darwin, _win32
from mcilib.sources._x11 import ServerClock, check_display, close, ignore_errors, on_x11, shut
from mcilib.sources._xkeys import Key, Keymap, read_keymap
from mcilib.sources._xrecord import ALL_CLIENTS, XRecordListener, event_range

_log = logging.getLogger("mcilib")

OnKey: TypeAlias = Callable[[int, bool, Key], None]
"""(which physical key, went down?, what it is)"""


_PRESSES, _MOVES = (4, 5), (4, 6)
"""What RECORD is asked for, by first and last type: ButtonPress and ButtonRelease; MotionNotify, too."""


def pointer_listener(
    callbacks: Mapping[str, Callable[..., None]],
    on_heard: Callable[[], None],
    server: ServerClock,
    *,
    motion: bool = True,
) -> Any:
    """An unstarted `pynput.mouse.Listener` with `on_move`, `on_click`, `on_scroll` from `callbacks`.

    `server` is told the time of each event, where the system has one, before its callback is called. Without `motion`
    the system is asked for no moves; where it cannot be, a warning is logged and they come all the same: see `narrow`.
    """
    if on_x11():
        check_display()
    from pynput.mouse import Listener

    listener = _hearing(Listener, on_heard, server)(**{name: _guarded(f) for name, f in callbacks.items()})
    if not motion and not narrow(listener, motion):
        _warn("moves of the pointer cannot be left out here: they are heard, and cost what they cost")
    return listener


def narrow(listener: Any, motion: bool) -> bool:
    """Has the system send moves to a listener of `pointer_listener`, or none; clicks and scrolls always come.

    Any thread, but one call at a time. On X11 also while it runs, without losing a click: it is a request that is sent
    and not waited for, so moves that are on their way still come. On macOS only before it runs. False where it cannot
    be, on Windows always, and when the connection is lost: then the caller has to drop moves.
    """
    if sys.platform == "darwin":
        return _darwin.narrow(listener, motion)
    events = getattr(listener, "_EVENTS", None)
    if not on_x11() or not hasattr(listener, "_ask_again"):
        return False
    if not isinstance(events, tuple) or len(events) != 2 or events[0] != 4 or events[1] < 5:
        return False
    listener._EVENTS = _MOVES if motion else _PRESSES
    return bool(listener._ask_again())


def event_clock(server: ServerClock) -> str:
    """Whose event times the listeners with this `server` tell: `x11`, `win32`, `darwin`, or `callback` when they are
    those of the call. Of the last two systems it is said after the first event with a time that can be true; one
    without has that of its call."""
    return "x11" if server.told else server.clock or "callback"


def trouble(listener: Any) -> tuple[str, str] | None:
    """What keeps a listener that runs from hearing, and what to do; None when nothing is known. Any thread, no waiting.

    Never raises. On macOS: no permission, a tap that was switched off. On Windows: a hook that was refused or removed.
    """
    try:
        if sys.platform == "win32" and _refused(listener):
            return (
                "Windows does not let this program see input",
                "Start it in the session of the user who is logged in.",
            )
        found: tuple[str, str] | None = listener._trouble() if hasattr(listener, "_trouble") else None
    except Exception:
        _log.debug("mcilib: the system does not say whether input is heard", exc_info=True)
        return None
    return found


def _refused(listener: Any) -> bool:
    """Whether Windows gave no hook: pynput does not look, and waits for ever."""
    from pynput._util.win32 import SystemHook

    hook = SystemHook._HOOKS.get(listener._thread.ident)
    return hook is not None and hook._hook == 0


@functools.cache
def _warn(message: str) -> None:
    """Each once in a process: listeners are made again whenever a display comes back."""
    _log.warning("mcilib: %s", message)


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
    """A subclass that says when input is heard, and tells `server` the time of each event where the system has one."""
    if on_x11() and hasattr(listener, "_handler") and hasattr(listener, "_handle_message"):
        return _x11_hearing(listener, on_heard, server)
    system = {"win32": _win32, "darwin": _darwin}.get(sys.platform)
    base = system.timed(listener, server) if system is not None else None
    if base is None:
        _warn("pynput has changed: events have the time at which they are read")

    class Hearing(base or listener):  # type: ignore[misc]
        def _mark_ready(self) -> None:
            super()._mark_ready()
            on_heard()

    return Hearing


def _x11_hearing(listener: Any, on_heard: Callable[[], None], server: ServerClock) -> Any:
    """On X11 input is heard when RECORD starts, which is later than pynput is ready."""

    class Hearing(listener):  # type: ignore[misc]
        _asking = threading.Lock()
        _recording = False

        def _handler(self, reply: Any) -> None:
            if reply.category == 4:  # StartOfData, from Xlib.ext.record
                server.compare(reply.server_time)
                ignore_errors(self._display_stop)
                self._recording = True
                if "_EVENTS" in vars(self):  # `narrow` may have come after pynput asked
                    self._ask_again()
                on_heard()
            else:
                super()._handler(reply)

        def _handle_message(self, display: Any, event: Any, injected: bool) -> None:
            server.stamp(event.time)
            super()._handle_message(display, event, injected)

        def _ask_again(self) -> bool:
            """Asks RECORD for `_EVENTS` from now on; before it has started, when it starts. False when it cannot be."""
            with self._asking, contextlib.suppress(Exception):
                if self._recording:
                    ranges = [event_range(self._EVENTS)]
                    self._display_stop.record_register_clients(self._context, 0, [ALL_CLIENTS], ranges)
                    self._display_stop.flush()
                return True
            return False

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
        except Exception as error:  # without its words, which may say what was typed
            _log.error("mcilib: an event could not be read and was dropped (%s)", type(error).__name__)

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
