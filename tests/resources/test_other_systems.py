"""Windows and macOS on stand-ins for the functions that are called: what the code makes of answers, not whether the
systems give them. Not yet run on hardware."""

from __future__ import annotations

import ctypes
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from mcilib.policy.state import Metered, Thermal
from mcilib.resources import _look, _macos, _windows


class Kernel32:
    def __init__(self, *values: int) -> None:
        self.values = values

    def GetSystemPowerStatus(self, status: Any) -> int:
        fields = ("ac_line", "battery_flag", "percent", "saver")
        for name, value in zip(fields, self.values, strict=False):
            setattr(status._obj, name, value)
        return bool(self.values)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (
            (1, 8, 57, 0),
            {"battery_present": True, "battery_ratio": 0.57, "on_mains": True, "power_saver": False},
        ),
        (
            (0, 4, 3, 1),
            {"battery_present": True, "battery_ratio": 0.03, "on_mains": False, "power_saver": True},
        ),
        ((1, 128, 255, 0), {"battery_present": False, "on_mains": True, "power_saver": False}),
        ((255, 255, 255, 0), {"power_saver": False}),
        ((0, 0, 255, 0), {"battery_present": True, "on_mains": False, "power_saver": False}),
        ((), {}),
    ],
)
def test_windows_power(values: tuple[int, ...], found: dict[str, Any]) -> None:
    assert _windows.power(SimpleNamespace(kernel32=Kernel32(*values))) == found


class Ole32:
    """A COM object in memory: a table of methods behind a pointer, as a compiler lays it out."""

    def __init__(self, cost: int = 0, refuses: bool = False, chosen: int = 0, fails: int = 0) -> None:
        self.calls: list[str] = []
        self.names: list[str] = []
        self._refuses, self._chosen = refuses, chosen

        def get_cost(this: Any, out: Any, where: Any) -> int:
            self.calls.append("GetCost")
            ctypes.cast(out, ctypes.POINTER(ctypes.c_uint32))[0] = cost
            return fails

        def release(this: Any) -> int:
            self.calls.append("Release")
            return 0

        pointer = ctypes.c_void_p
        self._methods = (
            ctypes.CFUNCTYPE(ctypes.c_uint32, pointer)(release),
            ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer)(get_cost),
        )
        self._table = (pointer * 4)(None, None, *(ctypes.cast(one, pointer) for one in self._methods))
        self._object = pointer(ctypes.addressof(self._table))

    def CoInitializeEx(self, _: None, how: int) -> int:
        return self._chosen

    def CoUninitialize(self) -> None:
        self.calls.append("CoUninitialize")

    def CLSIDFromString(self, text: Any, name: Any) -> int:
        self.names.append(text.value)
        return 0

    def CoCreateInstance(self, name: Any, outer: None, contexts: int, kind: Any, out: Any) -> int:
        if self._refuses:
            return -1
        out._obj.value = ctypes.addressof(self._object)
        return 0


@pytest.mark.parametrize(
    ("cost", "metered"),
    [(0, Metered.UNKNOWN), (1, Metered.NO), (2, Metered.YES), (4, Metered.YES), (0x40001, Metered.YES)],
)
def test_windows_network(cost: int, metered: Metered) -> None:
    ole = Ole32(cost)
    assert _windows.network(ole) == {"metered": metered}
    assert ole.calls == ["GetCost", "Release", "CoUninitialize"]
    assert len(set(ole.names)) == 2


def test_windows_network_that_cannot_be_asked() -> None:
    assert _windows.network(Ole32(2, refuses=True)) == {"metered": Metered.UNKNOWN}
    assert _windows.network(Ole32(2, fails=-1)) == {"metered": Metered.UNKNOWN}
    another_way = Ole32(2, chosen=-2147417850)  # RPC_E_CHANGED_MODE: the host's own, and not ours to end
    assert _windows.network(another_way) == {"metered": Metered.YES}
    assert "CoUninitialize" not in another_way.calls


def foundation(monkeypatch: pytest.MonkeyPatch, heat: int, saver: bool | None) -> None:
    machine = SimpleNamespace(
        thermalState=lambda: heat,
        respondsToSelector_=lambda name: saver is not None and name == "isLowPowerModeEnabled",
        isLowPowerModeEnabled=lambda: saver,
    )
    module = ModuleType("Foundation")
    module.NSProcessInfo = SimpleNamespace(processInfo=lambda: machine)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "Foundation", module)


@pytest.mark.parametrize(
    ("number", "heat"),
    [(0, Thermal.NOMINAL), (1, Thermal.NOMINAL), (2, Thermal.HOT), (3, Thermal.CRITICAL), (9, None)],
)
def test_macos_heat_and_saver(number: int, heat: Thermal | None, monkeypatch: pytest.MonkeyPatch) -> None:
    foundation(monkeypatch, number, None)
    assert _macos.power() == {"thermal": heat}
    foundation(monkeypatch, number, True)
    assert _macos.power() == {"thermal": heat, "power_saver": True}


class Paths(ModuleType):
    """Apple's monitor of the network's path: tells one at its start, or none."""

    def __init__(self, *paths: tuple[bool, bool]) -> None:
        super().__init__("Network")
        self.calls: list[str] = []
        monitor = SimpleNamespace(tell=None)

        def start(which: object) -> None:
            assert which is monitor
            for path in paths:
                monitor.tell(path)

        self.nw_path_monitor_create = lambda: monitor
        self.nw_path_monitor_set_queue = lambda which, where: self.calls.append(f"queue {where}")
        self.nw_path_monitor_set_update_handler = lambda which, tell: setattr(which, "tell", tell)
        self.nw_path_monitor_start = start
        self.nw_path_monitor_cancel = lambda which: self.calls.append("cancel")
        self.nw_path_is_expensive = lambda path: path[0]
        self.nw_path_is_constrained = lambda path: path[1]


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ([(True, False)], {"metered": Metered.YES, "constrained": False}),
        ([(False, True)], {"metered": Metered.NO, "constrained": True}),
        ([], {}),
    ],
)
def test_macos_network(
    paths: list[tuple[bool, bool]], told: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, dispatch = Paths(*paths), ModuleType("libdispatch")
    dispatch.dispatch_get_global_queue = lambda quality, flags: "global"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "Network", network)
    monkeypatch.setitem(sys.modules, "libdispatch", dispatch)
    assert _macos.network() == told
    assert network.calls == ["queue global", "cancel"]


Battery = namedtuple("Battery", "percent power_plugged")


@pytest.mark.parametrize(
    ("found", "fields"),
    [
        (None, (False, None, True)),
        (Battery(40, False), (True, 0.4, False)),
        (Battery(140, None), (True, None, None)),
    ],
)
def test_macos_battery(found: Battery | None, fields: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.setattr(psutil, "sensors_battery", lambda: found, raising=False)
    monkeypatch.setattr(_look.sys, "platform", "darwin")  # type: ignore[attr-defined]
    foundation(monkeypatch, 2, True)
    monkeypatch.setitem(sys.modules, "Network", Paths((True, True)))
    monkeypatch.setitem(
        sys.modules, "libdispatch", SimpleNamespace(dispatch_get_global_queue=lambda *_: None)
    )
    state = _look.Looker(tmp_path).look(ask_network=False)
    assert (state.battery_present, state.battery_ratio, state.on_mains) == fields
    assert (state.thermal, state.power_saver, state.online) == (Thermal.HOT, True, None)
    assert (state.metered, state.constrained) == (Metered.YES, True)


def test_windows_is_asked_for_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    windll = SimpleNamespace(kernel32=Kernel32(0, 1, 66, 1), ole32=Ole32(2))
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)
    monkeypatch.setattr(_look.sys, "platform", "win32")  # type: ignore[attr-defined]
    state = _look.Looker(tmp_path).look(ask_network=True)
    assert (state.battery_ratio, state.on_mains, state.power_saver) == (0.66, False, True)
    assert state.metered is Metered.YES
    assert state.online is not None
