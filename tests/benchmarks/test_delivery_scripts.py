"""The benchmarks of delivery in their short versions, and what they count and simulate, looked at in detail."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from waiting import until

from mcilib import limits
from mcilib.events import Move

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def script(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def figures(name: str, *args: str) -> dict[str, Any]:
    done = script(name, "--quick", "--json", *args)
    assert done.returncode == 0, done.stderr + done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import fleet

    return fleet


@pytest.mark.parametrize("name", ["fleet", "spool", "uploader"])
def test_help_says_what_is_measured(name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert "--quick" in done.stdout
    assert "--child" not in done.stdout
    assert len(done.stdout.split("options:")[0]) > 500


# --- fleet ----------------------------------------------------------------------------------------------------


def steps(agent: Any, up: Any, until_s: float, first_s: float = 0.0) -> list[tuple[float, int]]:
    """When (s) it makes how many requests; `up` tells whether there is an answer then."""
    made, now_ns = [], int(first_s * 1e9)
    while now_ns < until_s * 1e9:
        requests, next_ns = agent.step(now_ns, up(now_ns / 1e9))
        if requests:
            made.append((now_ns / 1e9, requests))
        now_ns = next_ns
    return made


def test_sentry_native_looks_at_each_envelope_after_15_30_60_and_120_minutes(fleet: Any) -> None:
    agent = fleet.SentryNative(Random(1))
    made = [round(when / 60) for when, _ in steps(agent, lambda _: False, 59 * 60)]
    assert made == [0, 15, 45]
    # Two envelopes from minute 60 on, of which a look that fails tries one only; all go when there is an answer.
    answered = steps(agent, lambda _: True, 200 * 60, 3600)
    assert [(round(when / 60), requests) for when, requests in answered] == [
        (60, 1),
        (105, 1),
        (120, 1),
        (180, 1),
    ]
    assert agent.behind == agent.lost == 0


def test_sentry_native_gives_up_after_six_attempts(fleet: Any) -> None:
    agent = fleet.SentryNative(Random(1))
    steps(agent, lambda _: False, 60 * 3600)
    assert agent.lost > 0
    assert agent.behind < 40, "each waits at most 15 h or so"


def test_segment_gives_up_after_ten_retries_within_minutes(fleet: Any) -> None:
    agent = fleet.Segment(Random(1))
    made = [when for when, _ in steps(agent, lambda _: False, 3599)]
    assert len(made) == 11
    assert made[:2] == [0.0, 0.0]
    assert made[-1] == pytest.approx(0.5 + 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60, rel=0.1)
    assert agent.lost == 1
    assert steps(agent, lambda _: True, 3601, 3600)
    assert agent.lost == 1


def test_exponential_doubles_up_to_the_cap(fleet: Any) -> None:
    made = [when for when, _ in steps(fleet.Exponential(Random(1)), lambda _: False, 12 * 3600)]
    assert made[:4] == [0.0, 60.0, 180.0, 420.0]
    assert made[-1] - made[-2] == 4 * 3600
    jittered = [when for when, _ in steps(fleet.FullJitter(Random(1)), lambda _: False, 12 * 3600)]
    assert len(jittered) > len(made)


def test_ours_is_the_real_schedule(fleet: Any) -> None:
    fleet.Mcilib.quick = False
    agent = fleet.Mcilib(Random(7))
    random = Random(7)
    schedule = fleet.Schedule.first(0, interval_s=limits.UPLOAD_INTERVAL_S, random=random)
    first_s = schedule.next_attempt_ns / 1e9
    expected = [first_s]
    for _ in range(4):
        now_ns = int(expected[-1] * 1e9)
        schedule = schedule.after(
            fleet.Outcome.RETRY, now_ns, interval_s=limits.UPLOAD_INTERVAL_S, random=random
        )
        expected.append(schedule.next_attempt_ns / 1e9)
    made = [when for when, _ in steps(agent, lambda _: False, expected[-1] + 0.001, first_s)]
    assert made == pytest.approx(expected, abs=1e-6)


def test_quick_attempts_count_as_requests(fleet: Any) -> None:
    fleet.Mcilib.quick = True
    made = [when for when, _ in steps(fleet.Mcilib(Random(7)), lambda _: False, 20)]
    assert len(made) >= limits.REQUEST_ATTEMPTS
    assert made[limits.REQUEST_ATTEMPTS - 1] < 2 * limits.ATTEMPT_WAIT_CAP_S


def test_the_peak_is_that_of_any_ten_seconds(fleet: Any) -> None:
    day = fleet.Day(3600)
    assert day.steady == 10
    for tenth in (95, 100, 104, 194, 195, 400):
        day.bins[tenth] += 10
    assert (
        day.peak(0, fleet.MINUTE) == 4.0
    )  # the tenths 95 to 194 hold four of them; 95 to 195 would be more than 10 s
    assert day.per_agent(0, fleet.MINUTE) == round(60 / 3600, 2)


def test_a_herd_is_seen(fleet: Any) -> None:
    day = fleet.simulate(fleet.Exponential, 300, 1, office=True, hear=fleet.at_once)
    assert day.peak(fleet.END, fleet.STOP) > 250
    assert sum(day.bins[fleet.BEGIN // fleet.BIN : fleet.END // fleet.BIN]) == 0, (
        "nothing comes through meanwhile"
    )
    assert day.drained_s(1.0) <= 10


def test_the_same_seed_gives_the_same_day(fleet: Any) -> None:
    one, same, other = (fleet.simulate(fleet.Mcilib, 100, seed).bins for seed in (3, 3, 4))
    assert one == same != other


def by_name(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {run["schedule"]: run for run in runs}


def test_fleet_in_short() -> None:
    result = figures("fleet", "--agents", "400", "--seed", "3")
    assert result["seed"] == 3
    assert result["agents"] == 400
    assert list(by_name(result["outage"])) == [
        "mcilib", "mcilib + quick attempts", "mcilib, back-off from 30 s", "sentry-native", "Segment", "exponential",
        "exponential, full jitter",
    ]  # fmt: skip
    ours, segment = (by_name(result["outage"])[name] for name in ("mcilib", "Segment"))
    assert ours["peak"] == max(ours["peak_before"], ours["peak_during"], ours["peak_after"])
    assert ours["drained_50_s"] < ours["drained_99_s"] <= 4 * 3600
    assert ours["lost_per_agent"] == 0 < segment["lost_per_agent"]
    assert segment["drained_99_s"] is None
    assert len(ours["peak_by_minute"]) == 539
    told, not_told, *_, herd = result["office"]
    assert told["drained_99_s"] < not_told["drained_99_s"]
    assert told["peak"] < 10 < herd["peak"]
    assert set(result["met"]) == {"outage_peak", "outage_drained", "office_peak"}


def test_what_is_asked_for_is_compared(fleet: Any) -> None:
    good = {"schedule": "mcilib", "peak": 2.5, "drained_99_s": 4 * 3600.0}
    office = [{"schedule": "mcilib, told", "peak": 3.0}, {"schedule": "exponential", "peak": 99.0}]
    assert all(fleet.met([good], office).values())
    assert not fleet.met([good | {"peak": 2.51}], office)["outage_peak"]
    assert not fleet.met([good | {"drained_99_s": None}], office)["outage_drained"]
    assert not fleet.met([good], [{"schedule": "mcilib, told", "peak": 3.01}])["office_peak"]


# --- uploader and spool -----------------------------------------------------------------------------------------


def test_uploader_in_short() -> None:
    result = figures("uploader")
    day, offline = result["day"], result["offline"]
    assert day["requests"] == day["uploads"] == 1, "all that waits goes in one request"
    assert day["payload_up_bytes"] > day["batch_bytes"]
    assert day["payload_down_bytes"] > 75 * day["batches"], "a receipt for each"
    assert 1 < day["payload_ratio"] < 1.3
    if day["interface_bytes"] is not None:
        assert day["interface_ratio"] > day["payload_ratio"] + 0.02
    assert offline["wakeups_waiting"] == 0
    assert offline["wakeups_per_request"] >= 1
    assert offline["cpu_ms_per_request"] > 0
    assert len(offline["requests_per_hour"]) == 24
    assert offline["requests_per_hour"][0] > offline["requests_per_hour"][-1] > 0.3


def test_recordings_become_one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import uploader

    day = uploader.one_after_the_other(
        [[Move(5_000_000_000, 1, 1), Move(6_000_000_000, 2, 2)], [Move(7, 3, 3)]]
    )
    assert [event.t_ns for event in day] == pytest.approx([0, 1_000_000_000, 2_000_000_000], abs=1000)


def test_the_relay_counts_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import uploader

    with socket.create_server(("127.0.0.1", 0)) as server, uploader.Relay(server.getsockname()[1]) as relay:
        with socket.create_connection(("127.0.0.1", relay.port)) as client:
            at_server, _ = server.accept()
            with at_server:
                client.sendall(bytes(100_000))
                client.shutdown(socket.SHUT_WR)
                while at_server.recv(65_536):
                    pass
                at_server.sendall(bytes(777))
            while client.recv(65_536):
                pass
        until(lambda: (relay.sent_bytes, relay.received_bytes) == (100_000, 777))


def test_spool_in_short() -> None:
    result = figures("spool")
    assert result["fsync_ms"]["median"] > 0
    assert all(one["per_s"]["low"] > 0 for one in result["spool"].values())
    flushes = result["flushes_per_batch"]
    if flushes["commit"] is not None:
        assert flushes["commit"] >= 2, "the file and its folder"
        assert flushes["settle, 60 at a time"] < 0.2 < flushes["settle, one at a time"]
    single, many, empty = result["receiver"].values()
    assert single["batches_per_s"] == single["requests_per_s"]
    assert many["batches_per_s"]["median"] >= 50 * many["requests_per_s"]["median"]
    assert empty["batches_per_s"]["high"] == 0 < empty["requests_per_s"]["low"]
