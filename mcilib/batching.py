"""Events -> batches: what passes the gate, where one batch ends and the next begins."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from operator import sub
from typing import Any

from mcilib import limits
from mcilib.clock import Clock, ClockAnchor
from mcilib.consent import SCOPES, Gate
from mcilib.consent.gate import NEVER
from mcilib.events import Display, Event, Focus, Gap, Layout, event_count
from mcilib.format.open_batch import OpenBatch
from mcilib.format.rows import writable
from mcilib.policy.plan import Motion, Plan
from mcilib.sampler import ThinnedBatch

_NO_INPUT = (Display, Layout, Gap)
_STATES = (Display, Layout, Focus)


class Batcher:
    """Fills one batch after the other. No I/O, no thread: the clock is a parameter. One thread at a time.

    A batch ends when the next row would be one more than `max_events`, or more than `max_bytes` before
    compression; when it is `max_age_s` old; when the wall clock was stepped or the machine slept; and before a
    display or the keyboard layout changes, so that the change is the first row of the next one; and when a plan
    with other motion, tolerance or ticks is adopted. A sleep becomes a `Gap` of source `suspend`. How events fall
    into batches by count, size and age changes nothing about the rows, if they are not thinned (`mcilib.sampler`).
    A batch is of one grant: another one in the gate ends it.

    After a loss (`lose_open`) the displays, the layout and the program in use are told again before the next input, at
    its time and by what the gate admits then, unless their sources have told anew. So are those that the gate excludes
    because they were told before it began anew: they are true still. Titles are not kept for that.

    `set_aside(cause, count)` is told of events that become no row: `excluded` by the gate, `invalid`, and
    `coalesced` or `thinned` in a batch that came to nothing else. What a batch that was closed leaves out, it
    says itself.
    """

    def __init__(
        self,
        gate: Gate,
        clock: Clock,
        set_aside: Callable[[str, int], None],
        *,
        max_events: int,
        max_bytes: int,
        max_age_s: float,
        quanta_per_px: int,
    ) -> None:
        self._gate, self._clock, self._set_aside = gate, clock, set_aside
        self._sizes: dict[str, Any] = {
            "max_events": max_events, "max_bytes": max_bytes, "quanta_per_px": quanta_per_px
        }  # fmt: skip
        self._usual_age_s, self._quanta_per_px = max_age_s, quanta_per_px
        self._plan: Plan | None = None
        self._new_batch: Callable[..., OpenBatch] = partial(OpenBatch, **self._sizes)
        self._max_age_ns = int(max_age_s * 1e9)
        self.open: OpenBatch | None = None
        self.closed: deque[OpenBatch] = deque()
        """Ended, in order, none of them empty. Whoever writes them takes them away."""
        self.focus: tuple[int, str | None] | None = None
        """Since when (monotonic) which program is in use; None: not told, or not any more."""
        self.gap_count = self.gap_ns = 0
        self.paused_ns = 0
        """How long in all nothing was to be collected; each batch is given it as it begins."""
        self._captured: Counter[str] = Counter()  # of the batches before the open one
        self._coalesced = self._thinned = 0
        self._begun_ns = 0  # the open batch, or its first event if that is older
        self._windows: dict[str, tuple[int, int]] = {}  # kind -> times admitted into the open batch
        self._version = -1  # of the gate that said so
        self._wall_ahead_ns = 0  # of the time at which the events were seen that are being taken
        self._has_input = False  # the open batch has rows that belong to the displays and the layout before
        self.begin_run()

    def begin_run(self) -> None:
        """Forgets what the batch before said of the pointer and the clocks."""
        self._pointer_at: tuple[int, int] | None = None
        self._phase_ns: int | None = None
        self._known: dict[tuple[str, int], Display | Layout | Focus] = {}  # the last ones
        self._untold: dict[tuple[str, int], Display | Layout | Focus] = {}  # those of them to be told again
        self._suspended_ns = self._clock.suspended_ns()  # as far as gaps have told it
        self._looked_ns = self._clock.monotonic_ns()

    def adopt(self, plan: Plan) -> None:
        """What `plan` says of motion, ticks and the age of batches holds from now on, its age for the open batch too.
        Batches are at least as old as without a plan."""
        before, self._plan = self._plan or Plan(), plan
        self._max_age_ns = int(max(self._usual_age_s, plan.batch_age_s) * 1e9)
        if (plan.tick_ns, plan.motion, plan.tolerance_px) != (
            before.tick_ns,
            before.motion,
            before.tolerance_px,
        ):
            self.close()
        if plan.tick_ns != before.tick_ns or before.motion is Motion.NONE:  # without moves nothing has said
            self._phase_ns = None
        make: Callable[..., OpenBatch] = OpenBatch
        if plan.motion is not Motion.FULL:
            make = partial(ThinnedBatch, motion=plan.motion, tolerance_px=plan.tolerance_px)
        self._new_batch = partial(make, tick_ns=plan.tick_ns, **self._sizes)

    def pass_over(self, pause_ns: int, slept_ns: int) -> None:
        """For so long nothing was to be collected, and so much of it the machine slept. What follows is another batch,
        which does not tell that sleep again, and for which the pointer may be anywhere."""
        self.close()
        self.paused_ns += pause_ns
        self._suspended_ns += slept_ns
        self._pointer_at = self.focus = None

    @property
    def captured(self) -> Counter[str]:
        """Events by kind that passed the gate into a batch."""
        return self._captured + Counter(self.open.captured if self.open is not None else {})

    @property
    def coalesced(self) -> int:
        return self._coalesced + (self.open.coalesced if self.open is not None else 0)

    @property
    def thinned(self) -> int:
        return self._thinned + (self.open.thinned if self.open is not None else 0)

    @property
    def ends_ns(self) -> int | None:
        """When (monotonic) its age ends the open batch: never while a scroll step may join its last row."""
        if self.open is None:
            return None
        now_ns, growing_ns = self._clock.monotonic_ns(), self.open.growing_until_ns
        due_ns = self._begun_ns + self._max_age_ns
        # A source whose clock is ahead is not waited for.
        if growing_ns is None or not now_ns <= growing_ns <= now_ns + limits.SCROLL_MERGE_NS:
            return due_ns
        return max(due_ns, growing_ns + 1)

    def take(self, events: deque[Event]) -> None:
        """Takes away what is in `events` now, which others may be adding to. Never raises for an event."""
        waiting = len(events)
        if not waiting:
            return
        if self.open is not None and self._version != self._gate.version:
            if self.open.grant is self._gate.grant:
                self._ask_gate(self.open)
            else:
                self.close()
        slept_ns = self._clock.suspended_ns() - self._suspended_ns
        if slept_ns > limits.WALL_STEP_NS:
            waiting -= self._take_sleep(events, slept_ns)
        elif self.open is not None and abs(self.open.anchor.drift_ns(self._clock)) > limits.WALL_STEP_NS:
            self.close()  # the wall clock was stepped: a new anchor
        self._take_first(events, waiting)
        self._looked_ns = self._clock.monotonic_ns()

    def _take_sleep(self, events: deque[Event], slept_ns: int) -> int:
        """Takes the events from before the machine slept, ends their batch, begins the next one with the gap.

        Monotonic time stood still meanwhile, so it does not say which events those are: the machine is taken to
        have slept in the longest silence since the last look. Returns how many they were.
        """
        now_ns = self._clock.monotonic_ns()
        stamps = (getattr(event, "t_ns", 0) for event in events.copy())
        known = (min(t_ns, now_ns) if type(t_ns) is int else 0 for t_ns in stamps)
        times = [*accumulate((self._looked_ns, *known), max), now_ns]
        silences = list(map(sub, times[1:], times))
        before = silences.index(max(silences))
        self._gate.windows(ClockAnchor.now(self._clock))  # what is closed now is closed for all of them
        self._wall_ahead_ns = slept_ns
        try:
            if self.open is not None:
                self._ask_gate(self.open)
            self._take_first(events, before)
        finally:
            self._wall_ahead_ns = 0
        self.close()
        self._suspended_ns += slept_ns
        self._take(Gap(times[before + 1], slept_ns, "suspend"))
        return before

    def _take_first(self, events: deque[Event], count: int) -> None:
        """So many of them."""
        if self._plan is None or self._plan.motion is Motion.FULL:
            for _ in range(count):
                self._take(events.popleft())
            return
        while count:
            if (
                isinstance(self.open, ThinnedBatch)
                and not self._untold
                and (taken := self.open.take_moves(events, count, *self._windows.get("move", NEVER)))
            ):
                self._has_input = True
                count -= taken
            else:
                self._take(events.popleft())
                count -= 1

    def _take(self, event: Event) -> None:
        """One event, into the open batch or the next one."""
        try:
            batch = self.open if self.open is not None else self._begin(event.t_ns)
            from_ns, until_ns = self._windows.get(event.kind, NEVER)
            if not from_ns <= event.t_ns < until_ns:
                self._set_aside("excluded", event_count(event))
                if isinstance(event, _STATES) and event.t_ns < from_ns and event.kind in self._windows:
                    self._learn(event, is_told=False)
                return
            if self._untold and type(event) not in _NO_INPUT:
                self._tell_again(event)
                batch = self.open if self.open is not None else self._begin(event.t_ns)
            if type(event) is Focus:
                self.focus = int(event.t_ns), event.app
                event = self._gate.cut(event)
            invalid = batch.invalid
            if self._must_begin(event) or not batch.add(event):
                self.close()
                batch = self._begin(event.t_ns)
                batch.add(event)
        except (AttributeError, TypeError, ValueError, OverflowError):  # no event, from somebody's source
            self._set_aside("invalid", 1)
            return
        if batch.invalid > invalid:
            return
        if type(event) is Gap:
            self.gap_count += 1
            self.gap_ns += event.duration_ns
        elif type(event) in _STATES:
            self._learn(event, is_told=True)  # type: ignore[arg-type]
        self._has_input |= type(event) not in _NO_INPUT

    def _learn(self, state: Display | Layout | Focus, *, is_told: bool) -> None:
        """It is so until another one comes."""
        if type(state) is Focus:
            self.focus = int(state.t_ns), state.app
            state = replace(state, title=None)
        if not writable(state, self._quanta_per_px):
            return
        which = state.kind, state.display if type(state) is Display else 0
        self._known[which] = self._untold[which] = state
        if is_told:
            del self._untold[which]

    def _tell_again(self, event: Event) -> None:
        """What is not told of how things are when `event` comes. What is closed is told by its source when it is open
        again."""
        for which, state in [*self._untold.items()]:
            if which not in self._untold or type(state) is type(event):
                continue
            window = self._windows.get(state.kind)
            if window is None or (
                type(state) is Focus and (self.focus is None or self.focus[1] != state.app)
            ):
                del self._untold[which]
            elif window[0] <= event.t_ns < window[1]:
                self._take(replace(state, t_ns=event.t_ns))

    def _must_begin(self, event: Event) -> bool:
        """A batch of its own: what came before belongs to other displays or another layout."""
        return self._has_input and type(event) in (Display, Layout) and writable(event, self._quanta_per_px)

    def _begin(self, first_ns: int) -> OpenBatch:
        anchor = ClockAnchor(self._clock.monotonic_ns(), self._clock.wall_ns() - self._wall_ahead_ns)
        self._begun_ns = min(anchor.monotonic_ns, first_ns)
        self.open = batch = self._new_batch(anchor, pointer_at=self._pointer_at)
        batch.paused_ns, batch.plan = self.paused_ns, self._plan
        self._ask_gate(batch)
        batch.grant = self._gate.grant
        if self._phase_ns is not None:
            batch.align(self._phase_ns)
        self._has_input = False
        return batch

    def _ask_gate(self, batch: OpenBatch) -> None:
        self._version = self._gate.version  # first: a change meanwhile is asked about again
        self._windows = dict(self._gate.windows(batch.anchor))

    def close(self) -> None:
        """Ends the open batch now, a scroll row that may still grow too. If the grant has ended, it is gone."""
        batch, self.open = self.open, None
        if batch is None:
            return
        self._pointer_at, self._has_input = batch.pointer_at, False
        batch.ended_ns = self._clock.monotonic_ns()
        if self._gate.closed(self._clock.wall_ns()) is not None or self.is_outside(batch):
            self.lose(batch, "excluded")
            return
        self._captured.update(batch.captured)
        self._coalesced += batch.coalesced
        self._thinned += batch.thinned
        if not len(batch):
            self._set_aside("coalesced", batch.coalesced)
            self._set_aside("thinned", batch.thinned)
            self._set_aside("invalid", batch.invalid)
            return
        if self._phase_ns is None:
            phase_ns = batch.align()
            if "move" in batch.captured:  # nothing else says
                self._phase_ns = phase_ns
        self.closed.append(batch)

    def is_outside(self, batch: OpenBatch) -> bool:
        """Whether it has, or may have, what the grant as it is now does not cover: it was given anew meanwhile."""
        before, now = batch.grant, self._gate.grant
        if before is None or before is now:
            return False
        gone = set(before.scopes) - set(now.scopes)
        return any(kind in batch.captured for scope in gone for kind in SCOPES[scope].kinds)

    def lose_open(self) -> None:
        """What the open batch has taken is excluded."""
        self._untold = dict(self._known)
        batch, self.open = self.open, None
        if batch is not None:
            self._pointer_at, self._has_input = None, False
            self.lose(batch, "excluded")

    def lose_closed(self) -> None:
        """The same, for the batches that are to be written."""
        while self.closed:
            self.lose(self.closed.popleft(), "excluded")

    def lose(self, batch: OpenBatch, cause: str) -> None:
        """Sets aside all that a batch has taken: none of it becomes a row."""
        self._set_aside(cause, batch.event_count)
        self._set_aside("invalid", batch.invalid)
