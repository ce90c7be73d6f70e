"""The policies that hold unless something else is asked for."""

from __future__ import annotations

from mcilib.policy.battery import BatteryPolicy
from mcilib.policy.cpu import CpuBudget
from mcilib.policy.machine import PowerSaverPolicy, ThermalPolicy
from mcilib.policy.network import NetworkPolicy
from mcilib.policy.policy import Policy


def default_policies() -> tuple[Policy, ...]:
    """Battery, network, power saver, heat and the CPU budget, each with the numbers of `mcilib.limits`."""
    return BatteryPolicy(), NetworkPolicy(), PowerSaverPolicy(), ThermalPolicy(), CpuBudget()
