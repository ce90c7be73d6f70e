"""Snapshots: what was captured, what became of it, what it cost, and whether all is well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mcilib.errors import McilibError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: which part, what, and what to do."""

    part: str
    message: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Health:
    """All is well when `problems` is empty."""

    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    @classmethod
    def of(cls, part: str, error: McilibError | None) -> Health:
        """The one problem that an error tells, or none."""
        return cls((Problem(part, error.problem, error.next_step),)) if error is not None else cls()

    @classmethod
    def join(cls, parts: Iterable[Health]) -> Health:
        return cls(tuple(p for part in parts for p in part.problems))


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `forget`, a narrower grant or a withdrawal has deleted."""

    batches: int = 0
    """Whole batches that waited on this device."""
    asked: int = 0
    """Control records to the receiver that ask it to delete what it may have; 0: nothing was ever committed."""
    events: int = 0
    """Events in memory that were in no batch yet."""


@dataclass(frozen=True, slots=True)
class CaptureStatistics:
    """Since start. Counts are events of the system: a merged scroll counts all its steps."""

    captured: Mapping[str, int] = field(default_factory=dict)
    """By kind: events that passed the gate into a batch."""
    coalesced: int = 0
    """Of these, moves to where the pointer already was: counted in a batch, and no row of it."""
    thinned: int = 0
    """Of these, moves that the plan in force left out: counted in a batch, and no row of it."""
    excluded: int = 0
    """Events that the grant did not allow, or while nothing was to be collected; nothing of them was kept."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """By cause: events that were seen and lost. `buffer_full`: the recorder did not keep up; `spool`: it could
    not be written, or nothing sealed, for too long; `not_running`: emitted after stop; `invalid`: the format
    cannot hold them; `unsealable`: a fault of the program."""
    not_collected_s: float = 0.0
    """Seconds in which nothing was to be collected (a locked session); what came all the same is excluded."""
    gap_count: int = 0
    gap_s: float = 0.0
    """Seconds in which a source could not see, summed over sources, and in which the machine slept."""
    open_events: int = 0
    """Captured and not yet in a committed batch: what a crash would lose."""


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """Over the life of the state directory, apart from `waiting_*`, which is now.

    committed_batches = delivered_batches + waiting_batches + sum(lost.values())
    """

    committed_batches: int = 0
    committed_bytes: int = 0
    delivered_batches: int = 0
    waiting_batches: int = 0
    waiting_bytes: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    """Batches by cause: `evicted` (a limit of size or a full disk), `expired` (too old), `rejected`, `damaged`,
    `purged` (on the participant's word)."""
    control_records: int = 0
    """Control records that wait."""


@dataclass(frozen=True, slots=True)
class UploadStatistics:
    """Since start."""

    requests: int = 0
    bytes_sent: int = 0
    requests_by_cause: Mapping[str, int] = field(default_factory=dict)
    """Sums to `requests`. `data`, `control`: a first attempt with batches or with control records; `retry`: one more
    attempt in quick succession; `split`: a part of a request that was refused as bad."""
    bytes_by_cause: Mapping[str, int] = field(default_factory=dict)
    """Sums to `bytes_sent`."""
    requests_by_outcome: Mapping[str, int] = field(default_factory=dict)
    """Sums to `requests`; by `mcilib.protocols.Outcome`."""
    delivered_batches: int = 0
    duplicate_batches: int = 0
    last_outcome: str = ""
    last_detail: str = ""
    next_attempt_s: float | None = None
    """Seconds until the next attempt; None when none is planned."""


@dataclass(frozen=True, slots=True)
class CostStatistics:
    """What the library's own threads cost since start; None where the system cannot tell."""

    cpu_s: float | None = None
    wakeups: int | None = None
    """Voluntary context switches: each is a wait that ended."""
    threads: int = 0


@dataclass(frozen=True, slots=True)
class PlanChange:
    """The plan as it was from one moment on."""

    wall_ns: int
    """Unix time."""
    levers: Mapping[str, Any] = field(default_factory=dict)
    """Lever -> value, of those that are lowered."""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanStatistics:
    """How much is collected and sent now, and why."""

    levers: Mapping[str, Any] = field(default_factory=dict)
    """Lever -> value, of those that policies or overrides lower (see `mcilib.policy.plan.Plan`)."""
    reasons: tuple[str, ...] = ()
    """In words."""
    changes: int = 0
    """Since start."""
    history: tuple[PlanChange, ...] = ()
    """The last changes, oldest first; the first is the plan at the start."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the machine (see `mcilib.policy.state.ResourceState`)."""


@dataclass(frozen=True, slots=True)
class DiskStatistics:
    """What was handed to the file system: not what a file system or a disk makes of it."""

    written_bytes: int = 0
    """Contents of files; no names, no metadata."""
    fsyncs: int = 0
    """Of files and folders."""

    def __add__(self, other: DiskStatistics) -> DiskStatistics:
        return DiskStatistics(self.written_bytes + other.written_bytes, self.fsyncs + other.fsyncs)


@dataclass(frozen=True, slots=True)
class Energy:
    """An estimate, from what was counted and coefficients of the literature (`mcilib.resources.energy`)."""

    joules: float = 0.0
    low_joules: float = 0.0
    high_joules: float = 0.0
    without: tuple[str, ...] = ()
    """What could not be counted here and is not in it: `cpu_s`, `wakeups`."""


@dataclass(frozen=True, slots=True)
class Impact:
    """What the library used in some stretch of time; None where the system cannot tell."""

    running_s: float = 0.0
    """Seconds in which it ran; where the monotonic clock stands still in sleep (Linux, macOS), without these."""
    cpu_s: float | None = None
    wakeups: int | None = None
    written_bytes: int = 0
    fsyncs: int = 0
    sent_bytes: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)
    """By cause, see `UploadStatistics.requests_by_cause`."""
    undelivered_requests: int = 0
    """Of these, the ones whose outcome was not `delivered`."""
    energy: Energy = Energy()
    machine: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Joules of the machine as a whole, ours and everybody's, and the seconds that were measured: `package` (the
    processor's own counter), `battery` (what left it while it discharged). Empty where nobody tells."""

    @property
    def cpu_ratio(self) -> float | None:
        """Of one core over the running time; None when unknown."""
        return self.cpu_s / self.running_s if self.cpu_s is not None and self.running_s > 0 else None


@dataclass(frozen=True, slots=True)
class ImpactStatistics:
    """The impact ledger of a state folder (`mcilib.resources.ledger`). Days are local calendar days, ISO dates."""

    since_start: Impact = Impact()
    """Since the last start; nothing for an onlooker."""
    today: Impact = Impact()
    kept: Impact = Impact()
    """The sum of `days`."""
    total: Impact = Impact()
    """`kept`, and the days that are no longer kept."""
    days: Mapping[str, Impact] = field(default_factory=dict)
    """Oldest first; the last ones on which it ran."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """One moment of a collector."""

    running: bool
    capture: CaptureStatistics
    spool: SpoolStatistics
    upload: UploadStatistics
    cost: CostStatistics
    plan: PlanStatistics = field(default_factory=PlanStatistics)
    impact: ImpactStatistics = field(default_factory=ImpactStatistics)

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, ready for JSON."""
        return asdict(self)
