"""Programs that are exempt: nothing is kept of what was done near one, or while nobody knew which was in use."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import repeat, starmap
from operator import attrgetter, itemgetter

from mcilib import limits
from mcilib.consent.exemption import ExemptScope
from mcilib.events import Display, Event, Focus, Gap, Layout

EDGE_NS = int(limits.EXCLUSION_EDGE_S * 1e9)
_TELLING = frozenset({Focus, Gap})
_STATES = (Focus, Display, Layout)
_LONG_AGO, _FOR_EVER = -(2**63), 2**63
_TIME = attrgetter("t_ns")


class FocusGuard:
    """Holds events back until it is known which program was in use around them. Pure; one thread at a time.

    An event passes when at its time, and from `limits.EXCLUSION_EDGE_S` before to as long after it, the program in use
    was known and none of `exempt`. It is known from each `Focus` on, until the next; a gap of one of `watchers`, the
    sources that tell of it, makes it unknown until they tell again. What is true of windows, displays and the layout
    when a program that was exempt is left (the last `Focus`, `Display` and `Layout` meanwhile) passes at the end of
    the edge, with that time: what comes then would be taken for something else without it. Gaps pass.

    Times are monotonic, in ns. An event whose time is still to come, or none, is taken to be of when it was given.
    """

    def __init__(
        self,
        exempt: Sequence[ExemptScope],
        watchers: Sequence[str] = ("window",),
        focus: tuple[int, str | None] | None = None,
    ) -> None:
        """`focus`: since when which program has been in use, as far as that is known."""
        self._exempt, self._watchers = tuple(exempt), frozenset(watchers)
        self._history: list[tuple[int, str | None]] = [(_LONG_AGO, None), *([focus] if focus else ())]
        self._gaps: list[tuple[int, int]] = []
        self._begins: list[
            int
        ] = []  # of holes, in which nothing passes; with their edges, apart from each other
        self._ends: list[int] = []
        self._lots: deque[_Lot] = deque()  # that wait
        self._states: dict[object, tuple[int, Event]] = {}  # the last of its kind in a hole
        self._passed_ns = _LONG_AGO
        self.breached = False
        """It was told too late that a program was exempt: something near it has passed. Set back by who sees to it."""
        self._dig()

    @property
    def focus(self) -> tuple[int, str | None]:
        """Since when which program is in use; None: nobody knows."""
        return self._history[-1]

    def guard(self, exempt: Sequence[ExemptScope]) -> None:
        """These from now on, also for what waits."""
        self._exempt = tuple(exempt)
        self._dig()

    def blind(self, t_ns: int) -> None:
        """Those who tell which program is in use were stopped."""
        self._insert(t_ns, None)
        self._dig()

    @property
    def waits_until_ns(self) -> int | None:
        """Up to when the history must be known for all to pass that waits and can; None when nothing does."""
        times = [lot.last_ns for lot in self._lots]
        times += [
            t_ns if (end_ns := self._end(t_ns)) is None else end_ns for t_ns, _ in self._states.values()
        ]
        times = [t_ns for t_ns in times if t_ns < _FOR_EVER]
        return max(times) + EDGE_NS if times else None

    def sift(
        self, events: deque[Event], now_ns: int, known_ns: int
    ) -> tuple[list[deque[Event]], list[Event]]:
        """Takes `events`, told up to now in this order; the history is known up to `known_ns`. Returns those that pass,
        of them and of those that have waited, and those that are excluded; the others wait. Raises nothing."""
        if events:
            if not _TELLING.isdisjoint(map(type, events)):
                self._learn([event for event in events if type(event) in _TELLING], now_ns)
            self._lots.append(_Lot.of(events, now_ns))
        limit_ns = known_ns - EDGE_NS
        passed: list[deque[Event]] = []
        excluded: list[Event] = []
        while self._lots and self._lots[0].first_ns <= limit_ns:
            lot = self._lots.popleft()
            if lot.last_ns > limit_ns:
                lot, rest = lot.split(limit_ns)
                self._lots.appendleft(rest)
                if not lot.events:  # the first of them is not the oldest
                    break
            if self._states or self._is_near(lot.first_ns, lot.last_ns):
                passed.append(self._judge(lot, limit_ns, excluded))
            else:
                passed.append(lot.events)
                self._passed_ns = max(self._passed_ns, lot.last_ns)
        if self._states:
            passed.append(self._restated(limit_ns, excluded))
        return passed, excluded

    def drop(self) -> list[Event]:
        """Takes away all that waits: it is not to be kept."""
        dropped = [*self.drop_events(), *(event for _, event in self._states.values())]
        self._states = {}
        return dropped

    def drop_events(self) -> list[Event]:
        """The same, but for what is true of windows, displays and the layout."""
        dropped: list[Event] = []
        for lot in self._lots:
            for t_ns, event in zip(lot.times_ns, lot.events, strict=True):
                if type(event) in _STATES:
                    self._keep(t_ns, event, dropped)
                else:
                    dropped.append(event)
        self._lots.clear()
        return dropped

    def _keep(self, t_ns: int, state: Event, excluded: list[Event]) -> None:
        """Until another one of its kind comes."""
        key = state.kind, getattr(state, "display", None)
        if key in self._states:
            excluded.append(self._states[key][1])
        self._states[key] = t_ns, state

    def end(self, t_ns: int) -> list[Event]:
        """Nothing is exempt any more: what is true of windows, displays and the layout now."""
        states = [replace(event, t_ns=t_ns) for _, event in self._states.values()]
        self._states = {}
        return states

    # --- what is known ---------------------------------------------------------------------------------------

    def _learn(self, events: Iterable[Event], now_ns: int) -> None:
        for event in events:
            try:
                if type(event) is Focus:
                    self._insert(min(int(event.t_ns), now_ns), event.app)
                elif type(event) is Gap and event.source in self._watchers:
                    t_ns = min(int(event.t_ns), now_ns)
                    self._gaps.append((t_ns, t_ns + int(event.duration_ns)))
                    self._insert(t_ns, None)
            except (TypeError, ValueError, OverflowError):  # from somebody's source
                self._insert(now_ns, None)
        if len(self._history) > limits.FOCUS_HISTORY:
            kept = self._history[-limits.FOCUS_HISTORY // 2 :]
            self._history = [(_LONG_AGO, None), *kept]
            self._gaps = [gap for gap in self._gaps if gap[1] > kept[0][0]]
        self._dig()

    def _insert(self, t_ns: int, app: str | None) -> None:
        insort(self._history, (t_ns, app), key=itemgetter(0))
        self.breached |= t_ns - EDGE_NS <= self._passed_ns and self._covers(app)

    def _covers(self, app: str | None) -> bool:
        return any(scope.covers_app(app) for scope in self._exempt)

    def _dig(self) -> None:
        times = [*(t_ns for t_ns, _ in self._history[1:]), _FOR_EVER]
        holes = [
            (begin_ns, end_ns)
            for (begin_ns, app), end_ns in zip(self._history, times, strict=True)
            if self._covers(app)
        ]
        self._begins, self._ends = [], []
        for begin_ns, end_ns in sorted([*holes, *(self._gaps if self._exempt else ())]):
            begin_ns, end_ns = begin_ns - EDGE_NS, end_ns + EDGE_NS
            if self._ends and begin_ns <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end_ns)
            else:
                self._begins.append(begin_ns)
                self._ends.append(end_ns)

    def _end(self, t_ns: int) -> int | None:
        """When the hole ends in which this is; None: it is in none."""
        at = bisect_right(self._begins, t_ns) - 1
        return self._ends[at] if at >= 0 and t_ns < self._ends[at] else None

    def _is_near(self, first_ns: int, last_ns: int) -> bool:
        """Whether a hole begins or ends between these, or goes on."""
        return self._end(first_ns) is not None or bisect_right(self._begins, first_ns) != bisect_right(
            self._begins, last_ns
        )

    # --- what passes -----------------------------------------------------------------------------------------

    def _judge(self, lot: _Lot, limit_ns: int, excluded: list[Event]) -> deque[Event]:
        """One by one."""
        passed: deque[Event] = deque()
        for t_ns, event in zip(lot.times_ns, lot.events, strict=True):
            if type(event) is Gap:
                passed.append(event)
            elif self._end(t_ns) is None:
                passed += self._restated(limit_ns, excluded)
                passed.append(event)
                self._passed_ns = max(self._passed_ns, t_ns)
            elif type(event) in _STATES:
                self._keep(t_ns, event, excluded)
            else:
                excluded.append(event)
        return passed

    def _restated(self, limit_ns: int, excluded: list[Event]) -> deque[Event]:
        """What was true when a hole ended, or outside of one, which by now is known."""
        passed: deque[Event] = deque()
        for key, (t_ns, event) in [*self._states.items()]:
            end_ns = self._end(t_ns)
            if (t_ns if end_ns is None else end_ns) > limit_ns:
                continue
            del self._states[key]
            if end_ns is not None and type(event) is Focus and self._covers(event.app):
                excluded.append(event)  # another one has ended it
                continue
            passed.append(event if end_ns is None else replace(event, t_ns=end_ns))
            self._passed_ns = max(self._passed_ns, t_ns if end_ns is None else end_ns)
        return passed


class _Lot:
    """Events that were told together, with their times."""

    __slots__ = ("events", "first_ns", "is_ordered", "last_ns", "times_ns")

    def __init__(self, events: deque[Event], times_ns: list[int], *, is_ordered: bool = False) -> None:
        self.events, self.times_ns, self.is_ordered = events, times_ns, is_ordered
        ends = times_ns if is_ordered and times_ns else (min(times_ns, default=0), max(times_ns, default=0))
        self.first_ns, self.last_ns = ends[0], ends[-1]

    @classmethod
    def of(cls, events: deque[Event], told_ns: int) -> _Lot:
        with suppress(AttributeError, TypeError, OverflowError):
            times = list(map(_TIME, events))
            is_ordered = times == sorted(times)
            if is_ordered and type(sum(times)) is int and times[-1] <= told_ns:
                return cls(events, times, is_ordered=True)
        return cls(events, [_time_of(event, told_ns) for event in events])

    def split(self, limit_ns: int) -> tuple[_Lot, _Lot]:
        """Before the first one that is later than `limit_ns`, of which there is one, and from it on."""
        times, rest = self.times_ns, self.events
        if self.is_ordered:
            ripe = bisect_right(times, limit_ns)
        else:
            ripe = next(n for n, t_ns in enumerate(times) if t_ns > limit_ns)
        head = deque(starmap(rest.popleft, repeat((), ripe)))
        parts = (head, times[:ripe]), (rest, times[ripe:])
        first, last = (_Lot(events, part, is_ordered=self.is_ordered) for events, part in parts)
        return first, last


def _time_of(event: Event, told_ns: int) -> int:
    try:
        return min(int(event.t_ns), told_ns)
    except (AttributeError, TypeError, ValueError, OverflowError):  # no event, from somebody's source
        return told_ns
