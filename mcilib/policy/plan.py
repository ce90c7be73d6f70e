"""The plan: how generously to collect and send. Each lever is ordered from generous to frugal."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

from mcilib import limits
from mcilib.protocols import Allowed, SendPlan


class Motion(IntEnum):
    """How much of the pointer's motion is kept. Clicks, drags' ends, scrolls and keys always are."""

    FULL = 0
    THINNED = 1
    """The path within `tolerance_px` of the true one, at every moment."""
    ENDPOINTS = 2
    """Only where the pointer rested."""
    NONE = 3
    """Not delivered by the system at all."""


class CpuEffort(IntEnum):
    """How much processor time compression may take."""

    NORMAL = 0
    LOW = 1


class ByteEffort(IntEnum):
    """How much is done to send fewer bytes."""

    NORMAL = 0
    HIGH = 1


class Upload(IntEnum):
    """When batches go to the receiver."""

    NOW = 0
    """As soon as they are committed."""
    SCHEDULED = 1
    """At the interval of uploads."""
    CONTROL = 2
    """Control records only."""
    NONE = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """The levers. The defaults are the most generous of each, so a policy names only those that it lowers.

    `a & b` is the meet: of each lever the more frugal, and all reasons. It is commutative, associative and
    idempotent, so the order of policies means nothing. `ValueError` for a value out of range, `TypeError` for
    one of another kind.
    """

    capture: bool = True
    read_interval_s: float = 0.0
    """Seconds between two reads of input, 0 to 1: no event and no time is lost by it."""
    motion: Motion = Motion.FULL
    tolerance_px: float = 0.0
    """Pixels, 0 to 1,024; of meaning while motion is THINNED."""
    tick_ns: int = limits.TICK_NS
    """What times are kept to, 1 ms to 1 s."""
    batch_age_s: float = 0.001
    """Seconds after which a batch is closed, up to a day. A crash loses at most the open batch."""
    cpu_effort: CpuEffort = CpuEffort.NORMAL
    byte_effort: ByteEffort = ByteEffort.NORMAL
    upload: Upload = Upload.NOW
    bytes_per_hour: int | None = None
    """Of data; None: as many as there are."""
    reasons: tuple[str, ...] = ()
    """Why not more, in words; at most 32 of 256 bytes each travel with a batch."""
    upload_reasons: tuple[str, ...] | None = None
    """Those that hold uploads back. None, as policies leave it: all when data waits or is counted by this plan, else
    none; it is never None afterwards."""

    def __post_init__(self) -> None:
        if self.upload_reasons is None:
            holds = self.upload >= Upload.CONTROL or self.bytes_per_hour is not None
            object.__setattr__(self, "upload_reasons", self.reasons if holds else ())
        for name, kind in _KINDS.items():
            if type(getattr(self, name)) is not kind:
                raise TypeError(f"{name} is {getattr(self, name)!r}, not of {kind.__name__}")
        if not all(isinstance(reason, str) for reason in (*self.reasons, *(self.upload_reasons or ()))):
            raise TypeError("reasons and upload_reasons are texts")
        for name, low, high in (
            ("read_interval_s", 0, limits.READ_INTERVAL_CAP_S),
            ("tolerance_px", 0, limits.TOLERANCE_CAP_PX),
            ("tick_ns", limits.TICK_NS, limits.TICK_CAP_NS),
            ("batch_age_s", 0.001, limits.BATCH_AGE_CAP_S),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} is {getattr(self, name)}, not {low:g} to {high:g}")
        hourly = self.bytes_per_hour
        if hourly is not None and (type(hourly) is not int or hourly < 0):
            raise ValueError(f"bytes_per_hour is {self.bytes_per_hour}, not 0 or more")

    def __and__(self, other: Plan) -> Plan:
        """The meet."""
        if other == _GENEROUS:  # as most policies say most of the time
            return self
        if self == _GENEROUS:
            return other
        hourly = [plan.bytes_per_hour for plan in (self, other) if plan.bytes_per_hour is not None]
        return Plan(
            capture=self.capture and other.capture,
            **{name: max(getattr(self, name), getattr(other, name)) for name in _RISING},
            bytes_per_hour=min(hourly, default=None),
            reasons=tuple(sorted({*self.reasons, *other.reasons})),
            upload_reasons=tuple(sorted({*(self.upload_reasons or ()), *(other.upload_reasons or ())})),
        )

    def frugal_as(self, other: Plan) -> bool:
        """Whether it is at least as frugal as `other` in every lever, whatever the reasons."""
        meet = self & other
        return replace(meet, reasons=self.reasons, upload_reasons=self.upload_reasons) == self

    def sends_more_than(self, other: Plan) -> bool:
        """Whether something that `other` keeps back may go."""
        hourly, others = (
            float("inf") if plan.bytes_per_hour is None else plan.bytes_per_hour for plan in (self, other)
        )
        return self.upload < other.upload or hourly > others

    def levers(self, usual: Plan | None = None) -> dict[str, Any]:
        """Lever -> value, as batches and `mcilib status` tell it; those that are as `usual` (default: most generous)
        are left out."""
        usual, told = usual or Plan(), dict[str, Any]()
        for lever in LEVERS:
            value = getattr(self, lever)
            if value != getattr(usual, lever):
                told[lever] = value.name.lower() if isinstance(value, IntEnum) else value
        return told

    def zstd_level(self, usual: int) -> int:
        """The level of compression, where `usual` is the one without any plan."""
        cpu, most_bytes = self.cpu_effort, self.byte_effort is ByteEffort.HIGH
        if cpu is CpuEffort.LOW:
            return max(usual, 9) if most_bytes else min(usual, 3)
        return max(usual, 19) if most_bytes else usual

    def to_send(self) -> SendPlan:
        """What the uploader is told, and why: of the reasons those that hold uploads back."""
        allowed = {Upload.CONTROL: Allowed.CONTROL, Upload.NONE: Allowed.NOTHING}.get(
            self.upload, Allowed.ALL
        )
        return SendPlan(allowed, "; ".join(self.upload_reasons or ()), self.bytes_per_hour)


LEVERS = tuple(field.name for field in fields(Plan) if field.name not in ("reasons", "upload_reasons"))

_RISING = (
    "read_interval_s",
    "motion",
    "tolerance_px",
    "tick_ns",
    "batch_age_s",
    "cpu_effort",
    "byte_effort",
    "upload",
)

_KINDS: dict[str, type] = {
    "capture": bool,
    "motion": Motion,
    "tick_ns": int,
    "cpu_effort": CpuEffort,
    "byte_effort": ByteEffort,
    "upload": Upload,
    "reasons": tuple,
    "upload_reasons": tuple,
}

_GENEROUS = Plan()
