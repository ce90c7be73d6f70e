"""Policies: from what the machine can spare to how generously to collect. Pure: no clock, no I/O.

`state` says what is known of the machine, `plan` what can be turned down, `policy` what a policy is, and
`decision` makes one plan of what several say. Each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing's; type checkers know the name

if TYPE_CHECKING:
    from mcilib.policy.battery import BatteryPolicy as BatteryPolicy
    from mcilib.policy.cpu import CpuBudget as CpuBudget
    from mcilib.policy.decision import decide as decide
    from mcilib.policy.decision import due_s as due_s
    from mcilib.policy.decision import troubles as troubles
    from mcilib.policy.defaults import default_policies as default_policies
    from mcilib.policy.hours import QuietHours as QuietHours
    from mcilib.policy.machine import PowerSaverPolicy as PowerSaverPolicy
    from mcilib.policy.machine import ThermalPolicy as ThermalPolicy
    from mcilib.policy.network import NetworkPolicy as NetworkPolicy
    from mcilib.policy.order import worse as worse
    from mcilib.policy.override import Override as Override
    from mcilib.policy.override import apply_overrides as apply_overrides
    from mcilib.policy.plan import ByteEffort as ByteEffort
    from mcilib.policy.plan import CpuEffort as CpuEffort
    from mcilib.policy.plan import Motion as Motion
    from mcilib.policy.plan import Plan as Plan
    from mcilib.policy.plan import Upload as Upload
    from mcilib.policy.policy import Moment as Moment
    from mcilib.policy.policy import Policy as Policy
    from mcilib.policy.rules import Rule as Rule
    from mcilib.policy.state import Metered as Metered
    from mcilib.policy.state import ResourceState as ResourceState
    from mcilib.policy.state import Thermal as Thermal

_MODULE_OF = {
    "ResourceState": "state",
    "Metered": "state",
    "Thermal": "state",
    "Plan": "plan",
    "Motion": "plan",
    "CpuEffort": "plan",
    "ByteEffort": "plan",
    "Upload": "plan",
    "Moment": "policy",
    "Policy": "policy",
    "BatteryPolicy": "battery",
    "NetworkPolicy": "network",
    "PowerSaverPolicy": "machine",
    "ThermalPolicy": "machine",
    "CpuBudget": "cpu",
    "QuietHours": "hours",
    "Rule": "rules",
    "default_policies": "defaults",
    "decide": "decision",
    "due_s": "decision",
    "troubles": "decision",
    "worse": "order",
    "Override": "override",
    "apply_overrides": "override",
}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'mcilib.policy' has no attribute {name!r}")
    value: object = getattr(import_module(f"mcilib.policy.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
