"""A collector follows its plan: sources, batches, uploads, and what is told of it."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from mcilib import Collector, Move, Press
from mcilib.events import Event
from mcilib.governor import PLAN_FILE, read_plan
from mcilib.policy import BatteryPolicy, NetworkPolicy, PowerSaverPolicy, QuietHours
from mcilib.policy.plan import Motion, Plan, Upload
from mcilib.policy.state import Metered, ResourceState
from mcilib.reader import Reader
from mcilib.resources.ledger import IMPACT_FILE, ImpactLedger
from mcilib.testing.fakes import FakeResources, FakeSession, FakeSource, FakeTransport, example_grant

POLICIES = (BatteryPolicy(), NetworkPolicy(), PowerSaverPolicy())


class Levered(FakeSource):
    """A source with the levers that a plan may lower, and what they were set to."""

    def __init__(self, read_interval_s: float = 0.1, motion: bool = True) -> None:
        super().__init__()
        self.read_interval_s, self.motion = read_interval_s, motion

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("read_interval_s", "motion"):
            self.__dict__.setdefault("was_set", []).append((name, value))
        super().__setattr__(name, value)


class Run:
    """A collector that runs on a machine that can be changed."""

    def __init__(
        self, folder: Path, *policies: Any, source: FakeSource | None = None, **options: Any
    ) -> None:
        self.folder, self.source = folder / "state", source or Levered()
        self.resources = options.pop("resources", FakeResources(ResourceState(online=True)))
        self.transport = FakeTransport()
        self.collector = Collector(
            sources=[self.source], grant=example_grant(), state_dir=self.folder, transport=self.transport,
            policies=policies or POLICIES, resources=self.resources, session=FakeSession(), **options,
        )  # fmt: skip

    def __enter__(self) -> Run:
        self.collector.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.collector.stop()

    def feed(self, *events: Event) -> int:
        return self.source.feed(*events)

    def moves(self, count: int) -> int:
        now_ns = time.monotonic_ns() - count * 1_000_000
        return self.feed(*(Move(now_ns + n * 1_000_000, n, 2 * n) for n in range(count)))

    def batches(self) -> list[Any]:
        """Their metadata."""
        return [batch.metadata for batch in Reader(self.folder / "spool").batches()]


# --- sources ------------------------------------------------------------------------------------------------


def test_sources_read_less_often_and_are_as_before_at_the_end(tmp_path: Path) -> None:
    source = Levered()
    with Run(tmp_path, source=source) as run:
        assert source.read_interval_s == 0.1
        run.resources.become(battery_present=True, on_mains=False)
        assert (source.read_interval_s, source.motion) == (0.75, True)
        run.resources.become(power_saver=True)
        assert source.read_interval_s == 1.0
        run.resources.become(on_mains=True, power_saver=False)
        assert source.read_interval_s == 0.1
        run.collector.override("participant", motion=Motion.NONE)
        assert source.motion is False
    assert (source.read_interval_s, source.motion) == (0.1, True)


def test_a_source_that_was_set_lower_stays_so(tmp_path: Path) -> None:
    source = Levered(read_interval_s=0.8, motion=False)
    with Run(tmp_path, source=source) as run:
        run.resources.become(battery_present=True, on_mains=False)
        assert (source.read_interval_s, source.motion) == (0.8, False)
        run.collector.override("host", motion="full")
        assert source.motion is False


def test_a_source_that_cannot_be_set_stops_nothing(tmp_path: Path) -> None:
    class Stubborn(Levered):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "read_interval_s" and value != 0.1:
                raise RuntimeError("no")
            super().__setattr__(name, value)

    with Run(tmp_path, source=Stubborn()) as run:
        run.resources.become(battery_present=True, on_mains=False)
        assert run.collector.plan.read_interval_s == 0.75
        assert run.moves(3) == 3


def test_capture_ends_and_goes_on_as_the_plan_says(tmp_path: Path) -> None:
    def by_day(state: ResourceState, latches: Any, moment: Any) -> tuple[Plan, None]:
        return (Plan(capture=False, reasons=("not at night",)) if state.portal else Plan()), None

    with Run(tmp_path, by_day) as run:
        assert run.moves(3) == 3
        run.resources.become(portal=True)
        until(lambda: run.collector.held == "not at night", what="capture held")
        until(lambda: run.source._sink is None, what="the source stopped")
        run.resources.become(portal=False)
        until(lambda: run.moves(1) == 1, what="capture again")
        assert run.collector.held is None
        assert run.collector.statistics().capture.not_collected_s > 0


def test_capture_that_the_plan_forbids_at_the_start(tmp_path: Path) -> None:
    with Run(tmp_path, QuietHours("00:00-24:00", capture=False)) as run:
        assert run.source._sink is None
        assert run.collector.held == "quiet hours"
        run.collector.take_back("host")  # nothing to take back


def test_time_alone_changes_the_plan_without_input(tmp_path: Path) -> None:
    class Soon:
        def __init__(self) -> None:
            self.from_ns = time.time_ns() + 1_000_000_000

        def __call__(self, state: ResourceState, latches: Any, moment: Any) -> tuple[Plan, None]:
            return (Plan(upload=Upload.NONE) if moment.wall_ns >= self.from_ns else Plan()), None

        def due_s(self, moment: Any) -> float | None:
            left_s = (self.from_ns - moment.wall_ns) / 1e9
            return max(left_s, 0.0) if left_s > 0 else None

    with Run(tmp_path, Soon()) as run:
        assert run.collector.plan.upload is Upload.SCHEDULED
        until(lambda: run.collector.plan.upload is Upload.NONE, what="the later plan")


# --- batches ------------------------------------------------------------------------------------------------


def test_batches_tell_the_plan_and_are_made_by_it(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.moves(50)
        run.collector.flush()
        run.collector.override("host", upload="none")
        run.resources.become(power_saver=True)
        until(
            lambda: read_plan(run.folder / PLAN_FILE) == run.collector.statistics().plan, what="the plan told"
        )
        run.feed(*(Press(time.monotonic_ns(), 1, 1, "left"),))
        run.moves(50)
        run.collector.flush(0.2)
        [batch] = run.batches()
        thinned = run.collector.statistics().capture.thinned
    assert batch.levers == {
        "read_interval_s": 1.0, "motion": "thinned", "tolerance_px": 8.0, "batch_age_s": 300.0,
        "cpu_effort": "low", "upload": "none",
    }  # fmt: skip
    assert batch.reasons == ("host set upload to none", "power saver")
    assert thinned == batch.coverage.thinned > 40


def test_a_batch_under_no_constraint_tells_no_plan(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.collector.override("host", upload=Upload.SCHEDULED)
        run.collector.take_back("host")
        run.moves(5)
    [batch] = run.batches()
    assert (dict(batch.levers), batch.reasons) == ({}, ())


def test_on_battery_a_batch_may_be_older(tmp_path: Path) -> None:
    with Run(tmp_path, batch_max_age_s=0.2) as run:
        run.resources.become(battery_present=True, on_mains=False)
        run.moves(5)
        time.sleep(0.6)
        assert run.collector.statistics().spool.committed_batches == 0
        run.resources.become(on_mains=True)
        until(lambda: run.collector.statistics().spool.committed_batches == 1, what="the batch")


# --- uploads ------------------------------------------------------------------------------------------------


def test_nothing_goes_over_a_metered_network_and_all_goes_afterwards(tmp_path: Path) -> None:
    with Run(tmp_path, upload_interval_s=0.3, batch_max_events=10) as run:
        run.resources.become(metered=Metered.YES, battery_present=True, on_mains=False)
        run.moves(30)
        run.collector.flush(1)
        time.sleep(0.8)
        assert not run.transport.received
        assert run.collector.statistics().upload.last_detail == "the network is metered", "not the battery"
        run.resources.become(metered=Metered.NO)
        until(lambda: len(run.transport.received) >= 3, what="the upload")


def test_an_upload_that_waited_for_the_network_is_brought_forward(tmp_path: Path) -> None:
    with Run(tmp_path, upload_interval_s=86_400.0, batch_max_events=1) as run:
        waits = []
        for _ in range(12):
            run.resources.become(portal=True)
            run.moves(1)
            run.collector.flush(0.5)
            run.resources.become(portal=False)
            until(
                lambda: not any(t.name == "mcilib-plan" for t in threading.enumerate()),
                what="the plan carried out",
            )
            waits.append(run.collector.statistics().upload.next_attempt_s)
        assert min(wait for wait in waits if wait is not None) < 60_000


def test_a_disk_that_hangs_holds_up_nobody_who_tells_of_a_change(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.resources.become(portal=True)
        uploader = run.collector._uploader
        assert uploader is not None
        with uploader._wake:  # as its thread holds it while it asks the spool
            told = threading.Thread(target=run.resources.become, kwargs={"portal": False})
            told.start()
            told.join(5)
            assert not told.is_alive()
            assert run.collector.plan.upload is Upload.SCHEDULED


def test_now_means_as_soon_as_it_is_committed(tmp_path: Path) -> None:
    with Run(tmp_path, upload_interval_s=86_400.0, batch_max_age_s=0.1) as run:
        run.moves(6)
        time.sleep(0.5)
        assert not run.transport.received
        run.collector.override("host", upload=Upload.NOW)
        until(lambda: run.transport.received, what="the upload of what waits")
        count = len(run.transport.received)
        run.moves(6)
        until(lambda: len(run.transport.received) > count, what="the next upload")


def test_a_drain_stops_when_a_constraint_breaks(tmp_path: Path) -> None:
    with Run(tmp_path, upload_interval_s=86_400.0, batch_max_events=1, max_request_bytes=1) as run:
        run.collector.override("host", upload="none")
        run.moves(8)
        run.collector.flush(0.3)
        send, taken = run.transport.send, []

        def metered_after_three(batches: Any) -> Any:
            taken.append(len(batches))
            if len(taken) == 3:
                run.resources.become(metered=Metered.YES)
            return send(batches)

        run.transport.send = metered_after_three  # type: ignore[method-assign]
        run.collector.take_back("host")
        result = run.collector.flush(5)
        assert taken == [1, 1, 1]
        assert (result.delivered, result.detail) == (False, "the network is metered")
        run.resources.become(metered=Metered.NO)
        assert run.collector.flush(5).delivered
        assert len(run.transport.received) == 8


# --- what is told -------------------------------------------------------------------------------------------


def test_the_plan_in_statistics_and_for_status(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.resources.become(battery_present=True, on_mains=False, battery_ratio=0.1)
        told = run.collector.statistics().plan
        assert told.levers["upload"] == "control"
        assert told.reasons == ("battery below 15%", "on battery")
        assert told.resources["battery_ratio"] == 0.1
        json.dumps(run.collector.statistics().as_dict())
        until(lambda: read_plan(run.folder / PLAN_FILE) == told, what="the plan told")


def test_what_it_cost_is_kept(tmp_path: Path) -> None:
    with Run(tmp_path, batch_max_events=5) as run:
        run.moves(20)
        run.collector.flush()
        impact = run.collector.statistics().impact
        assert impact.since_start.written_bytes > 1_000
        assert impact.since_start.fsyncs > 3
    kept = ImpactLedger.read(run.folder / IMPACT_FILE).total
    assert kept.written_bytes >= impact.since_start.written_bytes
    assert kept.fsyncs >= impact.since_start.fsyncs
    assert sum(kept.requests.values()) == len(run.transport.requests) > 0
    assert kept.cpu_s is None or kept.cpu_s > 0
    with Run(tmp_path) as again:
        assert again.collector.statistics().impact.total.running_s > kept.running_s


def test_a_policy_that_fails_is_a_problem_of_health(tmp_path: Path) -> None:
    def broken(state: ResourceState, latches: Any, moment: Any) -> Any:
        raise RuntimeError("no")

    with Run(tmp_path, broken) as run:
        assert [problem.part for problem in run.collector.health().problems] == ["policy"]
        assert run.collector.plan.upload is Upload.CONTROL


def test_no_thread_is_left_and_a_second_life_begins_with_the_machine_as_it_is(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    run = Run(tmp_path)
    for _ in range(2):
        with run:
            run.resources.become(power_saver=True)
            assert run.collector.plan.motion is Motion.THINNED
        run.resources.become(power_saver=False)
    with run:
        assert run.collector.plan.motion is Motion.FULL
    until(lambda: set(threading.enumerate()) <= before, what="all threads ended")


@pytest.mark.parametrize("policies", [None, ()])
def test_the_default_policies(tmp_path: Path, policies: Any) -> None:
    resources = FakeResources(ResourceState(power_saver=True))
    collector = Collector(
        sources=[FakeSource()],
        grant=example_grant(),
        state_dir=tmp_path,
        policies=policies,
        resources=resources,
    )
    with collector:
        assert collector.plan.motion is (Motion.THINNED if policies is None else Motion.FULL)
