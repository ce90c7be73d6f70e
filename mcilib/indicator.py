"""Tells the participant that recording begins or goes on: a notification of the desktop, or a line on the terminal.

NotificationIndicator  Linux: a note by whatever shows notifications on the session bus
MacIndicator           macOS: the notification centre, by `osascript`; not yet run on hardware
TerminalIndicator      a line on a stream
FirstOf                the first of several that reaches the participant
default_indicator()    what this system has, else the terminal
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from mcilib import limits
from mcilib.consent.grant import SCOPES
from mcilib.language import Words, one_line

if TYPE_CHECKING:
    from mcilib.resources._bus import Bus


@dataclass(frozen=True, slots=True)
class Notice:
    """What the participant is told, and what it is made of."""

    kind: str
    """`started` or `resumed`."""
    operator: str
    purpose: str
    scopes: tuple[str, ...]
    """Of which something is captured now."""
    state_dir: str
    """Tells two agents on one device apart."""
    language: str = "en"
    """The participant's (`mcilib.language.Words`)."""

    @property
    def title(self) -> str:
        """Such as `Recording has begun`."""
        tr = Words(self.language)
        return tr("Recording goes on") if self.kind == "resumed" else tr("Recording has begun")

    def lines(self) -> tuple[str, str, str, str]:
        """Who, what for, what, and how to pause, without line breaks and with nothing that a terminal would obey."""
        tr = Words(self.language)
        what = ", ".join(tr(SCOPES[scope].short) for scope in self.scopes) or tr("nothing now")
        pause = f"mcilib pause --state {shlex.quote(self.state_dir)}"
        rows = (
            (tr("Who collects:"), _short(self.operator)),
            (tr("What for:"), _short(self.purpose)),
            (tr("What:"), what),
            (tr("To pause:"), one_line(pause)),
        )
        who, for_what, what, how = (f"{label} {text}" for label, text in rows)
        return who, for_what, what, how


class Indicator(Protocol):
    """Tells the participant.

    Promise: when `show` returns True the participant could see it; it takes a second at most and raises nothing. It is
    called before sources start, from any thread, one call at a time.
    """

    def show(self, notice: Notice, /) -> bool: ...


class FirstOf:
    """The first of `indicators` that reaches the participant; one that raises has not. They take as long as those that
    are asked take together: less than a second with `default_indicator`."""

    def __init__(self, *indicators: Indicator) -> None:
        self._indicators = indicators

    def show(self, notice: Notice, /) -> bool:
        return any(_shown(indicator, notice) for indicator in self._indicators)


class NotificationIndicator:
    """A note by the desktop (org.freedesktop.Notifications), in the place of the one that this object showed before.

    It keeps its connection to the session bus, since some desktops take notes away whose sender has left; it has no
    thread, and wakes never. The connection is closed with the object. A service of notes that is not running is
    started, as for any program. False when there is no bus, nobody who shows notes, or no answer in time.
    """

    def __init__(self) -> None:
        self._link: _Link | None = None

    def show(self, notice: Notice, /) -> bool:
        if not sys.platform.startswith("linux"):
            return False
        try:
            if self._link is not None and not self._link.alive():
                self._leave()
            if self._link is None:
                self._link = _Link(self)
            self._link.notify(notice)
        except Exception:  # no bus, a frozen one, nobody who shows notes, nonsense in answer
            self._leave()
            return False
        return True

    def _leave(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


class _Link:
    """A connection to the session bus, and the note that was shown over it."""

    _NAME, _PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
    _BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")

    def __init__(self, holder: NotificationIndicator) -> None:
        from mcilib.resources._bus import Bus

        self.bus: Bus = Bus("SESSION", None, limits.NOTE_TIMEOUT_S)
        self.close: Any = weakref.finalize(holder, self.bus.close)
        self._pid = os.getpid()
        self._owner, self._note = "", 0

    def alive(self) -> bool:
        """Not of a process that this one was forked from, and not closed by the bus. What has come is thrown away, and
        from now on there is time for answers again."""
        if self._pid != os.getpid():
            return False
        self.bus.allow(0)
        try:
            while True:
                self.bus.wait()
                self.bus.read()
                self.bus.news()
        except TimeoutError:  # nothing more has come
            self.bus.allow(limits.NOTE_TIMEOUT_S)
            return True
        except Exception:  # it has gone
            return False

    def notify(self, notice: Notice) -> None:
        """Raises what `Bus.ask` does when it was not shown."""
        owner = self._owner_now()
        who, for_what, what, how = notice.lines()
        body = "\n".join((who, for_what, what, how))
        if any(sign in body for sign in "<>&"):
            (can,) = self.bus.ask(self._NAME, self._PATH, self._NAME, "GetCapabilities")
            if "body-markup" in can:
                body = body.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        # The id of another server's note would be somebody else's.
        earlier = self._note if owner == self._owner else 0
        hints = {"urgency": ("y", 1), "category": ("s", "device")}
        note: tuple[Any, ...] = ("mcilib", earlier, "", notice.title, body, [], hints, -1)
        (self._note,) = self.bus.ask(self._NAME, self._PATH, self._NAME, "Notify", "susssasa{sv}i", *note)
        self._owner = owner

    def _owner_now(self) -> str:
        from mcilib.resources._bus import Refused

        try:
            (owner,) = self.bus.ask(*self._BUS, "GetNameOwner", "s", self._NAME)
        except Refused:
            self.bus.ask(*self._BUS, "StartServiceByName", "su", self._NAME, 0)
            (owner,) = self.bus.ask(*self._BUS, "GetNameOwner", "s", self._NAME)
        return str(owner)


class MacIndicator:
    """A note by the notification centre of macOS. Not yet run on hardware."""

    _SCRIPT = (
        "on run argv",
        "display notification (item 2 of argv) with title (item 1 of argv)",
        "end run",
    )

    def show(self, notice: Notice, /) -> bool:
        lines = [part for line in self._SCRIPT for part in ("-e", line)]
        command = ["osascript", *lines, notice.title, "\n".join(notice.lines())]
        null = subprocess.DEVNULL
        try:
            done = subprocess.run(
                command, stdin=null, stdout=null, stderr=null, timeout=limits.NOTE_TIMEOUT_S, check=False
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


class TerminalIndicator:
    """One line on `stream` (default: stderr, as it is at that moment).

    False when it is closed, takes nothing now (a terminal or a program that has stopped), is the null device, or
    raises. Whether somebody reads what it goes to, nobody can tell.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def show(self, notice: Notice, /) -> bool:
        try:
            stream: TextIO | None = self._stream if self._stream is not None else sys.stderr
            if stream is None or not _takes(stream):
                return False
            stream.write(f"mcilib: {notice.title}. {'. '.join(notice.lines())}\n")
            stream.flush()
        except Exception:  # somebody else's stream
            return False
        return True


def default_indicator() -> Indicator:
    """What this system has, else the terminal. Windows has the terminal only; not yet run on hardware."""
    if sys.platform == "darwin":
        return FirstOf(MacIndicator(), TerminalIndicator())
    return FirstOf(NotificationIndicator(), TerminalIndicator())


def _shown(indicator: Indicator, notice: Notice) -> bool:
    try:
        return indicator.show(notice)
    except Exception:  # somebody else's
        return False


def _takes(stream: TextIO) -> bool:
    """Whether a line can be written to it now without waiting for long."""
    try:
        fd = stream.fileno()
    except OSError:  # in memory
        return not stream.closed
    with open(os.devnull, "rb") as null:
        if os.path.sameopenfile(fd, null.fileno()):
            return False
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(limits.LINE_TIMEOUT_S * 1000))


def _short(text: str) -> str:
    text = one_line(text)
    return (
        text
        if len(text) <= limits.NOTICE_PART_MAX_CHARS
        else text[: limits.NOTICE_PART_MAX_CHARS - 3] + "..."
    )
