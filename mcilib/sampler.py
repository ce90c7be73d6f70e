"""Thinning of pointer motion with a bounded error: a batch that keeps a move only where the path needs it.

**The path** that rows tell: between two rows of the pointer (moves, presses, releases, scrolls) at most
`limits.REST_NS` apart it goes in a straight line; over a longer gap it rests at the first row's place until the
second's time. Rows of one tick make it jump within that tick.

**The bound.** The path of the kept rows lies within the tolerance of the path of all rows, on each axis, at every
moment: at each tick, at each row within a tick, and between. So a pointer that rests over 100 ms rests in the kept
path. It is exact, and holds wherever times do not go back.

**The filter** is a swing filter (Elmeleegy et al., VLDB 2009) that ends at samples. From the last kept row it
keeps, for each axis, the slopes under which a straight line passes every sample since within the tolerance. A
sample whose own slope is one of them may be the next kept row. When it is none, the sample before it is kept.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from mcilib import limits
from mcilib.events import Event, Move, Press, Release, Scroll
from mcilib.format.open_batch import OpenBatch
from mcilib.format.rare import to_quanta
from mcilib.policy.plan import Motion

_PARTS = 1024
"""Tolerances are rounded down to this part of a quantum. Then the slopes that are compared are fractions with
denominators of at most 1,024 * 100 (a rest of 100 ticks), which differ by 2**-23.3 or not at all; correctly rounded
quotients below 2**28 keep apart what differs by that much. So comparing floats is exact."""
_PLACE_MAX = 2**23
"""In quanta: 32,768 px at the finest. A move farther out than this is always kept. What a line between places within
this reaches in 100 ticks is a place that can be written, so that what fits a line needs no look."""
_SLOPE_MAX = 2.0 * _PLACE_MAX


class ThinnedBatch(OpenBatch):
    """An open batch whose moves are thinned. The last move stands as a row that the next one may replace, so that
    the batch may be closed at any time. Constant memory beside the rows, and the same work for each event.

    `motion` THINNED keeps the path within `tolerance_px` on each axis. ENDPOINTS keeps the moves after which the
    pointer rested over 100 ms or did something else than move, and the first and last of the batch. NONE keeps no
    move. Everything that is no move is kept. Moves to where the pointer already was are coalesced as without
    thinning; `thinned` counts the others that become no row. `tick_ns` as in a plan: not below 1 ms.
    """

    __slots__ = (
        "_a_tick", "_a_x", "_a_y", "_b_tick", "_begin_ns", "_high_x", "_high_y", "_inside", "_is_open", "_low_x",
        "_low_y", "_motion", "_phase_ns", "_rest_ticks", "_tolerance",
    )  # fmt: skip

    def __init__(self, *args: Any, motion: Motion, tolerance_px: float, **more: Any) -> None:
        super().__init__(*args, **more)
        if self.tick_ns < limits.TICK_NS:
            raise ValueError(f"tick_ns is {self.tick_ns}, below {limits.TICK_NS}")
        self._motion = motion
        self._tolerance = math.floor(tolerance_px * self.quanta_per_px * _PARTS) / _PARTS
        if motion is Motion.ENDPOINTS:
            self._tolerance = math.inf
        self._rest_ticks = limits.REST_NS // self.tick_ns
        self._phase_ns: int | None = None
        self._begin_ns = 0
        # B is the last row with a place, where the pointer is; if it is open, the next move may replace it. A is the
        # row before it then.
        self._b_tick: int | None = None
        self._is_open = False
        self._a_tick = self._a_x = self._a_y = 0
        self._low_x = self._high_x = self._low_y = self._high_y = 0.0  # slopes from A, in quanta per tick
        self._inside = False  # all samples after A, with B, are within the tolerance of A

    def align(self, phase_ns: int | None = None) -> int:
        """As any batch, but once: a row that has a tick keeps it. If nobody has asked for it before, the first row
        with a place lies in the middle of its tick."""
        if self._phase_ns is None:
            self._phase_ns = super().align(phase_ns)
            self._begin_ns = self.anchor.monotonic_ns - self.tick_ns // 2
        return self._phase_ns

    def add(self, event: Event) -> bool:
        """One event, of any kind. A move that becomes a row here stays one, except with NONE."""
        rows = len(self)
        if not super().add(event):
            return False
        if len(self) > rows:
            if self._motion is Motion.NONE and type(event) is Move:
                self._take_back()
            else:
                self._stay(event)
        return True

    def _stay(self, event: Event) -> None:
        """The row that `event` has become stays, and so does the one before it."""
        self._is_open = False
        if isinstance(event, Move | Press | Release | Scroll):
            if self._phase_ns is None:
                self.align(int(event.t_ns) % self.tick_ns)
            self._b_tick = int((event.t_ns - self._begin_ns) // self.tick_ns)

    def _take_back(self) -> None:
        """The last row, a move, is none."""
        for column in (self._t_ns, self._x, self._y):
            column.pop()
        self._room += 1
        self.thinned += 1
        if self._runs and self._runs[-1][0] == len(self._t_ns) + self._rare_inputs:  # it began one
            self._runs.pop()
            self._synthetic = self._runs[-1][1] if self._runs else None

    def take_moves(self, events: deque[Event], most: int, from_ns: int, until_ns: int) -> int:
        """Takes away the moves at the head of `events`, of which there are at least `most`: no more than that, those
        from `from_ns` on and before `until_ns`, and none that needs `add` instead (the first of a batch; one for which
        there is no room, or whose time goes back; what is not valid). Returns how many. Others may be adding to
        `events`.
        """
        b_tick, b_x, b_y = self._b_tick, self._at_x, self._at_y
        if b_tick is None or b_x is None or b_y is None:
            return 0
        begin_ns, tick_ns = self._begin_ns, self.tick_ns
        until_ns, synthetic = min(until_ns, self._last_ns + 1), self._synthetic
        quanta, limit, none = self.quanta_per_px, _PLACE_MAX, self._motion is Motion.NONE
        rest, tolerance, ends = self._rest_ticks, self._tolerance, self._motion is Motion.ENDPOINTS
        a_tick, a_x, a_y, inside = self._a_tick, self._a_x, self._a_y, self._inside
        low_x, high_x, low_y, high_y = self._low_x, self._high_x, self._low_y, self._high_y
        is_open, room, popleft = self._is_open, self._room, events.popleft
        times, xs, ys = self._t_ns, self._x, self._y
        b_ns: int | None = None  # the time of B, while the row does not have it
        taken = coalesced = thinned = 0
        for taken in range(most):  # noqa: B007  (read after a break)
            event: Any = popleft()
            try:
                if type(event) is not Move or event.synthetic is not synthetic:
                    break
                t_ns, x, y = event.t_ns, event.x, event.y
                if not from_ns <= t_ns < until_ns:
                    break
                if quanta != 1 or type(x) is not int or type(y) is not int:
                    x, y = to_quanta(x, quanta), to_quanta(y, quanta)
                if x == b_x and y == b_y:
                    coalesced += 1
                    continue
                tick = (t_ns - begin_ns) // tick_ns
                if tick < b_tick:
                    break
            except (AttributeError, TypeError, ValueError, OverflowError):  # `add` counts it
                break
            fits = False
            if is_open:
                dt, dx, dy = tick - a_tick, x - a_x, y - a_y
                if 0 < dt <= rest:
                    fits = low_x <= dx / dt <= high_x and low_y <= dy / dt <= high_y
                elif not (-limit <= x <= limit and -limit <= y <= limit):
                    break
                elif ends:
                    fits = tick - b_tick <= rest
                elif inside:  # the kept path is at A until this tick
                    jumps = tick == b_tick or tick - b_tick > rest
                    fits = jumps or (-tolerance <= dx <= tolerance and -tolerance <= dy <= tolerance)
            elif none:
                thinned += 1
                b_tick, b_x, b_y = tick, x, y
                continue
            if fits:
                thinned += 1
                b_ns = t_ns
            else:
                far = max(x, y, b_x, b_y) > limit or min(x, y, b_x, b_y) < -limit
                if room <= 0 or far:
                    break
                if b_ns is not None:
                    times[-1], xs[-1], ys[-1], b_ns = int(b_ns), b_x, b_y, None
                times.append(int(t_ns))
                xs.append(x)
                ys.append(y)
                room -= 1
                a_tick, a_x, a_y, is_open, inside = b_tick, b_x, b_y, True, True
                dt, dx, dy = tick - a_tick, x - a_x, y - a_y
                low_x = low_y = -_SLOPE_MAX
                high_x = high_y = _SLOPE_MAX
            b_tick, b_x, b_y = tick, x, y
            if inside:
                inside = -tolerance <= dx <= tolerance and -tolerance <= dy <= tolerance
            if 0 < dt <= rest:
                if (slope := (dx - tolerance) / dt) > low_x:
                    low_x = slope
                if (slope := (dx + tolerance) / dt) < high_x:
                    high_x = slope
                if (slope := (dy - tolerance) / dt) > low_y:
                    low_y = slope
                if (slope := (dy + tolerance) / dt) < high_y:
                    high_y = slope
            elif not inside:  # away from A in its tick; after a rest slopes mean nothing
                low_x = math.inf
        else:
            taken, event = most, None
        if event is not None:
            events.appendleft(event)
        if b_ns is not None:
            times[-1], xs[-1], ys[-1] = int(b_ns), b_x, b_y
        if thinned or room < self._room:
            self._scroll = -1  # as after a row
        self._a_tick, self._a_x, self._a_y, self._inside = a_tick, a_x, a_y, inside
        self._low_x, self._high_x, self._low_y, self._high_y = low_x, high_x, low_y, high_y
        self._b_tick, self._at_x, self._at_y, self._is_open, self._room = b_tick, b_x, b_y, is_open, room
        self.coalesced += coalesced
        self.thinned += thinned
        return taken
