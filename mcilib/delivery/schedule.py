"""The schedule on disk, so that a restart neither forgets a back-off nor a server's word.

`schedule.json` holds, per endpoint, how long was left to wait when it was written and the wall time of that
moment. No wall time decides alone: a clock that steps shortens a wait or leaves it, and never makes it longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from mcilib import limits
from mcilib.delivery._files import DiskTally, sync_folder, write_durably
from mcilib.delivery.retry import Schedule, Traffic
from mcilib.protocols import Outcome, Transport
from mcilib.statistics import DiskStatistics

SCHEDULE_FILE = "schedule.json"
"""Its name beside the batches, in the spool's folder."""

SCHEMA = 1
ENDPOINTS_MAX = 8
"""Endpoints that are remembered; the one that was used longest ago makes room."""

_FILE_MAX_BYTES = 64 * 1024
_SECOND_NS = 1_000_000_000
_HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of one endpoint."""

    schedule: Schedule
    traffic: Traffic = field(default_factory=Traffic)
    """Of it only the bytes of the last hour are kept, as if sent at once."""


class ScheduleFile:
    """`path` belongs to one process at a time: the owner of the spool beside it. Any thread.

    Nothing here raises: what is missing, damaged or of a newer version counts as nothing, and what the disk
    refuses is not remembered.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._tally = DiskTally()

    def __repr__(self) -> str:
        return f"ScheduleFile({os.fspath(self.path)!r})"

    def load(
        self, endpoint: str, *, now_ns: int, wall_ns: int, interval_s: float, random: Random
    ) -> Remembered | None:
        """What was saved for `endpoint`, seen from `now_ns` (monotonic) and `wall_ns` (Unix time)."""
        try:
            return _parse(self._endpoints()[endpoint], now_ns, wall_ns, interval_s, random)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None

    def save(self, endpoint: str, remembered: Remembered, *, now_ns: int, wall_ns: int) -> None:
        """Durable when it returns, unless the disk refuses."""
        with self._lock, contextlib.suppress(OSError, RecursionError):
            endpoints = self._endpoints()
            endpoints.pop(endpoint, None)
            endpoints[endpoint] = _record(remembered, now_ns, wall_ns)
            for oldest in list(endpoints)[:-ENDPOINTS_MAX]:
                del endpoints[oldest]
            data = _file(endpoints)
            if len(data) > _FILE_MAX_BYTES:  # endless addresses, or something that is not ours
                data = _file({endpoint: endpoints[endpoint]})
            new = self.path.with_name(self.path.name + ".new")
            write_durably(new, data, tally=self._tally)
            os.replace(new, self.path)
            sync_folder(self.path.parent, self._tally)

    def disk_statistics(self) -> DiskStatistics:
        """What this object has written and fsynced since it was made; never goes down. Never waits."""
        return self._tally.statistics()

    def _endpoints(self) -> dict[str, Any]:
        """Least recently used first; empty when the file is not there or is not one of ours."""
        try:
            with open(self.path, "rb") as file:
                document = json.loads(file.read(_FILE_MAX_BYTES))
            endpoints = document["endpoints"] if document["schema"] == SCHEMA else {}
            return endpoints if isinstance(endpoints, dict) else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}


def _file(endpoints: dict[str, Any]) -> bytes:
    return json.dumps({"schema": SCHEMA, "endpoints": endpoints}, indent=1).encode()


def endpoint_of(transport: Transport) -> str:
    """Under which name the schedule of `transport` is remembered: its `endpoint`, where it has one."""
    return str(getattr(transport, "endpoint", ""))


def _record(remembered: Remembered, now_ns: int, wall_ns: int) -> dict[str, Any]:
    schedule = remembered.schedule
    return {
        "saved_wall_ns": wall_ns,
        "next_s": schedule.wait_s(now_ns),
        "not_before_s": max(0, schedule.not_before_ns - now_ns) / _SECOND_NS,
        "failures": schedule.failures,
        "outcome": schedule.outcome.value if schedule.outcome is not None else None,
        "rejects_in_a_row": schedule.rejects_in_a_row,
        "bytes_last_hour": remembered.traffic.bytes_last_hour(now_ns),
    }


def _parse(
    record: dict[str, Any], now_ns: int, wall_ns: int, interval_s: float, random: Random
) -> Remembered:
    gone_by_s = (wall_ns - int(record["saved_wall_ns"])) / _SECOND_NS
    outcome = None if record["outcome"] is None else Outcome(record["outcome"])
    failures = max(0, int(record["failures"]))
    not_before_s = _left_s(record["not_before_s"], gone_by_s, limits.RETRY_AFTER_CAP_S)
    if outcome is Outcome.GONE:  # asked again, but only then
        stored_s = limits.GONE_WAIT_S if record["next_s"] is None else record["next_s"]
        next_s = not_before_s = _left_s(stored_s, gone_by_s, limits.GONE_WAIT_S)
    else:
        longest_s = limits.BACKOFF_CAP_S if failures else interval_s
        if outcome is Outcome.REFUSED:
            longest_s = interval_s  # a person may have mended it before the restart
        longest_s = max(longest_s, not_before_s + interval_s)
        drawn_s = _next_s(_seconds(record["next_s"]), gone_by_s, longest_s, interval_s, random)
        next_s = not_before_s + random.uniform(0.0, interval_s) if drawn_s is None else drawn_s
    sent = max(0, int(record["bytes_last_hour"])) if 0 <= gone_by_s < _HOUR_S else 0
    return Remembered(
        Schedule(
            next_attempt_ns=now_ns + round(max(next_s, not_before_s) * _SECOND_NS),
            not_before_ns=now_ns + round(not_before_s * _SECOND_NS),
            failures=failures,
            outcome=outcome,
            rejects_in_a_row=max(0, int(record["rejects_in_a_row"])),
        ),
        Traffic(((now_ns - round(gone_by_s * _SECOND_NS), sent),) if sent else ()),
    )


def _next_s(
    stored_s: float, gone_by_s: float, longest_s: float, interval_s: float, random: Random
) -> float | None:
    """What is left of the wait for the next upload; None: it is to be drawn anew within one interval.

    A wait that ended while nothing ran goes on where it was: so an agent that runs for minutes a day uploads
    too, and an office that starts at nine does not upload at nine.
    """
    if (
        gone_by_s < 0
    ):  # the clock went back: a random part, so that a device without one gets through in the end
        left_s = random.uniform(0.0, stored_s)
    elif gone_by_s < stored_s:
        left_s = stored_s - gone_by_s
    elif 0 < stored_s <= interval_s:
        left_s = stored_s
    else:
        return None
    return left_s if left_s <= longest_s else None


def _left_s(stored: object, gone_by_s: float, longest_s: float) -> float:
    return max(0.0, min(_seconds(stored), longest_s) - max(0.0, gone_by_s))


def _seconds(stored: object) -> float:
    if isinstance(stored, bool) or not isinstance(stored, int | float) or not 0 <= stored < float("inf"):
        raise ValueError
    return float(stored)
