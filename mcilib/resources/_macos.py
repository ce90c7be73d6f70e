"""What macOS tells: low power mode and heat (NSProcessInfo), the network's cost (Network framework). Not yet run on
hardware.

What is not known is left out: so is the network where `pyobjc-framework-Network` is not installed, which pynput does
not bring.
"""

from __future__ import annotations

import queue
from typing import Any

from mcilib.policy.state import Metered, Thermal

#: NSProcessInfoThermalState; `fair` means fans, not slower processors.
_HEAT = {0: Thermal.NOMINAL, 1: Thermal.NOMINAL, 2: Thermal.HOT, 3: Thermal.CRITICAL}


def power() -> dict[str, Any]:
    """`power_saver` (from macOS 12 on) and `thermal`; raises what the bridge does."""
    from Foundation import NSProcessInfo  # type: ignore[import-not-found, unused-ignore]

    machine = NSProcessInfo.processInfo()
    found: dict[str, Any] = {"thermal": _HEAT.get(machine.thermalState())}
    if machine.respondsToSelector_("isLowPowerModeEnabled"):
        found["power_saver"] = bool(machine.isLowPowerModeEnabled())
    return found


_PATH_S = 0.2
"""How long the first path is waited for; it is told at once as a rule."""


def network() -> dict[str, Any]:
    """`metered` (an expensive path: a telephone's) and `constrained` (low data mode); raises what the bridge does."""
    import libdispatch  # type: ignore[import-not-found, unused-ignore]
    import Network  # type: ignore[import-not-found, unused-ignore]

    monitor, paths = Network.nw_path_monitor_create(), queue.SimpleQueue[Any]()
    Network.nw_path_monitor_set_queue(monitor, libdispatch.dispatch_get_global_queue(0, 0))
    Network.nw_path_monitor_set_update_handler(monitor, paths.put)
    Network.nw_path_monitor_start(monitor)
    try:
        path = paths.get(timeout=_PATH_S)
    except queue.Empty:
        return {}
    finally:
        Network.nw_path_monitor_cancel(monitor)
    expensive = Network.nw_path_is_expensive(path)
    return {
        "metered": Metered.YES if expensive else Metered.NO,
        "constrained": bool(Network.nw_path_is_constrained(path)),
    }
