"""Rows -> where the pointer was, at any time: the path that the rows of a batch tell, thinned or not."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from mcilib import limits
from mcilib.events import Event, Move, Press, Release, Scroll


class PointerPath:
    """The path of a pointer. Between two of its rows (moves, presses, releases, scrolls) at most 100 ms apart it
    goes in a straight line; over a longer gap it rests where the first one was until the time of the second.
    Before its first row it is nowhere; after its last one it rests there. Rows of the same time make it jump.

    `rows` are the events of a `Batch`, or of several of one boot of one device; others than the pointer's are passed
    over. Never changes; any thread.
    """

    def __init__(self, rows: Iterable[Event]) -> None:
        points = [
            (row.t_ns, row.x, row.y) for row in rows if isinstance(row, Move | Press | Release | Scroll)
        ]
        self._points = sorted(points, key=lambda point: point[0])
        self._times = [t_ns for t_ns, _, _ in self._points]

    def at(self, t_ns: int, *, arriving: bool = False) -> tuple[float, float] | None:
        """Where the pointer is at that monotonic time, in px: after the rows of that time, or, `arriving`, just before
        them. None before its first row."""
        after = (bisect_left if arriving else bisect_right)(self._times, t_ns)
        if not after:
            return None
        begin_ns, x, y = self._points[after - 1]
        if after < len(self._points):
            end_ns, to_x, to_y = self._points[after]
            if end_ns - begin_ns <= limits.REST_NS:
                done = (t_ns - begin_ns) / (end_ns - begin_ns)
                return x + (to_x - x) * done, y + (to_y - y) * done
        return x, y
