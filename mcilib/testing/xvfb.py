"""A real X server without a screen, and input injected into it through XTEST (Linux, for tests and demos).

The server is Xvfb; to everything above it the injected input is real: it passes through the same queues,
carries the server's own timestamps and comes out of X RECORD like a person's. A full-size window of another
process takes the events, as an application would: with no window taking them, X RECORD delivers only in
buffers of 1 KB (32 events), so they come late and the last ones never.

    with VirtualDisplay() as x:
        x.move(100, 200)
        x.click(1)
        x.tap(x.keycode("a"))
        x.sync()

Nothing here touches a person's own display: input goes only to the server that the object itself started.
Importing this module imports the standard library only; python-xlib is loaded by `start()`.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from random import randrange
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from Xlib.display import Display

SERVER_START_TIMEOUT_S = 15.0
"""Xvfb is ready in 0.05 s; a loaded two-core machine was seen to take a second."""

SERVER_STOP_TIMEOUT_S = 2.0
"""Xvfb ends within 20 ms of SIGTERM; after this it is killed."""

_NUMBERS = (100, 30_000)
"""Display numbers to choose from, at random."""

_NUMBER_TRIES = 10

_SCROLL_UP, _SCROLL_DOWN, _SCROLL_LEFT, _SCROLL_RIGHT = 4, 5, 6, 7
"""The buttons that X11 uses for one wheel step."""

_HIGHEST_HELD_BUTTON = 5
"""QueryPointer reports the state of buttons 1 to 5 only."""


class VirtualDisplay:
    """An X server of its own with an XTEST injector and a window that takes events; a context manager.

    Sizes are in pixels. `take_events=False` leaves the window out, to see what X RECORD does without one.
    Methods may be called from any thread, one at a time (a lock sees to it). A server whose owner dies is
    ended by the window's process, so none is left behind; without the window nothing does that.

    Bursts need pacing: every injected event reaches windows, but from about 12,000 events/s on the server's
    RECORD extension drops some (up to 7 % of 20,000 on a busy machine: `benchmarks/record_bursts.py`). A `sync()`
    every 20 events keeps it whole.

    Raises `mcilib.errors.DisplayError` when Xvfb is missing or does not start.
    """

    def __init__(self, *, width_px: int = 1280, height_px: int = 800, take_events: bool = True) -> None:
        self.width_px = width_px
        self.height_px = height_px
        self._take_events = take_events
        self._lock = threading.RLock()
        self._number: int | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._window: subprocess.Popen[bytes] | None = None
        self._injector: Display | None = None
        self._frozen = False
        self.layout_changed = False
        """Whether `setxkbmap()` was called since the server started."""

    # --- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server on a free display number (or on the one it had) and the window. Blocks until both
        are there; does nothing when the server is alive."""
        with self._lock:
            if self.alive:
                return
            try:
                self._start_server()
                if self._take_events:
                    self._start_window()
                self._injector = self._connect()
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End the window and the server, frozen or not. Takes at most about 2 s; may be called twice."""
        with self._lock:
            self._disconnect()
            # The server first: until it is told to end, the window's process ends it should this one die here.
            if self._server is not None:
                self.thaw()
                self._server.terminate()
            self._stop_window()
            if self._server is not None:
                try:
                    self._server.wait(SERVER_STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    self._server.kill()
                    self._server.wait()
                self._server = None

    def kill(self) -> None:
        """SIGKILL the server: every client's connection breaks. `restart()` brings the display back."""
        with self._lock:
            self._disconnect()
            if self._server is not None:
                self._server.kill()
                self._server.wait()
                self._server = None
            self._frozen = False
            self._stop_window()

    def restart(self) -> None:
        """A new server on the same display number; the old one is killed if it is still there."""
        with self._lock:
            self.kill()
            self.start()

    def freeze(self) -> None:
        """Stop the server's process (SIGSTOP): connections stay open and nobody gets an answer.

        Until `thaw()`, `move()` and the like only fill the socket's buffer; `sync()`, `setxkbmap()`,
        `keycode()` and `release_all()` would wait for an answer.
        """
        with self._lock:
            os.kill(self.pid, signal.SIGSTOP)
            # Signals arrive when they arrive: be sure that it stands still before saying so.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self._frozen = True

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT). Does nothing when it is not frozen."""
        with self._lock:
            if self._frozen and self._server is not None:
                os.kill(self._server.pid, signal.SIGCONT)
            self._frozen = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- what it is ----------------------------------------------------------------------------------------

    @property
    def display(self) -> str:
        """The display's name as `DISPLAY` wants it (":7"); the same after `restart()`."""
        if self._number is None:
            raise _not_started()
        return f":{self._number}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._server is None:
            raise _not_started()
        return self._server.pid

    @property
    def alive(self) -> bool:
        """Whether the server's process is there (a frozen one is)."""
        return self._server is not None and self._server.poll() is None

    def environ(self) -> dict[str, str]:
        """This process's environment for a child that shall use this display and no other."""
        inherited = {k: v for k, v in os.environ.items() if k not in ("WAYLAND_DISPLAY", "XDG_SESSION_TYPE")}
        return {**inherited, "DISPLAY": self.display}

    # --- input ---------------------------------------------------------------------------------------------

    def move(self, x_px: int, y_px: int) -> None:
        """Move the pointer to a pixel. A move to where it already is makes no event (the server's rule)."""
        from Xlib import X

        self._fake(X.MotionNotify, x_px=x_px, y_px=y_px)

    def button(self, number: int, press: bool) -> None:
        """Press or release a button: 1 left, 2 middle, 3 right, 8 back, 9 forward."""
        from Xlib import X

        self._fake(X.ButtonPress if press else X.ButtonRelease, number)

    def click(self, number: int = 1) -> None:
        """Press and release a button."""
        self.button(number, True)
        self.button(number, False)

    def scroll(self, dx: int = 0, dy: int = 0) -> None:
        """Wheel steps; positive is right and up, as pynput counts. One press and release each."""
        for steps, positive, negative in ((dx, _SCROLL_RIGHT, _SCROLL_LEFT), (dy, _SCROLL_UP, _SCROLL_DOWN)):
            for _ in range(abs(steps)):
                self.click(positive if steps > 0 else negative)

    def key(self, keycode: int, press: bool) -> None:
        """Press or release a key by its keycode (8 to 255)."""
        from Xlib import X

        self._fake(X.KeyPress if press else X.KeyRelease, keycode)

    def tap(self, keycode: int) -> None:
        """Press and release a key."""
        self.key(keycode, True)
        self.key(keycode, False)

    def sync(self) -> None:
        """Return when the server has carried out everything injected so far."""
        with self._lock:
            self._connected().sync()

    def release_all(self) -> None:
        """Release every key and every button (1 to 5) that is down, whoever pressed it."""
        with self._lock:
            connection = self._connected()
            for index, held in enumerate(connection.query_keymap()):
                for bit in range(8):
                    if held & (1 << bit):
                        self.key(index * 8 + bit, False)
            mask = connection.screen().root.query_pointer().mask
            for number in range(1, _HIGHEST_HELD_BUTTON + 1):
                if mask & (1 << (7 + number)):  # Button1Mask is 1 << 8
                    self.button(number, False)
            connection.sync()

    # --- keyboard layout -----------------------------------------------------------------------------------

    def keycode(self, keysym_name: str) -> int:
        """The key that gives a keysym ("a", "space", "Shift_L") in the current layout, at any level.

        Raises `KeyError` when the layout has no such key.
        """
        from Xlib import XK

        with self._lock:
            keysym = XK.string_to_keysym(keysym_name)
            found = self._connected().keysym_to_keycode(keysym) if keysym else 0
        if not found:
            raise KeyError(keysym_name)
        return int(found)

    def setxkbmap(self, *args: str) -> None:
        """Run setxkbmap on this display: `setxkbmap("de")`, `setxkbmap("us,de", "-option", "")`."""
        command = ["setxkbmap", "-display", self.display, *args]
        with self._lock:
            self.layout_changed = True
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            except FileNotFoundError:
                raise _display_error("setxkbmap is not installed", "Install x11-xkb-utils.") from None
            if done.returncode != 0:
                raise _display_error(f"setxkbmap failed: {done.stderr.strip()}", "Check the layout's name.")
            # python-xlib keeps a copy of the keyboard map; a new connection reads the new one.
            self._disconnect()
            self._injector = self._connect()

    # --- inside --------------------------------------------------------------------------------------------

    def _fake(self, event_type: int, detail: int = 0, x_px: int = 0, y_px: int = 0) -> None:
        from Xlib.ext import xtest

        with self._lock:
            connection = self._connected()
            xtest.fake_input(connection, event_type, detail, x=x_px, y=y_px)
            connection.flush()

    def _start_server(self) -> None:
        executable = shutil.which("Xvfb")
        if executable is None:
            raise _display_error(
                "Xvfb, the X server without a screen, is not installed",
                "Install it (Debian and Ubuntu: apt-get install xvfb) and try again.",
            )
        for tries_left in reversed(range(_NUMBER_TRIES)):
            # Not the lowest free number, which the next server to start anywhere on the machine would take
            # while this one is down between `kill` and `restart`.
            number = self._number if self._number is not None else randrange(*_NUMBERS)  # noqa: S311
            said = self._run_server(executable, number)
            if said is None:
                self._number, self._frozen, self.layout_changed = number, False, False
                return
            if self._number is not None or "already" not in said or not tries_left:
                raise _display_error(f"Xvfb did not start: {said}", "Run Xvfb by hand to see why.")

    def _run_server(self, executable: str, number: int) -> str | None:
        """Starts Xvfb and waits until it serves; what it said when it does not, else None."""
        screen = f"{self.width_px}x{self.height_px}x24"
        readable, writable = os.pipe()
        with tempfile.TemporaryFile() as errors, os.fdopen(readable, "rb", buffering=0) as pipe:
            try:
                # Its own session, so that Ctrl-C at a terminal reaches the demo but not the display under it.
                self._server = subprocess.Popen(
                    [
                        *(executable, f":{number}", "-displayfd", str(writable)),
                        *("-noreset", "-nolisten", "tcp", "-screen", "0", screen),
                    ],
                    pass_fds=[writable],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            finally:
                os.close(writable)
            if _read_line(pipe, SERVER_START_TIMEOUT_S):
                return None
            self._server.kill()
            self._server.wait()
            self._server = None
            errors.seek(0)
            return " ".join(errors.read().decode(errors="replace").split()) or "it said nothing"

    def _start_window(self) -> None:
        # The file is run by its path with -P: the child needs python-xlib and nothing of this package.
        self._window = subprocess.Popen(
            [sys.executable, "-P", __file__, self.display, str(self.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._window.stdout is not None  # for the type checker: it is a pipe
        if _read_line(self._window.stdout, SERVER_START_TIMEOUT_S) != b"ready":
            raise _display_error("The window that takes events did not open", "See the error above.")

    def _stop_window(self) -> None:
        if self._window is None:
            return
        assert self._window.stdin is not None
        assert self._window.stdout is not None
        with contextlib.suppress(OSError):
            self._window.stdin.write(_GOODBYE)
            self._window.stdin.flush()
        try:
            self._window.wait(SERVER_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._window.kill()
            self._window.wait()
        for pipe in (self._window.stdin, self._window.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        self._window = None

    def _connect(self) -> Display:
        from mcilib.sources._x11 import connect

        connection: Display = connect(self.display, whole=True)
        return connection

    def _connected(self) -> Display:
        if self._injector is None:
            raise _not_started()
        return self._injector

    def _disconnect(self) -> None:
        injector, self._injector = self._injector, None
        if injector is not None:
            # Not Display.close(): that flushes and waits, for ever when the server is frozen or dead.
            with contextlib.suppress(OSError):
                injector.display.socket.close()


def _display_error(problem: str, next_step: str) -> Exception:
    from mcilib.errors import DisplayError

    return DisplayError(problem, next_step)


def _not_started() -> Exception:
    return _display_error(
        "The virtual display is not running", "Use it inside `with`, or call start() first."
    )


def _read_line(pipe: IO[bytes], timeout_s: float) -> bytes:
    """One line without its end, or b"" when the other side closed or the time is over."""
    line = b""
    deadline = time.monotonic() + timeout_s
    while not line.endswith(b"\n"):
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([pipe], [], [], left_s)[0]:
            return b""
        piece = os.read(pipe.fileno(), 64)
        if not piece:
            return b""
        line += piece
    return line.strip()


# --- the window's process ----------------------------------------------------------------------------------

_GOODBYE = b"q"


def _window_main(display_name: str, server_pid: int) -> None:
    """Open a full-size window that takes all input, and throw its events away until told to end.

    When the owner dies instead of saying goodbye, the server is ended too.
    """
    from Xlib import X, display

    connection = display.Display(display_name)
    screen = connection.screen()
    window = screen.root.create_window(
        *(0, 0, screen.width_in_pixels, screen.height_in_pixels, 0, screen.root_depth),
        window_class=X.InputOutput,
        override_redirect=True,
        event_mask=(
            X.KeyPressMask
            | X.KeyReleaseMask
            | X.ButtonPressMask
            | X.ButtonReleaseMask
            | X.PointerMotionMask
            | X.StructureNotifyMask
        ),
    )
    window.set_wm_name("mcilib virtual display")
    window.map()
    connection.sync()
    window.set_input_focus(X.RevertToPointerRoot, X.CurrentTime)
    connection.sync()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # Not Display.close(), which flushes and waits, for a server that may be gone.
    with contextlib.closing(connection.display.socket) as events:
        _take_events(events.fileno(), sys.stdin.fileno(), server_pid)


def _take_events(events: int, owner: int, server_pid: int) -> None:
    while True:
        readable = select.select([events, owner], [], [])[0]
        if owner in readable:
            if os.read(owner, 1) != _GOODBYE:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server_pid, signal.SIGKILL)
            return
        try:
            # Raw: the events are only to be taken, and decoding them would cost CPU beside a benchmark.
            if not os.read(events, 65_536):
                return
        except OSError:
            return


if __name__ == "__main__":
    _window_main(sys.argv[1], int(sys.argv[2]))
