"""One participant on one display: an agent that can be killed, a wire to a receiver, somebody who works, and what of it
can be read afterwards. For proofs that a control does what it says.

Somebody works in marks: a mark is a click at a place of its own and a key of a class of its own, so that what was
recorded of it can be told from the data alone.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from commands import COMMAND, run
from hosts import Host, Nursery
from waiting import until
from wire import Wire
from xwindows import Manager

from mcilib.cli._control import control
from mcilib.config import Settings
from mcilib.consent import COMMANDS, Grant
from mcilib.events import Event, KeyPress, Press
from mcilib.reader import Reader
from mcilib.testing.fakes import example_grant
from mcilib.testing.xvfb import VirtualDisplay

FULL, NOTHING = frozenset({"pointer", "keys"}), frozenset[str]()

#: mark -> where it clicks, which key it presses and the class that has.
_MARKS = {
    "before": ((211, 103), "a", "letter"),
    "during": ((322, 205), "5", "digit"),
    "after": ((433, 307), "comma", "punctuation"),
}
HEARD_S = 0.12
"""Several reads of the sources: what is not there then was not taken."""


class Scene:
    def __init__(
        self, display: VirtualDisplay, nursery: Nursery, wire: Wire, store: Path, state: Path, *scopes: str
    ) -> None:
        self.display, self.nursery, self.wire, self.store, self.state = display, nursery, wire, store, state
        self.grant = example_grant(*(scopes or ("keys", "pointer")))
        self.grant.save(state)
        self.options: dict[str, Any] = {}
        """Of the hosts that are started."""
        self.host: Host | None = None
        self.exemption = ""
        """The id of the last one that was asked for."""
        self.manager: Manager | None = None
        self._asking: list[subprocess.Popen[bytes]] = []
        self._terminals: list[int] = []

    # --- the agent ----------------------------------------------------------------------------------------

    def start(self) -> None:
        self.host = self.nursery.host(
            state=str(self.state), url=self.wire.url, display=self.display.display, grant=asdict(self.grant),
            **self.options,
        )  # fmt: skip
        self.host.call("start")

    def end(self) -> None:
        if self.host is not None:
            self.host.end()
        self.host = None

    def kill(self) -> None:
        self.running.kill()
        self.host = None

    @property
    def running(self) -> Host:
        assert self.host is not None, "no agent runs"
        return self.host

    def control(self, name: str, arguments: Mapping[str, Any]) -> None:
        """As a host does it, by a method of its collector; on the folder when no agent runs."""
        given = {**arguments, **({"exemption": self.exemption} if name == "unexempt" else {})}
        if self.host is not None:
            if name == "unexempt":
                given = {"exemption_id": self.exemption}
            answer = self.host.call(COMMANDS[name].api, **given)
            if name == "exempt":
                self.exemption = answer["exemption"]
        elif name == "regrant":  # the file is exchanged with it
            self.narrow_by_command("pointer")
        else:
            settings = Settings().override({"agent.state": self.state})
            values = control(settings, name, given).values
            if name == "exempt":
                self.exemption = values["exemption"]["exemption"]

    def command(self, *words: str) -> str:
        """As the participant does it, on the command line; what it says."""
        done = run(words[0], "--state", self.state, *words[1:])
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def grant_words(self, *scopes: str) -> list[str]:
        return [
            "grant",
            "--operator",
            self.grant.operator,
            "--purpose",
            self.grant.purpose,
            "--scope",
            ",".join(scopes),
        ]

    def close(self) -> None:
        self.wire.go()
        for asking in self._asking:
            asking.kill()
            asking.wait(20)
        for terminal in self._terminals:
            os.close(terminal)
        with suppress(Exception):
            self.end()
        if self.manager is not None:
            self.manager.retire()

    # --- the participant -------------------------------------------------------------------------------------

    def narrow(self, *scopes: str) -> None:
        """Another grant lies in the state folder."""
        self.grant = Grant.give(
            operator=self.grant.operator, purpose=self.grant.purpose, scopes=scopes, earlier=self.grant
        )
        self.grant.save(self.state)

    def narrow_by_command(self, *scopes: str) -> None:
        self.command(*self.grant_words(*scopes), "--yes")
        self.grant = Grant.load(self.state)

    def is_asked(self, answer: str = "") -> None:
        """`mcilib grant` asks for more on a terminal, and gets this answer, or waits for one as long as the scene lasts."""
        ours, theirs = os.openpty()
        self._terminals.append(ours)
        words = [*self.grant_words(*self.grant.scopes, "titles"), "--state", str(self.state)]
        asking = subprocess.Popen([*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._asking.append(asking)
        said = b""
        while b"Type yes" not in said:
            said += os.read(ours, 4096)
        if answer:
            os.write(ours, answer.encode() + b"\n")
            asking.wait(20)

    def work(self, mark: str) -> None:
        """Does the mark once."""
        (x, y), key, _ = _MARKS[mark]
        self.display.move(x - 1, y)
        self.display.move(x, y)
        self.display.click()
        self.display.tap(self.display.keycode(key))
        self.display.sync()

    def work_unheard(self, mark: str) -> None:
        """Does it, and gives whoever hears it the time to do so."""
        self.work(mark)
        time.sleep(HEARD_S)

    def work_heard(self, mark: str, what: frozenset[str] = FULL) -> None:
        """Does it until the agent has captured so much of it."""
        before = self._captured()

        def heard() -> bool:
            self.work(mark)
            time.sleep(0.03)
            now = self._captured()
            return all(now[kind] > before[kind] for kind in what)

        until(heard, what=f"{mark} is captured")

    def _captured(self) -> dict[str, int]:
        captured = self.running.call("statistics")["capture"]["captured"]
        return {"pointer": captured.get("press", 0), "keys": captured.get("key_press", 0)}

    def use(self, app: str) -> None:
        """A window of this program is in use."""
        if self.manager is None:
            self.manager = Manager()
        self.manager.use(self.manager.open(app, app))

    # --- what can be read --------------------------------------------------------------------------------------

    def spooled(self) -> dict[str, frozenset[str]]:
        return _marks_of([row.event for row in Reader(self.state / "spool").rows()])

    def stored(self) -> dict[str, frozenset[str]]:
        """In the receiver's store, of this participant."""
        return _marks_of(
            [e for batch in Reader(self.store).batches() if batch.header.participant == self.grant.participant for e in batch.events]
        )  # fmt: skip

    def recorded(self) -> dict[str, frozenset[str]]:
        """In either."""
        spooled, stored = self.spooled(), self.stored()
        return {mark: spooled[mark] | stored[mark] for mark in _MARKS}

    def deliver(self) -> None:
        """Uploads what may be, control records too."""
        with suppress(Exception):
            self.running.call("flush", timeout_s=5)


def _marks_of(events: list[Event]) -> dict[str, frozenset[str]]:
    presses = {(event.x, event.y) for event in events if isinstance(event, Press)}
    keys = {event.key for event in events if isinstance(event, KeyPress)}
    return {
        mark: frozenset([*(["pointer"] if at in presses else []), *(["keys"] if name in keys else [])])
        for mark, (at, _, name) in _MARKS.items()
    }
