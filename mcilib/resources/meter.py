"""What the library's own threads cost, those that have ended too.

A thread's CPU time and wake-ups are gone with it, so a `CostMeter` remembers its last reading. Whoever is awake anyway
reads: what a thread did between the last reading and its end is not counted, so read before threads are stopped.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mcilib.statistics import CostStatistics


@dataclass(slots=True)
class _Last:
    """Of one thread. Its parts never go down."""

    cpu_ns: int = 0
    wakeups: int = 0


class CostMeter:
    """CPU and wake-ups of what `threads` gives, since each of them began. Never goes down, never raises. Any thread.

    Linux tells both; Windows and BSD the CPU, to 16 or 10 ms (psutil; not yet run there); macOS nothing, since psutil
    names no thread as Python does. With `whole_process` all of the process counts instead, from its beginning and
    also what ended long ago: for a process that is nothing but an agent. Then macOS tells as well.

    `cpu_ns` takes 0.5 us a thread on Linux and a few more for the list of threads; `read` 13 us a thread.
    """

    def __init__(
        self, threads: Callable[[], Iterable[threading.Thread]] = tuple, *, whole_process: bool = False
    ) -> None:
        self._threads, self._whole_process = threads, whole_process
        self._lock = threading.RLock()  # again by a signal handler
        self._last: dict[threading.Thread, _Last] = {}  # by the object: ids of threads are used again
        self._ended = _Last()
        self._cpu_unknown = self._wakeups_unknown = False

    def cpu_ns(self) -> int | None:
        """CPU time, about once a second say; None where the system cannot tell."""
        if self._whole_process:
            return time.process_time_ns()
        with self._lock:
            self._read(wakeups=False)
            return None if self._cpu_unknown else self._total().cpu_ns

    def read(self) -> CostStatistics:
        """CPU, wake-ups, and how many threads live."""
        with self._lock:
            alive = self._read(wakeups=not self._whole_process)
            if self._whole_process:
                return CostStatistics(time.process_time_ns() / 1e9, _process_wakeups(), alive)
            total = self._total()
            return CostStatistics(
                None if self._cpu_unknown else total.cpu_ns / 1e9,
                None if self._wakeups_unknown else total.wakeups,
                alive,
            )

    def _total(self) -> _Last:
        parts = [self._ended, *self._last.values()]
        return _Last(sum(part.cpu_ns for part in parts), sum(part.wakeups for part in parts))

    def _read(self, *, wakeups: bool) -> int:
        """How many threads live."""
        for thread in self._threads():
            if thread.native_id is not None:
                self._last.setdefault(thread, _Last())
        for thread, last in list(self._last.items()):
            native_id = thread.native_id
            if not thread.is_alive() or native_id is None:
                if self._last.pop(thread, None) is not None:
                    self._ended.cpu_ns += last.cpu_ns
                    self._ended.wakeups += last.wakeups
                continue
            cpu_ns = thread_cpu_ns(native_id)
            if cpu_ns is not None:
                last.cpu_ns = max(last.cpu_ns, cpu_ns)
            else:
                self._cpu_unknown |= not _LINUX  # there it has just ended
            if wakeups:
                count = thread_wakeups(native_id)
                if count is not None:
                    last.wakeups = max(last.wakeups, count)
                else:
                    self._wakeups_unknown |= not _LINUX
        return len(self._last)


_LINUX = sys.platform == "linux"


def thread_cpu_ns(native_id: int) -> int | None:
    """CPU time of a thread of this process; None when it has ended, or where nobody tells.

    On Linux by the clock of the thread with this id, the one that `pthread_getcpuclockid` names (`MAKE_THREAD_CPUCLOCK`
    in linux/posix-timers.h); made from the id, since that function may crash for a thread that has ended.
    """
    if _LINUX:
        try:
            return time.clock_gettime_ns((~native_id << 3) | 6)
        except OSError:
            return None
    if sys.platform == "darwin":
        return None
    import psutil

    try:
        times = {thread.id: thread for thread in psutil.Process().threads()}
    except (psutil.Error, OSError):
        return None
    mine = times.get(native_id)
    return None if mine is None else round((mine.user_time + mine.system_time) * 1e9)


def thread_wakeups(native_id: int) -> int | None:
    """Voluntary context switches of a thread of this process: waits that ended. None as above; Linux only."""
    if not _LINUX:
        return None
    try:
        fd = os.open(f"/proc/self/task/{native_id}/status", os.O_RDONLY)
        try:
            status = os.read(fd, 8192)
        finally:
            os.close(fd)
        return int(status.split(b"\nvoluntary_ctxt_switches:")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return None


def _process_wakeups() -> int | None:
    """Of the whole process, its ended threads too."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
