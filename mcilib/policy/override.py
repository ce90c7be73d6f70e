"""What the host or the participant has set by hand: it wins over every policy, until it is taken back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal

from mcilib.policy.plan import LEVERS, Plan

_DEFAULTS = Plan()


@dataclass(frozen=True, slots=True)
class Override:
    """`by` has set `lever` to `value`; one of an enumeration may be given by its name, such as "thinned".

    Raises `ValueError` for a lever that is not there or a value that it cannot have. A host may not set
    `capture` to True: it would undo the quiet hours of a participant.
    """

    by: Literal["host", "participant"]
    lever: str
    value: Any

    def __post_init__(self) -> None:
        if self.by not in ("host", "participant"):
            raise ValueError(f"an override is by host or participant, not {self.by!r}")
        if self.lever not in LEVERS:
            raise ValueError(f"there is no lever {self.lever!r}; there are {', '.join(LEVERS)}")
        usual = getattr(_DEFAULTS, self.lever)
        if isinstance(usual, IntEnum) and isinstance(self.value, str):
            kind = type(usual)
            if self.value.upper() not in kind.__members__:
                known = ", ".join(name.lower() for name in kind.__members__)
                raise ValueError(f"{self.lever} is one of {known}, not {self.value!r}")
            object.__setattr__(self, "value", kind[self.value.upper()])
        try:
            replace(_DEFAULTS, **{self.lever: self.value})
        except TypeError as error:
            raise ValueError(str(error)) from None
        if self.by == "host" and self.lever == "capture" and self.value:
            raise ValueError("a host may only set capture to False")

    @property
    def reason(self) -> str:
        value = self.value.name.lower() if isinstance(self.value, IntEnum) else self.value
        return f"{self.by} set {self.lever} to {value}"


def apply_overrides(plan: Plan, overrides: Iterable[Override]) -> Plan:
    """The plan with what was set by hand, and who did it among its reasons. Of one lever the participant's
    wins, then the later one. To take one back, leave it out. Where `upload` is set, no policy holds uploads back."""
    last: dict[str, Override] = {}
    for override in sorted(overrides, key=lambda each: each.by == "participant"):
        last[override.lever] = override
    if not last:
        return plan
    by_hand = Plan()
    for lever, each in last.items():
        by_hand &= replace(_DEFAULTS, **{lever: each.value}, reasons=(each.reason,), upload_reasons=None)
    both = plan & by_hand
    return replace(
        plan,
        **{lever: each.value for lever, each in last.items()},
        reasons=both.reasons,
        upload_reasons=by_hand.upload_reasons if "upload" in last else both.upload_reasons,
    )
