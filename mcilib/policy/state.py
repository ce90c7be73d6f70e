"""What the machine can spare, as far as it is known. A record without behaviour: `mcilib.resources` fills it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum, IntEnum
from typing import Any


class Metered(Enum):
    """Whether the network is paid for by the byte."""

    NO = "no"
    UNKNOWN = "unknown"
    """Taken for unmetered."""
    GUESS = "guess"
    """The system thinks so (a telephone's hot spot): taken for metered."""
    YES = "yes"

    @property
    def counts(self) -> bool:
        """Whether policies take it for metered."""
        return self in (Metered.GUESS, Metered.YES)


class Thermal(IntEnum):
    """How hot the machine is, as it says itself."""

    NOMINAL = 0
    HOT = 1
    """It slows its processors down because of it, or is about to."""
    CRITICAL = 2
    """It is about to switch itself off."""


@dataclass(frozen=True, slots=True)
class ResourceState:
    """One moment of the machine. None (of `metered`: UNKNOWN) is "not known", and a valid value everywhere."""

    battery_present: bool | None = None
    """Whether there is a battery that runs the machine; those of mice and telephones do not count."""
    battery_ratio: float | None = None
    """How full all of them are together, 0 to 1."""
    on_mains: bool | None = None
    discharge_w: float | None = None
    """What the batteries give now, in watts; None while they do not."""
    power_saver: bool | None = None
    """The participant, or the system, asked to save power."""
    thermal: Thermal | None = None
    online: bool | None = None
    metered: Metered = Metered.UNKNOWN
    constrained: bool | None = None
    """The participant asked to save data (macOS low data mode, Windows background data restricted)."""
    portal: bool | None = None
    """The network wants somebody to sign in first."""
    free_disk_bytes: int | None = None
    """Of the disk with the state folder."""
    session_away: bool | None = None
    """The session is locked or behind another user's."""
    cpu_ratio: float | None = None
    """What the library's own threads took of one core, over the last second or so in which there was input; None when
    nothing was measured since the last decision."""

    @property
    def on_battery(self) -> bool:
        """A machine without a battery is on mains; one with a battery that does not say is on battery."""
        return self.battery_present is True and self.on_mains is not True

    def as_dict(self) -> dict[str, Any]:
        """What is known, in plain values; what is not known is left out."""
        told = {
            name: value.name.lower() if isinstance(value, Enum) else value
            for name, value in asdict(self).items()
        }
        return {name: value for name, value in told.items() if value not in (None, "unknown")}
