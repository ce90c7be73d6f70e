"""Between the buffer and the batches: while programs are exempt, events wait until it is known which was in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat, starmap

from mcilib import limits
from mcilib.batching import Batcher
from mcilib.clock import Clock
from mcilib.consent.exemption import ExemptScope
from mcilib.consent.focus import FocusGuard
from mcilib.consent.gate import Gate
from mcilib.events import Event, event_count

_TOLD_NS = int(limits.FOCUS_TOLD_S * 1e9)


class Guarding:
    """Gives the batcher what waits in a buffer. One thread at a time; no thread of its own.

    While the gate knows of programs that are exempt, a `FocusGuard` stands in between. When other programs are than
    before, what was heard until then is held to both, and what still waits is excluded, so that nothing that was
    heard under an exemption passes because it has ended. `watchers` are the names of the sources that tell which
    program is in use. When they tell it too late, the open batch is lost, and counted as excluded.
    """

    def __init__(
        self,
        gate: Gate,
        batcher: Batcher,
        clock: Clock,
        set_aside: Callable[[str, int], None],
        watchers: Sequence[str],
    ) -> None:
        self._gate, self._batcher, self._clock = gate, batcher, clock
        self._set_aside, self._watchers = set_aside, tuple(watchers)
        self._version = -1
        self._exempt: tuple[ExemptScope, ...] = ()
        self._guard: FocusGuard | None = None

    def take(self, buffer: deque[Event]) -> None:
        """Takes away what is in `buffer` now, which others may be adding to."""
        waiting = len(buffer)  # first: what was told before a change of the gate is in it
        if self._version != self._gate.version:
            self._look(buffer, waiting)
        elif self._guard is None:
            self._batcher.take(buffer)
        else:
            self._sift(self._guard, buffer, waiting)

    def _look(self, buffer: deque[Event], waiting: int) -> None:
        """The gate has changed: perhaps what is exempt."""
        self._version = self._gate.version
        before, self._exempt = self._exempt, tuple(e.scope for e in self._gate.barred.apps)
        if before == self._exempt:
            if self._guard is None:
                self._batcher.take(buffer)
            else:
                self._sift(self._guard, buffer, waiting)
            return
        guard = self._guard
        if guard is None:
            guard = self._guard = FocusGuard(self._exempt, self._watchers, self._batcher.focus)
        else:
            guard.guard((*before, *self._exempt))
        self._sift(guard, buffer, waiting)
        guard.guard(self._exempt)
        if not self._exempt:
            self._exclude(guard.drop_events())
            states = guard.end(self._clock.monotonic_ns())
            self._batcher.focus, self._guard = guard.focus, None
            self._batcher.take(deque(states))
        elif before:
            self._exclude(guard.drop_events())

    def _sift(self, guard: FocusGuard, buffer: deque[Event], waiting: int) -> None:
        now_ns = self._clock.monotonic_ns()
        events = deque(starmap(buffer.popleft, repeat((), waiting)))
        passed, excluded = guard.sift(events, now_ns, now_ns - _TOLD_NS)
        if guard.breached:
            guard.breached = False
            self._batcher.lose_open()
        for lot in passed:
            self._batcher.take(lot)
        self._exclude(excluded)

    def exclude_waiting(self) -> None:
        """What waits is excluded; what is known stays so."""
        if self._guard is not None:
            self._exclude(self._guard.drop_events())

    def drop(self) -> None:
        """What waits is excluded, and which program is in use is not known any more."""
        self._batcher.focus = None
        if self._guard is not None:
            self._exclude(self._guard.drop())
            self.blind(self._clock.monotonic_ns())

    def blind(self, since_ns: int) -> None:
        """Nobody has told since then which program is in use."""
        self._batcher.focus = None
        if self._guard is not None:
            self._guard.blind(since_ns)

    @property
    def ends_ns(self) -> int | None:
        """When (monotonic) all that waits may go on; None when nothing does."""
        waits_ns = self._guard.waits_until_ns if self._guard is not None else None
        return None if waits_ns is None else waits_ns + _TOLD_NS

    def _exclude(self, events: Sequence[Event]) -> None:
        for event in events:
            self._set_aside("excluded", event_count(event))
