"""Weekly hours are those of the clocks on the wall: the machine may get another time zone while it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mcilib.clock import ClockAnchor
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate
from mcilib.consent.pause import Now
from mcilib.policy.hours import Window, change_s, week_ns
from mcilib.testing.fakes import example_grant

S = 1_000_000_000
HOUR = 3_600 * S
NOON_NS = 1_768_219_200 * S
"""Monday 2026-01-12 12:00 UTC, which is 21:00 in Tokyo."""


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_utc")
def test_hours_follow_the_machine_to_another_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    lunch = Window.parse("12:30-13:30")
    assert week_ns(NOON_NS) == 12 * HOUR
    assert change_s([lunch], NOON_NS) == 1_800
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # and nobody tells the process
    assert change_s([lunch], NOON_NS) == 15.5 * 3_600
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    assert week_ns(NOON_NS) == 17.5 * HOUR


@pytest.mark.usefixtures("in_utc")
def test_exempt_hours_hold_in_the_new_zone_from_the_next_look_on(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = ExemptScope(hours=("21:00-22:00",))
    state = ControlState(exemptions=(Exemption("0" * 32, scope, "personal", "", NOON_NS - S),))
    gate = Gate(example_grant("pointer"), state)
    gate.apply(Now(0, 0, NOON_NS, "boot"))
    assert gate.admits("move", 0, ClockAnchor(0, NOON_NS))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert not gate.admits("move", 2 * S, ClockAnchor(S, NOON_NS + S))
