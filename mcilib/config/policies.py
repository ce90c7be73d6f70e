"""From the section `[adapt]` to policies."""

from __future__ import annotations

from mcilib.config.table import AdaptSettings
from mcilib.policy.battery import BatteryPolicy
from mcilib.policy.cpu import CpuBudget
from mcilib.policy.hours import QuietHours
from mcilib.policy.machine import PowerSaverPolicy, ThermalPolicy
from mcilib.policy.network import NetworkPolicy
from mcilib.policy.policy import Policy
from mcilib.policy.rules import Rule


def policies_of(adapt: AdaptSettings) -> tuple[Policy, ...]:
    """What these options ask for: the named policies, quiet hours, and a policy for each rule."""
    named: dict[str, Policy] = {
        "battery": BatteryPolicy(adapt.battery_low),
        "network": NetworkPolicy(adapt.metered_bytes_per_hour),
        "saver": PowerSaverPolicy(adapt.saver_tolerance_px),
        "thermal": ThermalPolicy(),
        "cpu": CpuBudget(adapt.cpu_budget),
    }
    policies = [policy for name, policy in named.items() if name in adapt.policies]
    if adapt.quiet_hours:
        policies.append(QuietHours(*adapt.quiet_hours))
    return (*policies, *(Rule.parse(text) for text in adapt.rules or ()))
