"""What the machine can spare, told by the real upowerd and stand-ins of the other services, on an emulated laptop."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from buses import BusDaemon
from costs import cost_at_rest, thread_cost
from waiting import until

from mcilib import limits
from mcilib.policy.state import Metered, ResourceState
from mcilib.resources import _look, _services, watch
from mcilib.resources.watch import ResourceWatch
from mcilib.testing._buses import MOCK
from mcilib.testing.laptop import NETWORK, PROFILES, SERVICES, UPOWER, EmulatedLaptop

WITHIN_S = 10.0
"""A second is promised; what is not told then is never told."""
LATE_S = 5.0
"""Half a second is promised, or one; what hangs takes for ever."""
NAMES = ("UPower", "NetworkManager", "power-profiles-daemon")


class Watched:
    """A watch, and the states at each call of `on_change`."""

    def __init__(self, folder: Path) -> None:
        self.watch = ResourceWatch(folder)
        self.told: list[ResourceState] = []
        self.callers: set[str] = set()

    def on_change(self) -> None:
        self.callers.add(threading.current_thread().name)
        self.told.append(self.watch.state)

    def start(self) -> ResourceWatch:
        self.watch.start(self.on_change)
        return self.watch

    def becomes(self, **fields: object) -> None:
        """Told within a second, and all of it so."""

        def reached() -> bool:
            return bool(self.told) and all(getattr(self.told[-1], n) == v for n, v in fields.items())

        until(reached, WITHIN_S, what=f"{fields}, not {self.watch.state}")
        assert self.watch.state == self.told[-1]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path / "not" / "made" / "yet")
    yield watched
    watched.watch.stop()


def resource_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "mcilib-resources"]


# --- what is told -------------------------------------------------------------------------------------------


def test_all_is_known_when_start_returns(new_laptop: Callable[..., EmulatedLaptop], watched: Watched) -> None:
    laptop = new_laptop(battery_ratio=0.42, on_mains=False)
    laptop.saver(True)
    laptop.metered(Metered.YES)
    began_s = time.monotonic()
    state = watched.start().state
    assert time.monotonic() - began_s < LATE_S
    assert (state.battery_present, state.battery_ratio, state.on_mains) == (True, 0.42, False)
    assert (state.discharge_w, state.power_saver) == (9.0, True)
    assert (state.online, state.metered, state.portal) == (True, Metered.YES, False)
    assert (state.constrained, state.session_away, state.cpu_ratio) == (None, None, None)
    assert state.free_disk_bytes
    assert watched.watch.tellers == NAMES
    assert watched.watch.health().ok
    assert watched.told == []


def test_start_returns_with_the_last_answer(
    laptop: EmulatedLaptop, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when that came while the bus itself was waited for."""
    monkeypatch.setattr(limits, "BUS_CONNECT_S", 20.0)
    began_s = time.monotonic()
    for _ in range(30):
        assert watched.start().tellers == NAMES
        watched.watch.stop()
    assert time.monotonic() - began_s < 10


def test_each_change_is_told_within_a_second(laptop: EmulatedLaptop, watched: Watched) -> None:
    watched.start()
    laptop.on_mains(False)
    watched.becomes(on_mains=False, discharge_w=9.0)
    laptop.battery(0.14)
    watched.becomes(battery_ratio=0.14)
    laptop.on_mains(True)
    watched.becomes(on_mains=True, discharge_w=None, battery_ratio=0.14)
    for saver in (True, False):
        laptop.saver(saver)
        watched.becomes(power_saver=saver)
    for metered in (Metered.YES, Metered.GUESS, Metered.UNKNOWN, Metered.NO):
        laptop.metered(metered)
        watched.becomes(metered=metered)
    laptop.network(Metered=("u", 1))
    watched.becomes(metered=Metered.YES)
    laptop.network(Metered=("u", 4))
    watched.becomes(metered=Metered.NO)
    laptop.portal(True)
    watched.becomes(portal=True, online=False)
    laptop.portal(False)
    watched.becomes(portal=False, online=True)
    laptop.online(False)
    watched.becomes(online=False, portal=False)
    laptop.network(Connectivity=("u", 3))
    watched.becomes(online=None, portal=False)
    laptop.network(Connectivity=("u", 0), State=("u", 70))  # it does not check
    watched.becomes(online=True, portal=None)
    laptop.network(State=("u", 20))
    watched.becomes(online=False)
    assert watched.callers == {"mcilib-resources"}


def test_nothing_is_told_twice_and_a_state_is_never_changed(laptop: EmulatedLaptop, watched: Watched) -> None:
    first = watched.start().state
    laptop.network(Version=("s", "1.42"))
    laptop.metered(Metered.NO)
    laptop.metered(Metered.YES)
    watched.becomes(metered=Metered.YES)
    laptop.network(Version=("s", "1.43"))
    laptop.metered(Metered.GUESS)
    watched.becomes(metered=Metered.GUESS)
    assert [state.metered for state in watched.told] == [Metered.YES, Metered.GUESS]
    assert first.metered is Metered.NO


def test_a_machine_without_a_battery(new_laptop: Callable[..., EmulatedLaptop], watched: Watched) -> None:
    new_laptop(battery_ratio=None)
    state = watched.start().state
    assert (state.battery_present, state.battery_ratio, state.on_mains) == (False, None, True)
    assert not state.on_battery
    assert watched.watch.tellers == NAMES


def test_the_later_name_of_the_power_profiles(
    new_laptop: Callable[..., EmulatedLaptop], watched: Watched
) -> None:
    laptop = new_laptop(services=())
    watched.start()
    name, path = "org.freedesktop.UPower.PowerProfiles", "/org/freedesktop/UPower/PowerProfiles"
    laptop.bus.run(name, "--system", name, path, name)
    laptop.bus.call(name, path, MOCK, "AddProperty", "ssv", name, "ActiveProfile", ("s", "balanced"))
    laptop.bus.call(
        name, path, MOCK, "UpdateProperties", "sa{sv}", name, {"ActiveProfile": ("s", "power-saver")}
    )
    watched.becomes(power_saver=True)
    laptop.start_service(PROFILES)  # the old one, which says `balanced`
    until(lambda: _services.PROFILES_BEFORE in watched.watch._loop.services.told)
    assert watched.watch.state.power_saver is True


# --- services that come, go, freeze, lie --------------------------------------------------------------------


@pytest.mark.parametrize("missing", [*SERVICES, None])
def test_what_a_missing_service_tells_is_not_known(
    missing: str | None, new_laptop: Callable[..., EmulatedLaptop], watched: Watched
) -> None:
    services = [name for name in SERVICES if name != missing] if missing else []
    new_laptop(services=services, on_mains=False)
    state = watched.start().state
    assert (state.battery_ratio == 0.8) == (UPOWER in services), "this process reads the real /sys"
    assert (state.power_saver is None) == (PROFILES not in services)
    assert (state.metered is Metered.UNKNOWN) == (state.portal is None) == (NETWORK not in services)
    assert state.online is not None, "asked of the interfaces"
    assert watched.watch.health().ok
    assert watched.watch.tellers == tuple(
        name for name, service in zip(NAMES, SERVICES, strict=True) if service in services
    )


@pytest.mark.parametrize("frozen", [False, True])
def test_a_service_that_ends_is_found_again(frozen: bool, laptop: EmulatedLaptop, watched: Watched) -> None:
    laptop.saver(True)
    laptop.metered(Metered.YES)
    laptop.battery(0.5)
    watch = watched.start()
    for service in SERVICES:
        if frozen:
            laptop.freeze_service(service)
        laptop.kill_service(service)
    until(lambda: not watch.tellers, WITHIN_S)
    watched.becomes(battery_ratio=None, power_saver=None, metered=Metered.UNKNOWN, portal=None)
    assert watch.health().ok
    laptop.battery(0.4)
    for service in SERVICES:
        laptop.start_service(service)
    watched.becomes(battery_ratio=0.4, power_saver=True, metered=Metered.YES, portal=False)
    assert watch.tellers == NAMES


@pytest.mark.as_shipped
@pytest.mark.parametrize("service", SERVICES)
def test_a_frozen_service_holds_nobody_and_is_heard_when_it_thaws(
    service: str, laptop: EmulatedLaptop, watched: Watched
) -> None:
    laptop.metered(Metered.YES)
    laptop.saver(True)
    laptop.freeze_service(service)
    began_s = time.monotonic()
    watch = watched.start()
    assert time.monotonic() - began_s < LATE_S
    (name,) = set(NAMES) - set(watch.tellers)
    assert NAMES.index(name) == SERVICES.index(service)
    other = UPOWER if service != UPOWER else NETWORK
    if other == UPOWER:
        laptop.battery(0.3)
        watched.becomes(battery_ratio=0.3)
    else:
        laptop.metered(Metered.GUESS)
        watched.becomes(metered=Metered.GUESS)
    laptop.thaw_service(service)
    until(lambda: watch.tellers == NAMES, WITHIN_S)
    assert (watch.state.battery_present, watch.state.power_saver) == (True, True)
    assert watch.state.metered.counts


def test_an_answer_that_does_not_come_makes_unknown(
    laptop: EmulatedLaptop, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It freezes between its signal, which names a property without its value, and its answer."""
    monkeypatch.setattr(limits, "BUS_ANSWER_S", 0.2)
    laptop.metered(Metered.YES)
    watch = watched.start()
    name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
    code = "import os, signal\nself.EmitSignal(dbus.PROPERTIES_IFACE, 'PropertiesChanged', 'sa{sv}as', "
    code += f"['{name}', {{}}, ['Metered']])\nself.connection.flush()\nos.kill(os.getpid(), signal.SIGSTOP)"
    laptop.bus.call(name, path, MOCK, "AddMethod", "sssss", MOCK, "Freeze", "", "", code)
    laptop.bus.send(name, path, MOCK, "Freeze")
    watched.becomes(metered=Metered.UNKNOWN, portal=None)
    assert watch.tellers == ("UPower", "power-profiles-daemon")
    assert watch.health().ok, "the bus is there, and so are the others"
    laptop.saver(True)
    watched.becomes(power_saver=True)
    (thread,) = watch.threads()
    time.sleep(0.2)  # until it sleeps again
    before = thread_cost([thread]).wakeups
    time.sleep(0.5)
    assert thread_cost([thread]).wakeups == before, "once it is late nobody waits for it"
    laptop.thaw_service(NETWORK)
    watched.becomes(metered=Metered.YES, portal=False)


@pytest.mark.parametrize(
    ("properties", "fields"),
    [
        ({"Metered": ("s", "yes")}, {"metered": Metered.UNKNOWN, "online": True}),
        (
            {"Metered": ("u", 77), "Connectivity": ("u", 77), "State": ("u", 77)},
            {"online": None, "portal": None},
        ),
        ({"Metered": ("d", float("nan")), "Connectivity": ("s", "full")}, {"metered": Metered.UNKNOWN}),
        ({"Metered": ("u", 1), "Connectivity": ("as", ["full"])}, {"metered": Metered.YES, "online": True}),
    ],
)
def test_a_network_manager_that_lies(
    properties: dict[str, tuple[str, Any]],
    fields: dict[str, object],
    laptop: EmulatedLaptop,
    watched: Watched,
) -> None:
    watched.start()
    laptop.network(**properties)
    watched.becomes(**fields)
    laptop.network(Metered=("u", 3), Connectivity=("u", 4))
    watched.becomes(metered=Metered.GUESS, online=True)


def test_a_network_manager_that_manages_nothing_tells_nothing(
    laptop: EmulatedLaptop, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which interfaces are up here cannot be changed for a test, so what is asked is another's answer."""
    monkeypatch.setattr(_look, "online", lambda: {"online": True})
    laptop.managed(False)
    laptop.metered(Metered.YES)
    watch = watched.start()
    assert (watch.state.online, watch.state.portal, watch.state.metered) == (True, None, Metered.UNKNOWN)
    assert "NetworkManager" not in watch.tellers
    laptop.managed(True)
    watched.becomes(online=False, portal=False, metered=Metered.YES)
    assert "NetworkManager" in watch.tellers
    laptop.managed(False)
    watched.becomes(online=True, portal=None, metered=Metered.UNKNOWN)
    laptop.online(True)
    watched.becomes(online=True, portal=False, metered=Metered.YES)
    laptop.online(False)
    watched.becomes(online=False, portal=False)
    laptop.network(Devices=("ao", []))
    watched.becomes(online=True, portal=None)
    laptop.kill_service(NETWORK)
    laptop.managed(False)
    laptop.start_service(NETWORK)
    until(lambda: _services.NETWORK in watch._loop.services.told)
    watched.becomes(online=True, metered=Metered.UNKNOWN)


def test_a_device_alone_tells_that_it_was_left_to_others(
    laptop: EmulatedLaptop, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by `nmcli device set wlan0 managed no` while it is offline: the manager's own properties stay."""
    monkeypatch.setattr(_look, "online", lambda: {"online": True})
    laptop.online(False)
    assert watched.start().state.online is False
    laptop._wifi_becomes(10)
    watched.becomes(online=True)
    laptop._wifi_becomes(30)
    watched.becomes(online=False)
    laptop.online(True)
    watched.becomes(online=True, portal=False)
    laptop._wifi_becomes(10)
    laptop.network(Connectivity=("u", 1), State=("u", 20))
    watched.becomes(online=True, portal=None)


LYING_UPOWER = [
    ({"Percentage": ("d", 101.0)}, {"battery_ratio": None, "battery_present": True}),
    ({"Percentage": ("d", -3.0)}, {"battery_ratio": None}),
    ({"Percentage": ("d", float("nan"))}, {"battery_ratio": None}),
    ({"Percentage": ("d", float("inf"))}, {"battery_ratio": None}),
    ({"Percentage": ("s", "half")}, {"battery_ratio": None}),
    ({"Percentage": ("d", 0.0), "State": ("u", 0)}, {"battery_ratio": None}),
    ({"EnergyRate": ("d", float("nan"))}, {"discharge_w": None}),
    ({"EnergyRate": ("d", 1e7)}, {"discharge_w": None}),
    ({"EnergyRate": ("d", -4.0)}, {"discharge_w": None}),
    ({"IsPresent": ("s", "")}, {"battery_present": None, "battery_ratio": None, "on_mains": False}),
    ({"Type": ("u", 5)}, {"battery_present": None, "battery_ratio": None}),
    ({"State": ("d", 1e300)}, {"battery_present": True, "discharge_w": None}),
]


@pytest.mark.parametrize(("properties", "fields"), LYING_UPOWER)
def test_an_upower_that_lies(
    properties: dict[str, tuple[str, Any]],
    fields: dict[str, object],
    new_laptop: Callable[..., EmulatedLaptop],
    watched: Watched,
) -> None:
    """The real one does not; so python-dbusmock's template speaks under its name."""
    laptop = new_laptop(services=(), battery_ratio=None)
    laptop.bus.run(
        "org.freedesktop.UPower", "--system", "--template", "upower", "--parameters", '{"OnBattery": true}'
    )
    name, path = "org.freedesktop.UPower", "/org/freedesktop/UPower/devices/DisplayDevice"
    device = f"{name}.Device"
    good = {
        "Type": ("u", 2),
        "State": ("u", 2),
        "Percentage": ("d", 50.0),
        "EnergyRate": ("d", 7.5),
        "IsPresent": ("b", True),
    }
    watched.start()

    def tell(now: dict[str, tuple[str, Any]]) -> None:
        laptop.bus.call(name, path, MOCK, "UpdateProperties", "sa{sv}", device, now)

    tell(good)
    watched.becomes(battery_present=True, battery_ratio=0.5, discharge_w=7.5, on_mains=False)
    tell(properties)
    watched.becomes(**fields)
    tell({**good, "Percentage": ("d", 49.0)})
    watched.becomes(battery_present=True, battery_ratio=0.49, discharge_w=7.5)


def test_a_signal_of_another_form_is_not_taken(laptop: EmulatedLaptop, watched: Watched) -> None:
    watched.start()
    name, path = "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager"
    for signature, body in (("s", [("s", name)]), ("u", [("u", 1)]), ("sss", [("s", name)] * 3)):
        arguments = ("org.freedesktop.DBus.Properties", "PropertiesChanged", signature, body)
        laptop.bus.call(name, path, MOCK, "EmitSignal", "sssav", *arguments)
    laptop.metered(Metered.YES)
    watched.becomes(metered=Metered.YES)


def test_asking_starts_no_service(tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    services, started = tmp_path / "dbus-1" / "services", tmp_path / "started"
    services.mkdir(parents=True)
    for one in {one.service for one in _services._OBJECTS.values()}:
        (services / f"{one}.service").write_text(
            f"[D-BUS Service]\nName={one}\nExec=/usr/bin/touch {started}\n"
        )
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    bus = BusDaemon(tmp_path / "bus")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
    try:
        watched.start()
        time.sleep(0.3)
        assert not started.exists()
        bus.send(_services.NETWORK, "/", _services.NETWORK, "Reload")
        until(started.exists, what="it is started for whoever asks without care")
    finally:
        bus.stop()


# --- the bus ------------------------------------------------------------------------------------------------


def test_a_bus_that_is_lost_is_a_problem_until_it_is_back(
    laptop: EmulatedLaptop, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUS_RETRY_FIRST_S", 0.1)
    monkeypatch.setattr(limits, "BUS_RETRY_CAP_S", 0.1)
    laptop.saver(True)
    watch = watched.start()
    path = laptop.bus.path
    laptop.bus.stop()
    watched.becomes(power_saver=None, metered=Metered.UNKNOWN)
    (problem,) = watch.health().problems
    assert (problem.part, "system bus is lost" in problem.message) == ("resources", True)
    assert watch.threads(), "it goes on"
    with EmulatedLaptop(battery_ratio=0.33) as another:
        another.bus.move(path)
        watched.becomes(battery_ratio=0.33, power_saver=False, metered=Metered.NO)
        assert watch.health().ok


@pytest.mark.as_shipped
def test_a_bus_that_does_not_answer_holds_start_for_less_than_a_second(
    laptop: EmulatedLaptop, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUS_RETRY_FIRST_S", 0.1)
    laptop.bus.freeze()
    try:
        began_s = time.monotonic()
        watch = watched.start()
        assert time.monotonic() - began_s < LATE_S
        assert watch.state.free_disk_bytes
        assert (watch.tellers, watch.health().ok) == ((), False)
    finally:
        laptop.bus.thaw()
    until(lambda: watch.tellers == NAMES)
    assert watch.health().ok


def test_without_a_bus_there_is_no_thread(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    watch = watched.start()
    assert (watch.threads(), watch.tellers, watch.health().ok) == ([], (), True)
    assert watch.state.free_disk_bytes
    assert watch.state.battery_present is not None


# --- looks --------------------------------------------------------------------------------------------------


def test_a_refresh_looks_once_a_minute_at_most(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """How full a disk is cannot be changed for a test alone, so what is asked is another folder's."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    watch = watched.start()
    looks: list[None] = []

    def disk() -> dict[str, Any]:
        looks.append(None)
        return {"free_disk_bytes": len(looks)}

    monkeypatch.setattr(watch._loop._looker, "_disk", disk)
    watch.refresh()
    watch.refresh()
    assert (looks, watched.told) == ([], [])
    monkeypatch.setattr(limits, "LOOK_INTERVAL_S", 0.0)
    watch.refresh()
    assert [state.free_disk_bytes for state in watched.told] == [1]
    assert watched.callers == {threading.current_thread().name}
    watch.stop()
    watch.refresh()
    assert len(looks) == 1


def test_a_look_that_fails_leaves_the_rest(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")

    def fail(_: object) -> None:  # no disk fails on demand
        raise OSError("gone")

    monkeypatch.setattr("shutil.disk_usage", fail)
    state = watched.start().state
    assert state.free_disk_bytes is None
    assert state.battery_present is not None


ON_THE_LAPTOP = """
import sys
from mcilib.resources.watch import ResourceWatch
changed = []
watch = ResourceWatch(".")
watch.start(lambda: changed.append(watch.state))
print(watch.state.battery_ratio, watch.state.on_mains, watch.tellers, flush=True)
for line in sys.stdin:
    while len(changed) < int(line):
        import time; time.sleep(0.01)
    print(watch.state.battery_ratio, watch.state.on_mains, watch.tellers, flush=True)
watch.stop()
"""


def test_without_upower_its_files_are_read_when_it_goes(laptop: EmulatedLaptop) -> None:
    """In a process that sees the emulated files."""
    environment = {**os.environ, **laptop.environment()}
    command = [sys.executable, "-c", ON_THE_LAPTOP]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        assert agent.stdout.readline() == f"0.8 True {NAMES}\n"
        laptop.freeze_service(UPOWER)
        laptop.battery(0.6)
        laptop.kill_service(UPOWER)
        agent.stdin.write("1\n")
        agent.stdin.flush()
        assert agent.stdout.readline() == f"0.6 True {NAMES[1:]}\n"
        agent.stdin.close()
        assert agent.wait(10) == 0


def test_psutil_is_not_loaded_where_the_network_is_told(laptop: EmulatedLaptop) -> None:
    code = "import sys\nfrom mcilib.resources.watch import ResourceWatch\nw = ResourceWatch('.')\n"
    code += "w.start(lambda: None)\nprint('psutil' in sys.modules)\nw.stop()"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **laptop.environment()}
    seen = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout]
    laptop.kill_service(NETWORK)
    seen += [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout]
    assert seen == ["False\n", "True\n"]


# --- life ---------------------------------------------------------------------------------------------------


def test_stop_ends_the_thread_and_may_be_called_twice(laptop: EmulatedLaptop, watched: Watched) -> None:
    watched.watch.stop()  # before start
    assert watched.watch.state == ResourceState()
    watch = watched.start()
    (thread,) = watch.threads()
    assert (thread.name, thread.daemon) == ("mcilib-resources", True)
    watched.start()
    assert watch.threads() == resource_threads() == [thread]
    began_s = time.monotonic()
    watch.stop()
    assert time.monotonic() - began_s < LATE_S
    assert not thread.is_alive()
    watch.stop()
    laptop.metered(Metered.YES)
    assert (watch.state, watch.tellers, watch.threads(), watched.told) == (ResourceState(), (), [], [])
    assert watch.health().ok
    assert watched.start().state.metered is Metered.YES, "it may be started again"


@pytest.mark.as_shipped
def test_stop_while_an_answer_is_waited_for(laptop: EmulatedLaptop, watched: Watched) -> None:
    laptop.freeze_service(NETWORK)
    (thread,) = watched.start().threads()
    began_s = time.monotonic()
    watched.watch.stop()
    assert time.monotonic() - began_s < LATE_S
    assert not thread.is_alive()


def test_an_idle_watch_never_wakes(laptop: EmulatedLaptop, watched: Watched) -> None:
    (thread,) = watched.start().threads()
    before = cost_at_rest([thread]).wakeups
    time.sleep(2)
    assert thread_cost([thread]).wakeups == before


def test_no_file_descriptor_is_left(laptop: EmulatedLaptop, watched: Watched) -> None:
    watched.start().stop()  # what is imported for the first time
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        watched.start().stop()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_host_that_raises_or_stops_it_in_the_callback(
    laptop: EmulatedLaptop, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    watch = ResourceWatch(tmp_path)

    def on_change() -> None:
        if watch.state.metered is Metered.GUESS:
            watch.stop()
        raise RuntimeError("the host's")

    watch.start(on_change)
    (thread,) = watch.threads()
    laptop.metered(Metered.YES)
    until(lambda: "on_change" in caplog.text)
    assert thread.is_alive()
    laptop.metered(Metered.GUESS)
    thread.join(20)
    assert not thread.is_alive()


def test_a_thread_that_cannot_be_had_is_no_error_of_the_host(
    laptop: EmulatedLaptop,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(self: threading.Thread) -> None:  # a limit of processes cannot be set for one test alone
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    watch = watched.start()
    assert (watch.state, watch.threads()) == (ResourceState(), [])
    assert "cannot be watched" in caplog.text


def test_what_fails_in_the_thread_makes_unknown(
    laptop: EmulatedLaptop,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of the program itself, which no bus can bring about."""
    laptop.metered(Metered.YES)
    watch = watched.start()

    def fail(self: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(_services.Services, "serve", fail)
    laptop.metered(Metered.NO)
    until(lambda: not watch.threads())
    assert watch.state.metered is Metered.UNKNOWN
    assert "a fault" in caplog.text


@pytest.mark.parametrize("answer", [b"", b"ERROR\r\n", b"OK 00\r\n" + b"\xff" * 64])
def test_something_else_at_the_address_of_the_bus(
    answer: bytes, tmp_path: Path, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path / 'bus'}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        watch = watched.start()
        server.join()
    assert (watch.threads(), watch.tellers, watch.health().ok) == ([], (), True)


@pytest.mark.parametrize("system", ["win32", "darwin", "freebsd14"])
def test_other_systems_have_no_thread(
    system: str, laptop: EmulatedLaptop, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch.sys, "platform", system)  # type: ignore[attr-defined]
    watched.start()
    assert (watched.watch.threads(), watched.watch.tellers, watched.watch.health().ok) == ([], (), True)
    assert watched.watch.state.free_disk_bytes
    assert watched.watch.state.power_saver is None
