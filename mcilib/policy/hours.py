"""Weekly windows of local time, and quiet hours made of them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from mcilib.policy.plan import Plan, Upload
from mcilib.policy.policy import CpuMeansNothing, Latches, Moment
from mcilib.policy.state import ResourceState

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_S = 1_000_000_000
_DAY_NS = 86_400 * _S
_WEEK_NS = 7 * _DAY_NS
_EPOCH_NS = 3 * _DAY_NS
"""Unix time began on a Thursday: so far into a week that begins on Monday."""

_WINDOW = re.compile(
    r"(?:([a-z][a-z, -]*[a-z])\s+)?([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})", re.IGNORECASE
)
_MUST_BE = "must be such as 'mon-fri 22:00-07:00', 'sat,sun 00:00-24:00' or '12:00-13:00'"


@dataclass(frozen=True, slots=True)
class Window:
    """From a time of the day to another; when that is not later, of the day after. Times are those that
    clocks on the wall show: an hour that is skipped or comes twice with summer time is not there, or is there
    twice."""

    days: frozenset[int]
    """On which it begins, 0 is Monday."""
    start_ns: int
    end_ns: int
    """Of the day, 0 to 24 h."""

    @classmethod
    def parse(cls, text: str) -> Window:
        """Of `mon-fri 22:00-07:00`; without days it is every day's. Raises `ValueError`."""
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise ValueError(_MUST_BE)
        start, end = (
            (int(h) * 60 + int(m)) * 60 * _S if int(h) * 60 + int(m) <= 24 * 60 and int(m) < 60 else None
            for h, m in ((match[2], match[3]), (match[4], match[5]))
        )
        if start is None or end is None or start == _DAY_NS:
            raise ValueError("a time is 00:00 to 23:59, or 24:00 at the end")
        if start == end:
            raise ValueError("it begins when it ends; a whole day is 00:00-24:00")
        return cls(_days(match[1]) if match[1] else frozenset(range(7)), start, end)

    def holds(self, week_ns: int) -> bool:
        """`week_ns`: local time since Monday, 0:00."""
        return any((week_ns - begin) % _WEEK_NS < self._length_ns for begin in self._begins)

    def change_ns(self, week_ns: int) -> int:
        """Until the next beginning or end."""
        edges = [edge for begin in self._begins for edge in (begin, begin + self._length_ns)]
        return min((edge - week_ns) % _WEEK_NS or _WEEK_NS for edge in edges)

    @property
    def _begins(self) -> list[int]:
        return [day * _DAY_NS + self.start_ns for day in self.days]

    @property
    def _length_ns(self) -> int:
        return self.end_ns - self.start_ns + (_DAY_NS if self.end_ns < self.start_ns else 0)


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        names = [name.strip() for name in part.split("-")]
        if len(names) > 2 or any(name not in DAYS for name in names):
            raise ValueError(f"{part.strip()!r} is no day; {_MUST_BE}, with the days {' '.join(DAYS)}")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        days |= {(first + more) % 7 for more in range((last - first) % 7 + 1)}
    return frozenset(days)


def week_ns(wall_ns: int, tz: tzinfo | None = None) -> int:
    """Local time since Monday, 0:00; of the system's time zone, as it is now, unless `tz` is given."""
    _learn_zone(tz)
    return (wall_ns + _offset_ns(wall_ns, tz) + _EPOCH_NS) % _WEEK_NS


def change_s(windows: Sequence[Window], wall_ns: int, tz: tzinfo | None = None) -> float | None:
    """Seconds until one of them may begin or end; never too late, but once more when local time steps."""
    if not windows:
        return None
    _learn_zone(tz)
    offset = _offset_ns(wall_ns, tz)
    good = 0
    wait = -(-min(window.change_ns(week_ns(wall_ns, tz)) for window in windows) // _S)
    if _offset_ns(wall_ns + wait * _S, tz) == offset:
        return wait
    while wait - good > 1:  # to the second at which local time steps
        middle = (good + wait) // 2
        if _offset_ns(wall_ns + middle * _S, tz) == offset:
            good = middle
        else:
            wait = middle
    return wait


def _learn_zone(tz: tzinfo | None) -> None:
    """A process keeps to the zone that it found first: one that was changed since, on a journey, is to be asked for.
    Takes 10 us. Windows has no such call."""
    if tz is None and sys.platform != "win32":
        time.tzset()


def _offset_ns(wall_ns: int, tz: tzinfo | None) -> int:
    offset = datetime.fromtimestamp(wall_ns // _S, UTC).astimezone(tz).utcoffset()
    return int(offset.total_seconds()) * _S if offset is not None else 0


class QuietHours(CpuMeansNothing):
    """In these windows no data is sent; with `capture=False` nothing is captured either. `tz` is the system's
    time zone unless given. Raises `ValueError` for what is no window."""

    name = "quiet hours"

    def __init__(self, *windows: str, capture: bool = True, tz: tzinfo | None = None) -> None:
        self._windows = tuple(Window.parse(text) for text in windows)
        self._tz = tz
        self._plan = Plan(capture=capture, upload=Upload.CONTROL, reasons=("quiet hours",))

    def __call__(self, state: ResourceState, latches: Latches, moment: Moment) -> tuple[Plan, None]:
        now = week_ns(moment.wall_ns, self._tz) if self._windows else 0
        return (self._plan if any(w.holds(now) for w in self._windows) else Plan()), None

    def due_s(self, moment: Moment) -> float | None:
        return change_s(self._windows, moment.wall_ns, self._tz)
