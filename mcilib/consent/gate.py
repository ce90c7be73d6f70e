"""Each event held to the grant and to what the participant has decided, by the event's own time. Pure."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import tzinfo
from types import MappingProxyType

from mcilib import limits
from mcilib.clock import ClockAnchor
from mcilib.consent.exemption import Exemption, windows_of
from mcilib.consent.grant import Grant
from mcilib.consent.pause import Now
from mcilib.consent.state import Bar, Barred, ControlState, allowed_scopes, kinds_of
from mcilib.events import Event, Focus
from mcilib.language import ENGLISH, Words

NEVER = (0, 0)
"""A window in which no event is."""

ALWAYS_NS = 2**63
_S = 1_000_000_000
_TITLE = "title"  # of a focus, which has it under a scope of its own


class Gate:
    """Holds events, commits and requests to a grant and to the participant's decisions. Time comes as an argument.

    For each kind of event there is one window of time, from when it was last opened until it was closed or will be:
    an event is admitted when its own time lies in it. So what was heard while it was closed, or before, is not admitted
    however late it is told. `apply` closes at once; what was told before, and lies before the change, is admitted
    until `shut`. Any thread: a reader sees a change as a whole.

    What the wall clock decides (the end of a grant, weekly hours, the end of an exemption) is decided by how it stood
    whenever it was looked at, by `apply` and `windows`. Between two looks of which one shows that it was stepped (or
    that the machine slept) nobody knows how it stood: there an event must be allowed by both.
    """

    def __init__(
        self,
        grant: Grant,
        state: ControlState = ControlState(),  # noqa: B008  (frozen)
        *,
        tz: tzinfo | None = None,
        tr: Words = ENGLISH,
    ) -> None:
        self.grant = grant
        self.state = state
        self.barred = Barred()
        """As of the last `apply`; its `apps` as of the last look at the clock."""
        self.version = 0
        """Another number after each change: windows are to be asked for again."""
        self._tz, self._tr = tz, tr
        self._changing = threading.Lock()
        self._is_paused = False  # as of the last `apply`: what the wall clock has no part in
        self._look: ClockAnchor | None = None  # when the wall clock was looked at last
        self._open = _parts(allowed_scopes(grant.scopes, Barred()))
        self._from_ns: dict[str, int] = {}  # part -> since when it is open again
        self._until_ns: dict[str, int] = {}  # closed parts, while what lies before may come -> since when
        self._apps: tuple[Exemption, ...] = ()
        self._ends_ns = ALWAYS_NS  # when the wall clock will close all that is open

    # --- changes -------------------------------------------------------------------------------------------

    def apply(self, now: Now, *, grant: Grant | None = None, state: ControlState | None = None) -> Barred:
        """As grant and state have it at `now`. To be called at each change and when `Barred.due_s` is over."""
        anchor = ClockAnchor(now.monotonic_ns, now.wall_ns)
        with self._changing:
            self._look_at(anchor)  # what was in force until now may have closed something meanwhile
            self.grant, self.state = grant or self.grant, self.state if state is None else state
            self.barred = self.state.barred(now, self._tz, self._tr)
            if self._is_withdrawn():  # also once the receiver has confirmed it
                self.barred = replace(self.barred, all=Bar("withdrawn", self._tr("you have withdrawn")))
            self._is_paused = self.state.at(now).pause is not None
            self._look_at(anchor)
            self.version += 1
            return self.barred

    def restart(self, now: Now) -> None:
        """What lies before `now` is not admitted any more, whatever it is: it is forgotten."""
        with self._changing:
            self._from_ns.update(dict.fromkeys(self._open, now.monotonic_ns))
            self._until_ns.clear()
            self.version += 1

    def shut(self) -> None:
        """All that was told before the last `apply` has been taken: nothing of a closed kind is admitted any more."""
        with self._changing:
            if self._until_ns:
                self._until_ns.clear()
                self.version += 1

    # --- questions -----------------------------------------------------------------------------------------

    def windows(self, anchor: ClockAnchor) -> Mapping[str, tuple[int, int]]:
        """Kind -> monotonic time (ns) from which on and before which events of it are admitted; a kind that is not
        there has none. Right as long as `version` is the same and the wall clock agrees with `anchor`."""
        with self._changing:
            if self._look is None or anchor.monotonic_ns > self._look.monotonic_ns:
                self._look_at(anchor)
            windows = {part: (self._from(part), self._ends_ns) for part in self._open}
            windows |= {part: (self._from(part), until_ns) for part, until_ns in self._until_ns.items()}
            windows.pop(_TITLE, None)
            # A gap is no event of the participant: nothing closes it but the end of the grant.
            return MappingProxyType({**windows, "gap": (-ALWAYS_NS, self._expires_by(anchor))})

    def admits(self, kind: str, t_ns: int, anchor: ClockAnchor) -> bool:
        """True when an event of this kind and time may become part of a batch. For one; see `windows` for many."""
        from_ns, until_ns = self.windows(anchor).get(kind, NEVER)
        return from_ns <= t_ns < until_ns

    def cut(self, event: Event) -> Event:
        """An event that was admitted, without the parts of it that are not covered."""
        if type(event) is not Focus or event.title is None:
            return event
        with self._changing:
            until_ns = ALWAYS_NS if _TITLE in self._open else self._until_ns.get(_TITLE, -ALWAYS_NS)
            covered = self._from(_TITLE) <= event.t_ns < until_ns
        return event if covered else replace(event, title=None)

    def allows(self, scope: str) -> bool:
        """Whether something of this scope may be captured, as of the last `apply`."""
        return scope in allowed_scopes(self.grant.scopes, self.barred)

    def closed(self, wall_ns: int) -> str | None:
        """Why nothing may be committed or sent now; None when it may. A pause is no reason: what was captured before
        it was captured with consent."""
        if self.barred.all is not None and self.barred.all.code in ("unreadable", "withdrawn"):
            return self.barred.all.words
        if self.grant.expired(wall_ns):
            tr = self._tr
            return tr("the grant expired at {moment}").format(moment=self.grant.expires_at)
        return None

    # --- within the lock -----------------------------------------------------------------------------------

    def _look_at(self, anchor: ClockAnchor) -> None:
        """What is open and closed as the clocks show it now, with what that says of the time since the last look."""
        now_ns, wanted = anchor.monotonic_ns, self._wanted(anchor.wall_ns)
        if self._look is not None:
            since_ns, stepped = self._look.monotonic_ns, _stepped(self._look, anchor)
            for part in self._open - wanted:
                self._until_ns[part] = since_ns if stepped else min(now_ns, self._ends_ns)
            for part in wanted - self._open:
                self._until_ns.pop(part, None)
            was_closed = self._ends_ns < now_ns or (stepped and self._is_uneven())
            opened = wanted if was_closed else wanted - self._open
            self._from_ns.update(dict.fromkeys(opened, now_ns))
        self._look, self._open, self._ends_ns = anchor, wanted, self._ends_by(anchor)
        self._look_at_apps(anchor)

    def _look_at_apps(self, anchor: ClockAnchor) -> None:
        """Which programs are exempt, for who holds events to that. What was heard under one that is over may not have
        been held to it: nothing of before is admitted."""
        apps = tuple(e for e in self.state.at_wall(anchor.wall_ns) if e.state.bars and e.scope.apps)
        if {e.exemption_id for e in self._apps} - {e.exemption_id for e in apps}:
            self._from_ns.update(dict.fromkeys(self._open, anchor.monotonic_ns))
            self._until_ns.clear()
        if apps != self.barred.apps:
            self.barred = replace(self.barred, apps=apps)
            self.version += 1
        self._apps = apps

    def _wanted(self, wall_ns: int) -> frozenset[str]:
        """The parts that are open when the wall clock shows that."""
        if self._is_paused or self._is_withdrawn() or self.grant.expired(wall_ns):
            return frozenset()
        barred = replace(self.state, pause=None).barred(Now(0, 0, wall_ns, ""), self._tz)
        return _parts(allowed_scopes(self.grant.scopes, barred))

    def _is_withdrawn(self) -> bool:
        return self.state.is_withdrawn(self.grant.participant)

    def _from(self, part: str) -> int:
        return self._from_ns.get(part, -ALWAYS_NS)

    def _is_uneven(self) -> bool:
        """Whether the wall clock may have closed something, and opened it again."""
        return any(e.state.bars and (e.scope.hours or e.until_ns is not None) for e in self.state.exemptions)

    def _ends_by(self, anchor: ClockAnchor) -> int:
        """The monotonic time at which the wall clock closes all that is open."""
        ends_ns = self._expires_by(anchor)
        for exemption in self.state.at_wall(anchor.wall_ns):
            if windows := windows_of([exemption]):
                from mcilib.policy.hours import change_s, week_ns  # 20 ms to import

                week = week_ns(anchor.wall_ns, self._tz)
                wait_ns = min(window.change_ns(week) for window in windows)
                told_s = change_s(
                    windows, anchor.wall_ns, self._tz
                )  # sooner where local time steps meanwhile
                wait_ns = wait_ns if told_s is None else min(wait_ns, int(told_s * _S))
                if exemption.until_ns is None or anchor.wall_ns + wait_ns < exemption.until_ns:
                    ends_ns = min(ends_ns, anchor.monotonic_ns + wait_ns)
        return ends_ns

    def _expires_by(self, anchor: ClockAnchor) -> int:
        expires_ns = self.grant.expires_ns
        return ALWAYS_NS if expires_ns is None else anchor.monotonic_ns + expires_ns - anchor.wall_ns


def _stepped(one: ClockAnchor, other: ClockAnchor) -> bool:
    return abs(one.to_wall_ns(other.monotonic_ns) - other.wall_ns) > limits.WALL_STEP_NS


def _parts(scopes: frozenset[str]) -> frozenset[str]:
    """Kinds, and the title of a focus."""
    return kinds_of(scopes) | ({_TITLE} if "titles" in scopes else set())
