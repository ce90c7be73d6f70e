"""When one state of the machine is worse than another: what policies are tested by."""

from __future__ import annotations

from mcilib.policy.state import ResourceState


def worse(a: ResourceState, b: ResourceState) -> bool:
    """Whether `a` is at least as bad as `b` in every field; so `worse(a, a)`.

    Unknown counts as what policies take it for. Where that depends on what was before (`battery_ratio`,
    `cpu_ratio`) it compares with nothing but itself, and so does a `cpu_ratio` of 0: no input, which says
    nothing of the load. `discharge_w` says nothing by itself.
    """
    return (
        a.on_battery >= b.on_battery
        and _falls(a.battery_ratio, b.battery_ratio)
        and all(
            (getattr(a, name) is True) >= (getattr(b, name) is True)
            for name in ("power_saver", "constrained", "portal", "session_away")
        )
        and (a.thermal or 0) >= (b.thermal or 0)
        and (a.online is False) >= (b.online is False)
        and a.metered.counts >= b.metered.counts
        and _falls(a.free_disk_bytes, b.free_disk_bytes)
        and (a.cpu_ratio == b.cpu_ratio or bool(a.cpu_ratio and b.cpu_ratio and a.cpu_ratio > b.cpu_ratio))
    )


def _falls(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and a < b)
