"""The clock by which batches age: the spool's own. No step of the wall clock turns it back or far ahead.

It begins at the wall time at which the folder was made, so that the dates of the files, which are by this clock,
mean something to people. While a process runs, and from one process to the next within a boot, it goes with the time
since the boot, sleep included. Only between two boots is the wall clock asked, and believed within limits.
"""

from __future__ import annotations

from dataclasses import dataclass

from mcilib import limits
from mcilib.clock import Clock

_GAP_CAP_NS = int(limits.SPOOL_CLOCK_GAP_CAP_S * 1e9)


@dataclass(frozen=True, slots=True)
class Anchor:
    """The same moment on the spool's clock and on those of the machine, in ns; stored in `state.json`."""

    age_ns: int
    began_ns: int
    """Where the spool's clock began; no file is older."""
    boot: str
    running_ns: int
    """Since the boot, sleep included."""
    wall_ns: int

    @classmethod
    def from_record(cls, record: object) -> Anchor | None:
        """None when it is damaged, or not there."""
        try:
            boot = record["boot"]  # type: ignore[index]
            times = [record[name] for name in ("age_ns", "began_ns", "running_ns", "wall_ns")]  # type: ignore[index]
        except (KeyError, TypeError):
            return None
        if not isinstance(boot, str) or not all(type(t) is int and abs(t) < 2**63 for t in times):
            return None
        age_ns, began_ns, running_ns, wall_ns = times
        return cls(age_ns, began_ns, boot, running_ns, wall_ns)

    def passed_ns(self, boot: str, running_ns: int, wall_ns: int) -> int:
        """How much time has gone by since, at least 0."""
        if boot == self.boot and running_ns >= self.running_ns:
            return running_ns - self.running_ns
        return min(max(0, wall_ns - self.wall_ns), _GAP_CAP_NS)


class AgeClock:
    """Goes on from `anchor`, or begins. Any thread."""

    def __init__(self, anchor: Anchor | None, clock: Clock, boot: str) -> None:
        self._clock, self._boot = clock, boot
        self._running_ns = self._since_boot_ns()
        wall_ns = clock.wall_ns()
        if anchor is None:
            self._started_ns = self._began_ns = wall_ns
        else:
            self._started_ns = anchor.age_ns + anchor.passed_ns(boot, self._running_ns, wall_ns)
            self._began_ns = anchor.began_ns

    def _since_boot_ns(self) -> int:
        return self._clock.monotonic_ns() + self._clock.suspended_ns()

    def now_ns(self) -> int:
        return self._started_ns + max(0, self._since_boot_ns() - self._running_ns)

    def believed_ns(self, modified_ns: int) -> int:
        """A file's date, if it can be by this clock; else the nearest that can."""
        return max(min(modified_ns, self.now_ns()), self._began_ns)

    def anchor(self) -> Anchor:
        return Anchor(self.now_ns(), self._began_ns, self._boot, self._since_boot_ns(), self._clock.wall_ns())
