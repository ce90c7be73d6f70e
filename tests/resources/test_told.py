"""Whatever the services say, a state comes out of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcilib import limits
from mcilib.policy.state import Metered, ResourceState
from mcilib.resources import _services
from mcilib.resources._bus import Answer, Signal
from mcilib.resources._told import over

INTERFACES = list(_services._OBJECTS)
NAMES = ["Type", "State", "Percentage", "EnergyRate", "IsPresent", "OnBattery", "Connectivity", "Metered"]
NAMES += ["ActiveProfile", "Other", "Devices", "DeviceType"]
DEVICES = ["/1", "/2"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 8)
    | st.floats()
    | st.floats(0, 100)
    | st.text()
    | st.lists(st.sampled_from(DEVICES), max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=5,
)
properties = st.dictionaries(st.sampled_from(NAMES) | st.text(), values, max_size=8)


# The first text of a process is slow to make.
patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)


def check(state: ResourceState) -> None:
    for name in ("battery_present", "on_mains", "power_saver", "online", "portal"):
        assert getattr(state, name) in (None, True, False)
        assert isinstance(getattr(state, name), bool | None)
    assert state.battery_ratio is None or 0 <= state.battery_ratio <= 1
    assert state.discharge_w is None or 0 < state.discharge_w <= 1000
    assert isinstance(state.metered, Metered)
    assert isinstance(state.on_battery, bool)
    hash(state)


@patient
@given(st.dictionaries(st.sampled_from(INTERFACES + DEVICES), properties))
def test_any_properties_give_a_state(told: dict[str, dict[str, Any]]) -> None:
    check(over(ResourceState(), told))


class Post:
    """Takes what is asked; no bus is needed to see what is made of answers."""

    def __init__(self) -> None:
        self.serial = 0

    def post(self, *_: object) -> int:
        self.serial += 1
        return self.serial


variants = st.dictionaries(
    st.sampled_from(NAMES), st.tuples(st.text(max_size=2), values) | values, max_size=5
)
members = st.sampled_from(["PropertiesChanged", "NameOwnerChanged", "DeviceAdded", "StateChanged"]) | st.text(
    max_size=3
)
bodies = (
    st.tuples(st.sampled_from(INTERFACES), variants, st.lists(st.text(), max_size=1))
    | st.tuples(st.sampled_from(INTERFACES), st.text(), st.sampled_from(["", ":1.5"]))
    | st.lists(values, max_size=3).map(tuple)
    | st.tuples(st.integers(0, 30), st.integers(0, 30), values)
)
news = st.builds(Signal, st.text(max_size=3), members, bodies) | st.builds(
    Answer, st.integers(0, 9), st.none() | st.tuples(variants | values) | bodies
)


@patient
@given(st.lists(news, max_size=8))
def test_any_signals_and_answers_give_a_state(all_news: list[Signal | Answer]) -> None:
    services, bus = _services.Services(), Post()
    for interface in INTERFACES:
        services._ask(bus, interface)  # type: ignore[arg-type]

    class Bus(Post):
        def news(self) -> list[Signal | Answer]:
            return all_news

    bus_with_news = Bus()
    bus_with_news.serial = bus.serial
    services.take(bus_with_news)  # type: ignore[arg-type]
    check(over(ResourceState(), services.told))


def test_what_is_not_told_is_left_as_it_was() -> None:
    base = ResourceState(battery_present=True, online=True, free_disk_bytes=5, power_saver=True)
    assert over(base, {}) == base
    told = {_services.NETWORK: {"Connectivity": 1}}
    assert over(base, told) == ResourceState(
        battery_present=True, online=False, portal=False, free_disk_bytes=5, power_saver=True
    )


WIFI, WIRED, LOOPBACK, BRIDGE = 2, 1, 32, 13


@pytest.mark.parametrize(
    ("devices", "counts"),
    [
        ([], False),
        ([(LOOPBACK, 100)], False),
        ([(LOOPBACK, 100), (WIRED, 10)], False),
        (
            [(BRIDGE, 100), (WIRED, 10), (WIFI, 10)],
            False,
        ),  # one of containers, which NetworkManager found there
        ([(WIRED, 10), (WIFI, 30)], False),  # the cable may be somebody else's
        ([(WIRED, 0)], False),
        ([(WIRED, 20), (WIFI, 30)], True),
        ([(BRIDGE, 10), (WIFI, 30)], True),
        ([(WIFI, "off")], True),
        ([(WIFI, None)], True),
        ([None], True),  # it has not answered
        ([(WIRED, 10), None], True),
        (None, True),
    ],
)
def test_no_network_counts_of_one_that_manages_the_machines_interfaces(devices: Any, counts: bool) -> None:
    manager: dict[str, Any] = {"Connectivity": 1, "State": 20, "Metered": 1}
    told = {_services.NETWORK: manager}
    if devices is not None:
        manager["Devices"] = [f"/{at}" for at in range(len(devices))]
        told |= {
            f"/{at}": dict(zip(("DeviceType", "State"), d, strict=True)) for at, d in enumerate(devices) if d
        }
    base = ResourceState(online=True)
    known = ResourceState(online=False, portal=False, metered=Metered.YES)
    assert over(base, told) == (known if counts else base)
    for word, online, portal in (({"Connectivity": 4}, True, False), ({"Connectivity": 2}, False, True)):
        told[_services.NETWORK] = {**manager, **word}
        assert over(base, told) == ResourceState(online=online, portal=portal, metered=Metered.YES)
    told[_services.NETWORK] = {**manager, "State": 10}  # somebody switched networking off
    assert over(base, told) == known
    told[_services.NETWORK] = {**manager, "Connectivity": 0}  # it does not check
    assert over(base, told).online is (not counts)


def test_of_thousands_of_devices_the_first_are_asked() -> None:
    services, bus = _services.Services(), Post()
    paths = [f"/{at}" for at in range(5_000)]
    services.told = {_services.NETWORK: {"Connectivity": 1, "Devices": paths}}
    services._ask_devices(bus)  # type: ignore[arg-type]
    assert list(services._asked.values()) == paths[: limits.NETWORK_DEVICES_MAX]
    for path in paths[: limits.NETWORK_DEVICES_MAX]:
        services._now(path, {"DeviceType": 1, "State": 10})
    assert over(ResourceState(online=True), services.told).online
    services._now(_services.NETWORK, None)
    assert not services.told


def test_mains_is_guessed_from_the_batteries_where_upower_does_not_say() -> None:
    guessed = []
    for state in range(7):
        device = {"IsPresent": True, "Type": 2, "State": state, "Percentage": 50.0}
        guessed.append(over(ResourceState(), {_services.BATTERY: device}).on_mains)
    assert guessed == [None, True, False, None, True, True, None]
    ups = {"IsPresent": True, "Type": 3, "Percentage": 50.0}
    assert over(ResourceState(), {_services.BATTERY: ups}).battery_ratio == 0.5
    absent = over(ResourceState(), {_services.BATTERY: {"IsPresent": False}})
    assert (absent.battery_present, absent.on_mains) == (False, True)
