"""What Windows tells: battery, power saver, cost of the network. Not yet run on hardware.

GetSystemPowerStatus and INetworkCostManager (netlistmgr.h) through ctypes. What is not known is left out.
"""

from __future__ import annotations

import ctypes
from typing import Any

from mcilib.policy.state import Metered

_UNKNOWN_FLAGS, _NO_BATTERY = 255, 128


class _PowerStatus(ctypes.Structure):
    _fields_ = (
        ("ac_line", ctypes.c_ubyte),
        ("battery_flag", ctypes.c_ubyte),
        ("percent", ctypes.c_ubyte),
        ("saver", ctypes.c_ubyte),
        ("life_s", ctypes.c_uint32),
        ("full_life_s", ctypes.c_uint32),
    )


def power(windll: Any = None) -> dict[str, Any]:
    """`battery_present`, `battery_ratio`, `on_mains`, `power_saver`; raises what ctypes does."""
    windll = windll or ctypes.windll  # type: ignore[attr-defined, unused-ignore]
    status = _PowerStatus()
    if not windll.kernel32.GetSystemPowerStatus(ctypes.byref(status)):
        return {}
    found: dict[str, Any] = {"power_saver": bool(status.saver & 1)}
    if status.ac_line in (0, 1):
        found["on_mains"] = status.ac_line == 1
    if status.battery_flag != _UNKNOWN_FLAGS:
        found["battery_present"] = not status.battery_flag & _NO_BATTERY
        if found["battery_present"] and status.percent <= 100:
            found["battery_ratio"] = status.percent / 100
    return found


_CLASS = "{DCB00C01-570F-4A9B-8D69-199FDBA5723B}"  # NetworkListManager
_INTERFACE = "{DCB00008-570F-4A9B-8D69-199FDBA5723B}"  # INetworkCostManager
_ALL_CONTEXTS, _MULTITHREADED = 23, 0
_RELEASE, _GET_COST = 2, 3  # places in its table of methods

_UNRESTRICTED, _PAID = 0x1, 0x2 | 0x4 | 0x40000  # NLM_CONNECTION_COST: fixed, variable, roaming


def network(ole32: Any = None) -> dict[str, Any]:
    """`metered`; raises what ctypes does."""
    ole32 = ole32 or ctypes.windll.ole32  # type: ignore[attr-defined, unused-ignore]
    begun = (
        ole32.CoInitializeEx(None, _MULTITHREADED) >= 0
    )  # else the thread has chosen another way: fine too
    try:
        return {"metered": _metered(_cost(ole32))}
    finally:
        if begun:
            ole32.CoUninitialize()


def _cost(ole32: Any) -> int:
    """0 when unknown."""
    names = [(ctypes.c_ubyte * 16)(), (ctypes.c_ubyte * 16)()]
    for text, name in zip((_CLASS, _INTERFACE), names, strict=True):
        ole32.CLSIDFromString(ctypes.c_wchar_p(text), ctypes.byref(name))
    manager = ctypes.c_void_p()
    made = ole32.CoCreateInstance(
        ctypes.byref(names[0]), None, _ALL_CONTEXTS, ctypes.byref(names[1]), ctypes.byref(manager)
    )
    if made < 0 or not manager.value:
        return 0
    methods = ctypes.cast(manager, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    prototype = getattr(ctypes, "WINFUNCTYPE", ctypes.CFUNCTYPE)
    get_cost = prototype(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        methods[_GET_COST]
    )
    release = prototype(ctypes.c_uint32, ctypes.c_void_p)(methods[_RELEASE])
    cost = ctypes.c_uint32()
    try:
        return cost.value if get_cost(manager, ctypes.byref(cost), None) >= 0 else 0
    finally:
        release(manager)


def _metered(cost: int) -> Metered:
    if cost & _PAID:
        return Metered.YES
    return Metered.NO if cost & _UNRESTRICTED else Metered.UNKNOWN
