"""The impact ledger: what the library used, by local calendar day, kept in the state folder (`impact.json`).

It adds up what others count: readings of counters that only grow. What was used between two readings belongs to the
day of the second; running time is split at midnight. The file is replaced whole and never fsynced: what a crash
loses is accounting since the last save.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from mcilib import limits
from mcilib.clock import Clock, SystemClock
from mcilib.files import read_file, write_private
from mcilib.resources.energy import MachineEnergy, estimate
from mcilib.statistics import CostStatistics, DiskStatistics, Impact, ImpactStatistics, UploadStatistics

IMPACT_FILE = "impact.json"
"""Its name in the state folder."""

SCHEMA = 1

_FILE_MAX_BYTES = 64 * 1024  # thirty-two records take 7 KiB at most
_KEY = re.compile(
    r"running_ns|cpu_ns|wakeups|written_bytes|fsyncs|sent_bytes|undelivered_requests"
    r"|requests\.[a-z_]{1,20}|machine_(uj|ns)\.[a-z_]{1,20}"
)
_KEYS_MAX = 40
_LARGEST = 2**63  # of any counter
_LAST_S = 253_402_214_400  # the last day that a calendar has

Used = Counter[str]
"""Amounts by key. A key that is not there was never told."""


class ImpactLedger:
    """Adds up readings, by day. Any thread; nothing raises. `path` belongs to one process at a time: the owner of the
    spool beside it. In a child made by `fork` nothing is done.

    What is missing, damaged, too large or of a newer version counts as nothing; the first save sets such a file aside
    as `impact.json.old`. `machine`, if given, is read at each `note`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        machine: MachineEnergy | None = None,
    ) -> None:
        self.path = Path(path)
        self._clock: Clock = clock or SystemClock()
        self._machine = machine
        self._lock = threading.RLock()  # again by a signal handler; never held while the disk is waited for
        self._writing = threading.Lock()
        self._pid = 0
        self._earlier, self._days, self._strange = Used(), dict[str, Used](), False
        self._since_start = Used()
        self._last = Used()
        self._own_bytes = 0
        self._noted_ns = self._saved_ns = 0

    def begin(
        self, *, cost: CostStatistics | None = None, disk: Iterable[DiskStatistics] = (),
        upload: UploadStatistics | None = None,
    ) -> None:  # fmt: skip
        """Reads the file, and begins to count. What is given was used before, and is not counted."""
        with self._lock:
            self._pid = os.getpid()
            found = _load(self.path)
            self._strange = found is None
            self._earlier, self._days = found or (Used(), {})
            self._since_start, self._own_bytes = Used(), 0
            self._last = _reading(cost, disk, upload)
            self._noted_ns = self._saved_ns = self._clock.monotonic_ns()
            if self._machine is not None:
                self._machine.read(self._noted_ns)

    def note(
        self, *, cost: CostStatistics | None = None, disk: Iterable[DiskStatistics] = (),
        upload: UploadStatistics | None = None, save: bool = True,
    ) -> None:  # fmt: skip
        """Takes a reading: totals that only grow. One that is less than the last began anew at 0. Saves once in
        `limits.LEDGER_SAVE_S`, unless `save` is False: then nothing is waited for."""
        with self._lock:
            if self._pid != os.getpid():
                return
            now_ns = self._clock.monotonic_ns()
            used = self._used(_reading(cost, disk, upload), now_ns)
            spread = list(_spread(max(0, now_ns - self._noted_ns), self._clock.wall_ns()))
            self._noted_ns = max(self._noted_ns, now_ns)
            for day, running_ns in spread:
                if running_ns:
                    self._add(day, Used(running_ns=running_ns))
            self._add(spread[0][0], used)
            self._prune(spread[0][0])
            is_due = now_ns - self._saved_ns >= limits.LEDGER_SAVE_S * 1e9
        if is_due and save:
            self.save()

    def save(self) -> None:
        """In place of the old file, mode 0600, unless the disk refuses or another thread is at it. No fsync."""
        if self._pid == os.getpid() and self._writing.acquire(timeout=limits.LEDGER_WAIT_S):
            try:
                self._save()
            finally:
                self._writing.release()

    def statistics(self) -> ImpactStatistics:
        """As of the last `note`."""
        with self._lock:
            return _statistics(self._since_start, self._earlier, self._days, self._clock.wall_ns())

    @staticmethod
    def read(path: str | os.PathLike[str], wall_ns: int | None = None) -> ImpactStatistics:
        """What a file says, whoever writes it now; all zero when there is none or it is not one of ours."""
        earlier, days = _load(Path(path)) or (Used(), {})
        return _statistics(Used(), earlier, days, SystemClock().wall_ns() if wall_ns is None else wall_ns)

    # --- within the lock ------------------------------------------------------------------------------------

    def _used(self, reading: Used, now_ns: int) -> Used:
        used = Used()
        for key, value in reading.items():
            before = self._last[key]
            used[key] = value - before if value >= before else value
            self._last[key] = value
        if self._own_bytes:
            used["written_bytes"] += self._own_bytes
            self._own_bytes = 0
        for kind, (uj, passed_ns) in (
            self._machine.read(now_ns) if self._machine is not None else {}
        ).items():
            used[f"machine_uj.{kind}"] += uj
            used[f"machine_ns.{kind}"] += passed_ns
        return used

    def _add(self, day: str, used: Used) -> None:
        self._days.setdefault(day, Used()).update(used)
        self._since_start.update(used)

    def _prune(self, today: str) -> None:
        """The oldest days make room, today never: a clock that went back must not lose what is counted now."""
        for day in sorted(self._days.keys() - {today})[: max(0, len(self._days) - limits.LEDGER_DAYS)]:
            self._earlier.update(self._days.pop(day))

    # --- the file, by one thread at a time -------------------------------------------------------------------

    def _save(self) -> None:
        with self._lock:
            self._saved_ns = self._clock.monotonic_ns()
            record = {"schema": SCHEMA, "earlier": self._earlier, "days": dict(sorted(self._days.items()))}
            data = json.dumps(record, separators=(",", ":")).encode()
        with contextlib.suppress(OSError):
            if self._strange:
                os.replace(self.path, self.path.with_name(self.path.name + ".old"))
                self._strange = False
        with contextlib.suppress(OSError):
            write_private(self.path, data, durable=False)
            with self._lock:
                self._own_bytes += len(data)


def _reading(
    cost: CostStatistics | None, disk: Iterable[DiskStatistics], upload: UploadStatistics | None
) -> Used:
    reading = Used()
    if cost is not None and cost.cpu_s is not None:
        reading["cpu_ns"] = round(cost.cpu_s * 1e9)
    if cost is not None and cost.wakeups is not None:
        reading["wakeups"] = cost.wakeups
    for one in disk:
        reading["written_bytes"] += one.written_bytes
        reading["fsyncs"] += one.fsyncs
    if upload is not None:
        reading["sent_bytes"] = upload.bytes_sent
        delivered = upload.requests_by_outcome.get("delivered", 0)
        reading["undelivered_requests"] = sum(upload.requests_by_outcome.values()) - delivered
        for cause, count in upload.requests_by_cause.items():
            reading[f"requests.{cause}"] = count
    return reading


def _spread(passed_ns: int, wall_ns: int) -> Iterator[tuple[str, int]]:
    """The days, today first, that the last `passed_ns` fell on, with the part of each."""
    day, lasted_ns = _local(wall_ns)
    for _ in range(limits.LEDGER_DAYS):
        part_ns = min(passed_ns, lasted_ns)
        yield day, part_ns
        passed_ns -= part_ns
        if not passed_ns:
            return
        wall_ns -= lasted_ns
        day, lasted_ns = _local(wall_ns - 1)
        lasted_ns += 1
    yield day, passed_ns


def _local(wall_ns: int) -> tuple[str, int]:
    """The calendar day here, and how long it has lasted. A clock beyond all calendars shows its nearest day."""
    seconds = max(0, min(wall_ns // 10**9, _LAST_S))
    try:
        now = datetime.fromtimestamp(seconds)  # noqa: DTZ006  (here: as people on this device count days)
        begun_s = datetime(now.year, now.month, now.day).timestamp()  # noqa: DTZ001  (of two midnights the first)
    except (OSError, OverflowError, ValueError):  # Windows knows few years
        now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        begun_s = seconds // 86_400 * 86_400
    return f"{now:%Y-%m-%d}", max(0, seconds * 10**9 + wall_ns % 10**9 - round(begun_s * 1e9))


# --- the file -----------------------------------------------------------------------------------------------


def _load(path: Path) -> tuple[Used, dict[str, Used]] | None:
    """None when it is there and not one of ours."""
    try:
        record = json.loads(read_file(path, _FILE_MAX_BYTES))
        if record["schema"] != SCHEMA or len(record["days"]) > 2 * limits.LEDGER_DAYS:
            return None
        days = {_day(day): _amounts(amounts) for day, amounts in record["days"].items()}
        return _amounts(record["earlier"]), days
    except FileNotFoundError:
        return Used(), {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _day(text: str) -> str:
    if date.fromisoformat(text).isoformat() != text:
        raise ValueError
    return text


def _amounts(record: dict[str, Any]) -> Used:
    if len(record) > _KEYS_MAX:
        raise ValueError
    for key, value in record.items():
        if not _KEY.fullmatch(key) or type(value) is not int or not 0 <= value < _LARGEST:
            raise ValueError
    return Used(record)


# --- in words of statistics ---------------------------------------------------------------------------------


def _statistics(since_start: Used, earlier: Used, days: Mapping[str, Used], wall_ns: int) -> ImpactStatistics:
    kept = Used()
    for day in days.values():
        kept.update(day)
    total = Used(kept)
    total.update(earlier)
    return ImpactStatistics(
        since_start=_impact(since_start),
        today=_impact(days.get(_local(wall_ns)[0], Used())),
        kept=_impact(kept),
        total=_impact(total),
        days={day: _impact(days[day]) for day in sorted(days)},
    )


def _impact(used: Used) -> Impact:
    if not used:
        return Impact()

    def named(prefix: str) -> dict[str, int]:
        return {k.removeprefix(prefix): v for k, v in used.items() if k.startswith(prefix)}

    requests = named("requests.")
    cpu_s = used["cpu_ns"] / 1e9 if "cpu_ns" in used else None
    wakeups = used.get("wakeups")
    amounts = {"requests": sum(requests.values()), "cpu_s": cpu_s, "wakeups": wakeups}
    amounts |= {key: used[key] for key in ("sent_bytes", "fsyncs", "written_bytes")}
    seconds = named("machine_ns.")
    return Impact(
        running_s=used["running_ns"] / 1e9,
        cpu_s=cpu_s,
        wakeups=wakeups,
        written_bytes=used["written_bytes"],
        fsyncs=used["fsyncs"],
        sent_bytes=used["sent_bytes"],
        requests=requests,
        undelivered_requests=used["undelivered_requests"],
        energy=estimate(amounts),
        machine={kind: (uj / 1e6, seconds.get(kind, 0) / 1e9) for kind, uj in named("machine_uj.").items()},
    )
