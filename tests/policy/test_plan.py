"""The meet of plans, and what a plan refuses to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from machines import plans

from mcilib import limits
from mcilib.policy import ByteEffort, CpuEffort, Motion, Plan, Upload
from mcilib.protocols import Allowed


def check_meet(a: Any, b: Any, c: Any) -> None:
    assert a & b == b & a
    assert (a & b) & c == a & (b & c)
    assert a & a == a


@given(plans, plans, plans)
def test_the_meet_is_commutative_associative_and_idempotent(a: Plan, b: Plan, c: Plan) -> None:
    check_meet(a, b, c)
    assert a & Plan() == a
    assert (a & b).frugal_as(a)
    assert (a & b).frugal_as(b)


@dataclass(frozen=True)
class Number:
    value: float


class LeftWins(Number):
    def __and__(self, other: Number) -> Number:
        return self


class Mean(Number):
    def __and__(self, other: Number) -> Number:
        return Mean((self.value + other.value) / 2)


class Sum(Number):
    def __and__(self, other: Number) -> Number:
        return Sum(self.value + other.value)


@pytest.mark.parametrize("broken", [LeftWins, Mean, Sum])
def test_a_broken_meet_fails(broken: Any) -> None:
    with pytest.raises(AssertionError):
        check_meet(broken(1), broken(2), broken(4))


@given(plans, plans)
def test_frugal_as_is_an_order(a: Plan, b: Plan) -> None:
    assert a.frugal_as(a)
    if a.frugal_as(b) and b.frugal_as(a):
        assert a.levers() == b.levers()


@pytest.mark.parametrize(
    ("lever", "less", "more"),
    [
        ("capture", False, True),
        ("read_interval_s", 0.5, 0.1),
        ("motion", Motion.NONE, Motion.FULL),
        ("tolerance_px", 8.0, 4.0),
        ("tick_ns", 2_000_000, 1_000_000),
        ("batch_age_s", 300.0, 60.0),
        ("cpu_effort", CpuEffort.LOW, CpuEffort.NORMAL),
        ("byte_effort", ByteEffort.HIGH, ByteEffort.NORMAL),
        ("upload", Upload.NONE, Upload.CONTROL),
        ("bytes_per_hour", 5, 6),
        ("bytes_per_hour", 5, None),
    ],
)
def test_each_lever_takes_part(lever: str, less: Any, more: Any) -> None:
    frugal, generous = Plan(**{lever: less}), Plan(**{lever: more})
    assert getattr(frugal & generous, lever) == less
    assert frugal.frugal_as(generous)
    assert not generous.frugal_as(frugal)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"read_interval_s": 1.5}, ValueError),
        ({"read_interval_s": float("nan")}, ValueError),
        ({"tolerance_px": -1}, ValueError),
        ({"tick_ns": 1}, ValueError),
        ({"batch_age_s": 0}, ValueError),
        ({"bytes_per_hour": -1}, ValueError),
        ({"bytes_per_hour": 0.5}, ValueError),
        ({"motion": "none"}, TypeError),
        ({"motion": 3}, TypeError),
        ({"upload": Motion.NONE}, TypeError),
        ({"capture": 1}, TypeError),
        ({"reasons": "why"}, TypeError),
        ({"reasons": (7,)}, TypeError),
        ({"upload_reasons": "why"}, TypeError),
        ({"upload_reasons": (7,)}, TypeError),
    ],
)
def test_what_is_no_plan(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(values))):
        Plan(**values)


def test_what_the_uploader_and_the_compressor_are_told() -> None:
    plan = Plan(upload=Upload.CONTROL, bytes_per_hour=7, reasons=("a", "b"))
    send = plan.to_send()
    assert (send.allowed, send.reason, send.bytes_per_hour) == (Allowed.CONTROL, "a; b", 7)
    assert Plan(reasons=("a",)).to_send().reason == ""
    assert Plan(upload=Upload.NONE).to_send().allowed is Allowed.NOTHING
    assert Plan(upload=Upload.SCHEDULED).to_send().allowed is Allowed.ALL
    usual = limits.ZSTD_LEVEL
    assert (
        Plan(cpu_effort=CpuEffort.LOW).zstd_level(usual)
        < usual
        < Plan(byte_effort=ByteEffort.HIGH).zstd_level(usual)
    )


@given(plans, plans)
def test_of_two_plans_the_uploader_is_told_the_reasons_of_each_that_holds_back(a: Plan, b: Plan) -> None:
    told = (a & b).to_send().reason
    assert set(filter(None, told.split("; "))) == {*(a.upload_reasons or ()), *(b.upload_reasons or ())}


@pytest.mark.parametrize(
    ("levers", "told"),
    [
        ({"upload": Upload.NONE}, "b"),
        ({"upload": Upload.CONTROL}, "b"),
        ({"bytes_per_hour": 5}, "b"),
        ({"upload": Upload.SCHEDULED}, ""),
        ({"batch_age_s": 9.0, "motion": Motion.NONE}, ""),
    ],
)
def test_only_a_reason_that_holds_uploads_back_is_told_to_the_uploader(levers: Any, told: str) -> None:
    plan = (
        Plan(upload=Upload.SCHEDULED) & Plan(capture=False, reasons=("a",)) & Plan(**levers, reasons=("b",))
    )
    assert (plan.reasons, plan.to_send().reason) == (("a", "b"), told)
