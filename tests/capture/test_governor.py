"""The governor: when it decides, whom it tells, and what it never does."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest

from mcilib import limits
from mcilib.errors import ConfigError
from mcilib.governor import Governor, read_plan, write_plan
from mcilib.policy import BatteryPolicy, CpuBudget, NetworkPolicy, QuietHours
from mcilib.policy.plan import Motion, Plan, Upload
from mcilib.policy.state import Metered, ResourceState
from mcilib.testing.fakes import FakeResources, ManualClock

BASE = Plan(batch_age_s=60.0, upload=Upload.SCHEDULED)


class Ruled:
    """A governor that runs, and the plans it told."""

    def __init__(self, *policies: Any, state: ResourceState | None = None, **options: Any) -> None:
        self.resources, self.clock = FakeResources(state), ManualClock()
        self.told: list[Plan] = []
        self.governor = Governor(policies, self.resources, base=BASE, clock=self.clock, **options)
        self.governor.start(lambda plan, before: self.told.append(plan))

    @property
    def last(self) -> Plan:
        assert self.told[-1] == self.governor.plan
        return self.told[-1]


def test_the_first_plan_is_told_before_start_returns() -> None:
    ruled = Ruled(BatteryPolicy(), state=ResourceState(battery_present=True, on_mains=False))
    assert [plan.read_interval_s for plan in ruled.told] == [limits.BATTERY_READ_INTERVAL_S]
    assert Ruled(BatteryPolicy()).told == [BASE]


def test_a_change_is_told_once() -> None:
    ruled = Ruled(BatteryPolicy(), NetworkPolicy(), state=ResourceState(battery_present=True, on_mains=True))
    ruled.resources.become(battery_ratio=0.5)
    assert len(ruled.told) == 1
    ruled.resources.become(on_mains=False)
    ruled.resources.become(battery_ratio=0.4)
    assert len(ruled.told) == 2
    assert ruled.last.reasons == ("on battery",)
    ruled.resources.become(metered=Metered.YES)
    assert (ruled.last.upload, len(ruled.told)) == (Upload.CONTROL, 3)
    ruled.resources.become(metered=Metered.NO, on_mains=True)
    assert ruled.last == BASE


def test_what_is_told_gives_the_plan_before_it_too() -> None:
    resources, pairs = FakeResources(), []
    governor = Governor([NetworkPolicy()], resources, base=BASE, clock=ManualClock())
    governor.start(lambda plan, before: pairs.append((plan.upload, before.upload)))
    resources.become(portal=True)
    assert pairs == [(Upload.SCHEDULED, Upload.SCHEDULED), (Upload.NONE, Upload.SCHEDULED)]


def test_nothing_is_told_after_stop() -> None:
    ruled = Ruled(NetworkPolicy())
    ruled.governor.stop()
    ruled.resources.become(portal=True)
    ruled.governor.consider()
    assert len(ruled.told) == 1


def test_the_plan_stays_as_it_was_once_nothing_is_known_any_more() -> None:
    """What is still sent while a collector stops, and the last upload of `run --for`, keep to it."""

    class Forgetful(FakeResources):
        def stop(self) -> None:  # as ResourceWatch does
            super().stop()
            self.become(metered=Metered.UNKNOWN)

    resources = Forgetful(ResourceState(metered=Metered.YES))
    governor = Governor([NetworkPolicy()], resources, base=BASE, clock=ManualClock())
    governor.start(lambda plan, before: None)
    governor.stop()
    assert governor.consider().upload is Upload.CONTROL
    governor.start(lambda plan, before: None)
    assert governor.plan.upload is Upload.SCHEDULED


def test_a_second_start_counts_anew() -> None:
    ruled = Ruled(NetworkPolicy())
    ruled.resources.become(portal=True)
    ruled.governor.stop()
    ruled.governor.start(lambda plan, before: None)
    told = ruled.governor.statistics()
    assert (told.changes, len(told.history)) == (0, 1)


def test_resources_that_break_their_promise_raise_nowhere() -> None:
    class Broken(FakeResources):
        broken = False

        @property
        def state(self) -> ResourceState:
            if self.broken:
                raise RuntimeError("no")
            return super().state

        def refresh(self) -> None:
            if self.broken:
                raise RuntimeError("no")

        def health(self) -> Any:
            raise RuntimeError("no")

        def threads(self) -> list[threading.Thread]:
            raise RuntimeError("no")

    resources, clock = Broken(ResourceState(metered=Metered.YES)), ManualClock()
    policies = NetworkPolicy(), QuietHours("12:00-13:00")
    governor = Governor(policies, resources, base=BASE, clock=clock)
    governor.start(lambda plan, before: None)
    resources.broken = True
    assert governor.consider().upload is Upload.CONTROL, "what was known last holds"
    clock.advance(governor.due_s() or 0)
    governor.pulse()
    governor.consider()
    assert governor.due_s() != 0, "the recorder would never sleep"
    assert governor.threads() == []
    assert governor.health().problems[0].part == "resources"


def test_consider_looks_at_the_machine_first() -> None:
    ruled = Ruled(NetworkPolicy())
    ruled.governor.consider()
    assert ruled.resources.refreshed == 1


def test_without_policies_nothing_is_watched() -> None:
    resources = FakeResources()
    resources.start = None  # type: ignore[method-assign, assignment]
    governor = Governor([], resources, base=BASE, clock=ManualClock())
    governor.start(lambda plan, before: None)
    assert governor.plan == BASE


def test_a_machine_without_a_network_matters_only_to_those_that_need_one() -> None:
    offline = ResourceState(online=False)
    assert Ruled(NetworkPolicy(), state=offline).last.upload is Upload.NONE
    assert Ruled(NetworkPolicy(), state=offline, needs_network=False).last.upload is Upload.SCHEDULED
    metered = ResourceState(metered=Metered.YES)
    assert Ruled(NetworkPolicy(), state=metered, needs_network=False).last.upload is Upload.CONTROL


def test_a_session_that_is_away_is_part_of_the_state() -> None:
    away = [False]

    def while_away(state: ResourceState, latches: Any, moment: Any) -> tuple[Plan, None]:
        return Plan(upload=Upload.NONE) if state.session_away else Plan(), None

    ruled = Ruled(while_away, away=lambda: away[0])
    away[0] = True
    assert ruled.governor.consider().upload is Upload.NONE


# --- the CPU ------------------------------------------------------------------------------------------------


def cpu_ratios(ruled: Ruled, *steps: tuple[float, float], cpu: list[int]) -> None:
    for passed_s, cpu_s in steps:
        ruled.clock.advance(passed_s)
        cpu[0] += int(cpu_s * 1e9)
        ruled.governor.pulse()


def spied(seen: list[float | None]) -> Any:
    """A policy that notes what it is told of the CPU."""

    def spy(state: ResourceState, latches: Any, moment: Any) -> tuple[Plan, None]:
        seen.append(state.cpu_ratio)
        return Plan(), None

    return spy


def test_what_input_costs_is_measured_from_pulse_to_pulse() -> None:
    cpu, seen = [7_000_000_000], list[float | None]()
    ruled = Ruled(spied(seen), cpu_ns=lambda: cpu[0])
    seen.clear()
    long_s = limits.PULSE_WINDOW_S
    cpu_ratios(ruled, (1, 0.5), (4, 1.0), (4, 1.0), (long_s + 1, 1), (1, 0.1), (2, 0.2), cpu=cpu)
    assert seen == [0.25, pytest.approx(0.1)]
    ruled.governor.consider()
    assert seen[-1] is None, "a measurement is told once"
    assert ruled.governor.statistics().resources["cpu_ratio"] == pytest.approx(0.1)


def test_what_comes_at_once_and_seldom_does_not_count() -> None:
    """A full garbage collection, which any thread may have to pay for, or the end of a batch."""
    cpu, seen = [0], list[float | None]()
    ruled = Ruled(spied(seen), cpu_ns=lambda: cpu[0])
    cpu_ratios(ruled, (1, 0), cpu=cpu)
    seen.clear()
    cpu_ratios(ruled, (0.4, 0.016), (0.4, 0.2), (0.4, 0.016), cpu=cpu)
    assert seen == [pytest.approx(0.04)]
    cpu_ratios(ruled, *[(0.4, 0.032)] * 3, cpu=cpu)
    assert seen[1:] == [pytest.approx(0.08)], "what lasts counts"


def test_the_machine_is_looked_at_with_each_measurement() -> None:
    cpu = [0]
    ruled = Ruled(BatteryPolicy(), cpu_ns=lambda: cpu[0])
    cpu_ratios(ruled, *[(1.5, 0.01)] * 21, cpu=cpu)
    assert ruled.resources.refreshed == 10


def test_the_budget_lowers_the_plan() -> None:
    cpu = [0]
    ruled = Ruled(CpuBudget(0.02), cpu_ns=lambda: cpu[0])
    cpu_ratios(ruled, (2, 0), (2, 0.4), (2, 0.4), cpu=cpu)
    assert ruled.last.motion is not Motion.FULL


def test_a_system_that_does_not_tell_what_threads_take() -> None:
    ruled = Ruled(CpuBudget(0.02), cpu_ns=lambda: None)
    for _ in range(3):
        ruled.clock.advance(1)
        ruled.governor.pulse()
    assert ruled.last == BASE


# --- time, overrides ----------------------------------------------------------------------------------------


def test_quiet_hours_say_when_they_begin() -> None:
    assert Ruled(QuietHours("00:00-24:00")).last.upload is Upload.CONTROL
    assert Ruled(BatteryPolicy()).governor.due_s() is None
    assert 0 < (Ruled(QuietHours("12:00-13:00")).governor.due_s() or 0) <= 86_400


def test_overrides_win_and_stick_until_taken_back() -> None:
    ruled = Ruled(NetworkPolicy())
    ruled.governor.override("participant", motion="none")
    ruled.governor.override("host", upload="none", batch_age_s=120.0)
    ruled.resources.become(portal=True)
    ruled.resources.become(portal=False)
    assert (ruled.last.motion, ruled.last.upload, ruled.last.batch_age_s) == (Motion.NONE, Upload.NONE, 120)
    assert "participant set motion to none" in ruled.last.reasons
    ruled.governor.take_back("host", "upload")
    assert (ruled.last.upload, ruled.last.batch_age_s) == (Upload.SCHEDULED, 120)
    ruled.governor.take_back("host")
    assert (ruled.last.motion, ruled.last.batch_age_s) == (Motion.NONE, 60)
    ruled.governor.take_back("participant")
    assert ruled.last == BASE


def test_an_override_over_a_policy() -> None:
    ruled = Ruled(NetworkPolicy(), state=ResourceState(metered=Metered.YES))
    ruled.governor.override("participant", upload=Upload.SCHEDULED)
    assert ruled.last.upload is Upload.SCHEDULED
    assert ruled.last.reasons == ("participant set upload to scheduled", "the network is metered")


@pytest.mark.parametrize("levers", [{"motion": "sideways"}, {"speed": 1}, {"tolerance_px": -1}])
def test_a_lever_that_is_none(levers: dict[str, Any]) -> None:
    ruled = Ruled()
    with pytest.raises(ConfigError, match="cannot be overridden"):
        ruled.governor.override("host", **levers)
    assert ruled.last == BASE


# --- what is told -------------------------------------------------------------------------------------------


def test_history_and_reasons(tmp_path: Any) -> None:
    ruled = Ruled(NetworkPolicy())
    for number in range(limits.PLAN_HISTORY + 3):
        ruled.clock.advance(1)
        ruled.resources.become(portal=number % 2 == 0)
    told = ruled.governor.statistics()
    assert told.changes == limits.PLAN_HISTORY + 3
    assert len(told.history) == limits.PLAN_HISTORY
    assert told.history[-1].levers == told.levers == {"upload": "none"}
    assert told.history[-1].wall_ns == ruled.clock.wall_ns()
    assert told.history[-2].levers == {}
    assert told.reasons == ("the network wants somebody to sign in",)
    assert told.resources == {"portal": True, "session_away": False}
    write_plan(tmp_path / "plan.json", told)
    assert read_plan(tmp_path / "plan.json") == told
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600


_CHANGE: dict[str, Any] = {"wall_ns": 1, "levers": {}, "reasons": []}


@pytest.mark.parametrize(
    "harm",
    [
        {"levers": 1}, {"levers": ["motion"]}, {"reasons": "abc"}, {"reasons": [1]}, {"changes": "1"},
        {"resources": None}, {"history": {}}, {"history": [1]}, {"history": [{**_CHANGE, "wall_ns": "now"}]},
        {"history": [{**_CHANGE, "wall_ns": 10**30}]}, {"history": [{**_CHANGE, "wall_ns": -(10**30)}]},
        {"history": [{**_CHANGE, "levers": 2}]}, {"history": [{**_CHANGE, "reasons": [None]}]},
        {"history": [{**_CHANGE, "more": 2}]},
    ],
)  # fmt: skip
def test_a_plan_file_with_values_of_another_kind(tmp_path: Any, harm: dict[str, Any]) -> None:
    plan = {"schema": 1, "levers": {}, "reasons": [], "changes": 0, "history": [_CHANGE], "resources": {}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert read_plan(tmp_path / "plan.json") is not None
    (tmp_path / "plan.json").write_text(json.dumps({**plan, **harm}))
    assert read_plan(tmp_path / "plan.json") is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 2}', b'{"schema": 1, "more": 1, "history": []}']
)
def test_a_plan_file_that_is_none(tmp_path: Any, content: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    assert read_plan(tmp_path / "plan.json") is None
    assert read_plan(tmp_path / "none.json") is None


def test_a_policy_that_fails_is_told() -> None:
    def broken(state: ResourceState, latches: Any, moment: Any) -> Any:
        raise RuntimeError("no")

    ruled = Ruled(broken)
    assert ruled.last.upload is Upload.CONTROL
    [problem] = ruled.governor.health().problems
    assert (problem.part, "broken" in problem.message) == ("policy", True)


def test_many_threads_at_once_leave_the_plan_of_the_last_state() -> None:
    ruled = Ruled(NetworkPolicy(), BatteryPolicy())

    def work(number: int) -> None:
        for turn in range(50):
            ruled.resources.become(portal=(turn + number) % 2 == 0, on_mains=turn % 3 == 0)
            ruled.governor.consider()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ruled.resources.become(portal=True)
    ruled.resources.become(portal=False)
    assert ruled.last == BASE
    differ = [
        replace(a, reasons=()) != replace(b, reasons=())
        for a, b in zip(ruled.told, ruled.told[1:], strict=False)
    ]
    assert all(differ)


def test_a_measurement_that_changes_nothing_decides_nothing() -> None:
    cpu, asked = [0], list[float | None]()

    class Counted(BatteryPolicy):
        def __call__(self, state: ResourceState, latches: Any, moment: Any) -> Any:
            asked.append(state.cpu_ratio)
            return super().__call__(state, latches, moment)

    ruled = Ruled(Counted(), CpuBudget(0.02), cpu_ns=lambda: cpu[0])
    asked.clear()
    cpu_ratios(ruled, (2, 0), (2, 0.02), (2, 0.02), cpu=cpu)
    assert asked == []
    assert ruled.governor.statistics().resources["cpu_ratio"] == pytest.approx(0.01)
    cpu_ratios(ruled, (2, 0.2), (2, 0.2), cpu=cpu)
    assert asked == [pytest.approx(0.1)]
    cpu_ratios(ruled, (2, 0.001), (2, 0.001), cpu=cpu)
    assert len(asked) == 2, "a budget that holds something back wants to know"


def test_a_policy_that_is_due_is_asked_while_there_is_input() -> None:
    class Due(BatteryPolicy):
        def due_s(self, moment: Any) -> float:
            return 5.0

        def __call__(self, state: ResourceState, latches: Any, moment: Any) -> Any:
            asked.append(moment.monotonic_ns)
            return super().__call__(state, latches, moment)

    asked: list[int] = []
    ruled = Ruled(Due())
    for _ in range(11):
        ruled.clock.advance(1)
        ruled.governor.pulse()
    assert len(asked) == 3
    assert ruled.governor.due_s() == 4.0


def test_a_boundary_that_the_machine_slept_through_is_seen_at_the_first_input() -> None:
    """Monotonic time stood still meanwhile, so nothing seems due."""
    ruled = Ruled(QuietHours("16:00-17:00", capture=False, tz=UTC))  # the clock says 15:06
    assert ruled.last.capture
    ruled.clock.suspend(3_600)
    ruled.governor.pulse()
    assert not ruled.last.capture
    ruled.clock.step_wall(-3_600)
    ruled.governor.pulse()
    assert ruled.last.capture, "a clock that went back"


def test_a_boundary_that_the_machine_slept_through_is_seen_soon_without_input() -> None:
    ruled = Ruled(QuietHours("15:00-23:00", capture=False, tz=UTC))
    assert not ruled.last.capture
    assert (ruled.governor.due_s() or 0) <= limits.PLAN_DUE_CAP_S <= 900
