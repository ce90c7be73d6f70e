"""Adaptation with nothing made up: an emulated laptop with its real services, a real X server with input by XTEST, a
collector with the policies as they come, and for uploads a real receiver behind a name of the network."""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Background
from waiting import until

from mcilib import Collector, DisplaySource, Grant, KeyboardSource, Move, PointerSource, Reader, limits
from mcilib.governor import PLAN_FILE, read_plan
from mcilib.policy import CpuBudget, default_policies
from mcilib.policy.plan import Motion, Upload
from mcilib.policy.state import Metered
from mcilib.reader import coverage, timeline
from mcilib.statistics import PlanStatistics
from mcilib.testing.fakes import example_grant
from mcilib.testing.laptop import NETWORK, UPOWER, EmulatedLaptop
from mcilib.testing.xvfb import VirtualDisplay


class OnLaptop:
    """A collector with everything, on the laptop whose bus is the system's."""

    def __init__(self, folder: Path, *policies: object, read_interval_s: float = 0.05) -> None:
        self.folder = folder / "state"
        every: dict[str, Any] = {"read_interval_s": read_interval_s}
        sources = [DisplaySource(**every), KeyboardSource(**every), PointerSource(**every)]
        self.collector = Collector(
            sources=sources, grant=example_grant(), state_dir=self.folder,
            policies=policies or default_policies(),  # type: ignore[arg-type]
        )  # fmt: skip

    def __enter__(self) -> OnLaptop:
        self.collector.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.collector.stop()

    @property
    def plan(self) -> PlanStatistics:
        return self.collector.statistics().plan

    def captured(self, *kinds: str) -> list[int]:
        seen = self.collector.statistics().capture.captured
        return [seen.get(kind, 0) for kind in kinds]

    def rows(self) -> list[object]:
        return [row.event for row in Reader(self.folder / "spool").rows()]


def wander(display: VirtualDisplay, count: int, *, bursts: int = 20) -> list[tuple[int, int]]:
    """Moves that no straight line follows, a few a millisecond; a key and a click now and then."""
    places = []
    for n in range(count):
        spot = 100 + (n * 7) % 900, 100 + abs((n * 13) % 800 - 400)
        display.move(*spot)
        places.append(spot)
        if n % 50 == 0:
            display.click()
            display.tap(display.keycode("a"))
        if n % bursts == 0:
            display.sync()
            time.sleep(0.002)
    display.sync()
    return places


def test_power_saver_keeps_clicks_and_keys_whole_and_the_path_within_8_px(
    laptop: EmulatedLaptop, xserver: VirtualDisplay, tmp_path: Path
) -> None:
    with OnLaptop(tmp_path) as machine:
        laptop.saver(True)
        until(lambda: machine.collector.plan.motion is Motion.THINNED, what="the saver's plan")
        places = wander(xserver, 2_000)
        until(lambda: machine.captured("move") == [2_000], what="all moves")
    totals = next(iter(coverage(timeline(Reader(machine.folder / "spool"))).values()))
    rows = machine.rows()
    kept = [event for event in rows if isinstance(event, Move)]
    assert 0 < len(kept) < 2_000, "some moves are no rows"
    assert len(kept) + totals.thinned + totals.coalesced == 2_000, "and each of those is counted"
    assert totals.dropped == {}
    kinds = Counter(getattr(event, "kind", "") for event in rows)
    assert [kinds[kind] for kind in ("press", "release", "key_press", "key_release")] == [40] * 4
    assert {(int(move.x), int(move.y)) for move in kept} <= set(places), "a row is where the pointer was"
    assert any(
        batch.metadata.levers.get("tolerance_px") == 8 for batch in Reader(machine.folder / "spool").batches()
    )


def test_motion_comes_back_with_mains(
    laptop: EmulatedLaptop, xserver: VirtualDisplay, tmp_path: Path
) -> None:
    with OnLaptop(tmp_path) as machine:
        laptop.saver(True)
        until(lambda: machine.collector.plan.motion is Motion.THINNED)
        xserver.move(300, 300)
        xserver.sync()
        until(lambda: machine.captured("move") == [1])
        laptop.saver(False)
        until(lambda: machine.collector.plan.motion is Motion.FULL)
        assert machine.plan.levers == {}
        line = [(100 + n, 100 + n) for n in range(50)]
        for spot in line:
            xserver.move(*spot)
        xserver.sync()
        until(lambda: machine.captured("move") == [51])
    places = [(int(row.x), int(row.y)) for row in machine.rows() if isinstance(row, Move)]
    assert places[-50:] == line, "a straight line would be two rows if it were thinned"


def test_a_battery_that_wavers_changes_the_plan_once(
    laptop: EmulatedLaptop, xserver: VirtualDisplay, tmp_path: Path
) -> None:
    with OnLaptop(tmp_path) as machine:
        laptop.on_mains(False)
        until(lambda: machine.plan.levers.get("read_interval_s") == limits.BATTERY_READ_INTERVAL_S)
        laptop.battery(0.14)
        until(lambda: machine.collector.plan.upload is Upload.CONTROL)
        changes = machine.plan.changes
        for percent in (16, 14.5, 19, 15, 19.5, 14):
            laptop.battery(percent / 100)
            known = pytest.approx(percent / 100)
            until(lambda known=known: machine.plan.resources["battery_ratio"] == known)  # type: ignore[misc]
        assert machine.plan.changes == changes
        laptop.battery(0.21)
        until(lambda: machine.collector.plan.upload is Upload.SCHEDULED)
        laptop.battery(0.18)
        until(lambda: machine.plan.resources["battery_ratio"] == pytest.approx(0.18))
        assert machine.plan.changes == changes + 1


def test_what_is_no_longer_known_constrains_nothing_and_is_followed_again(
    laptop: EmulatedLaptop, xserver: VirtualDisplay, tmp_path: Path
) -> None:
    with OnLaptop(tmp_path) as machine:
        laptop.metered(Metered.YES)
        until(lambda: machine.collector.plan.upload is Upload.CONTROL)
        laptop.kill_service(NETWORK)
        until(lambda: machine.collector.plan.upload is Upload.SCHEDULED, what="the end of the service")
        laptop.start_service(NETWORK)
        until(lambda: machine.collector.plan.upload is Upload.CONTROL, what="its return")
        laptop.kill_service(UPOWER)
        laptop.metered(Metered.NO)
        until(lambda: machine.plan.levers == {})


@pytest.mark.alone
def test_a_budget_that_is_passed_takes_motion_and_no_click(
    laptop: EmulatedLaptop, xserver: VirtualDisplay, tmp_path: Path
) -> None:
    """Any input costs more than a thousandth of a core that is asked to be woken a hundred times a second."""
    budget = CpuBudget(limits.CPU_BUDGET_LOW_RATIO)
    presses = 0
    with OnLaptop(tmp_path, budget, read_interval_s=0.01) as machine:
        until_s = time.monotonic() + 30
        while not machine.plan.levers and time.monotonic() < until_s:
            wander(xserver, 500)
            presses += 10
        assert machine.plan.reasons == (f"CPU budget of {limits.CPU_BUDGET_LOW_RATIO}",)
        assert machine.collector.plan.read_interval_s >= 0.25
        wander(xserver, 500)
        presses += 10
        kinds = ("press", "release", "key_press", "key_release")
        until(lambda: machine.captured(*kinds) == [presses] * 4, what="all clicks and keys")
    assert machine.collector.statistics().capture.dropped == {}


# --- an agent, and a network that is paid for ---------------------------------------------------------------


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[str, list[str | Path]]]:
    """The endpoint of a receiver with TLS that is reached by a proxy alone, and the flags for that."""
    import sys

    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        from tunnel import far_receiver

        with far_receiver(tmp_path) as one:
            yield one.endpoint, [*one.flags]
    finally:
        sys.path.remove(str(folder))


@pytest.mark.needs("Xvfb")
def test_the_agent_tells_its_plan_and_sends_when_it_may(
    laptop: EmulatedLaptop,
    xserver: VirtualDisplay,
    tmp_path: Path,
    far: tuple[str, list[str | Path]],
) -> None:
    state, (endpoint, flags) = tmp_path / "state", far
    example_grant().save(state)
    assert Grant.load(state).scopes
    laptop.metered(Metered.YES)
    agent = Background(
        "run", "--state", state, "--endpoint", endpoint, *flags, "--commit-every", "1s", "--upload-every", "1s",
        "--sources", "pointer,keyboard", env={**os.environ, **laptop.environment()},
    )  # fmt: skip
    agent.line("Collecting")
    store, file = tmp_path / "store", state / PLAN_FILE

    def reasons() -> tuple[str, ...]:
        plan = read_plan(file)
        return plan.reasons if plan is not None else ()

    def waiting() -> int:
        return len(list((state / "spool").rglob("*.mcib")))

    until(lambda: reasons() == ("the network is metered",), what="the plan in its file")
    wander(xserver, 100)
    until(waiting, what="a batch")
    time.sleep(2.5)  # two intervals, in which it would go
    assert not list(store.rglob("*.mcib")), "nothing goes over a metered network"
    for change, words in (
        (lambda: laptop.online(False), ("the network is metered", "there is no network")),
        (lambda: laptop.metered(Metered.NO), ("there is no network",)),
    ):
        told_s = time.time()
        change()
        until(lambda words=words: reasons() == words)  # type: ignore[misc]
        plan = read_plan(file)
        assert plan is not None
        assert plan.history[-1].wall_ns / 1e9 - told_s < 1
    assert waiting()
    laptop.online(True)
    until(lambda: not waiting(), what="the upload")
    done = agent.end()
    assert done.returncode == 0
    kinds = Counter(
        row.event.kind for row in itertools.chain(Reader(store).rows(), Reader(state / "spool").rows())
    )
    assert (kinds["press"], kinds["key_press"]) == (2, 2)
