"""How the agent adapts, in the short version: promises are kept, and what is broken is told."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from waiting import until

from mcilib.testing.laptop import EmulatedLaptop

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
Laptops = Callable[..., EmulatedLaptop]


def script(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "adaptation.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def figures(*args: str | Path) -> dict[str, Any]:
    done = script("--quick", "--json", *args)
    assert done.returncode == 0, done.stderr + done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["wrong"] == []
    return result


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


# --- the whole script ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_a_day_is_followed_step_by_step_and_loses_nothing(new_laptop: Laptops, tmp_path: Path) -> None:
    picture = tmp_path / "day.svg"
    day = figures("--part", "day", "--plot", picture)["day"]
    assert day["changes"] == day["expected_changes"] == 11
    told = {phase["phase"]: phase for phase in day["phases"]}
    assert [*told][:: len(told) - 1] == ["mains", "back"]
    assert told["saver"]["levers"]["motion"] == "thinned"
    assert told["back"]["levers"] == {}
    assert all(
        step["after_s"] <= 1
        for phase in told.values()
        for step in phase["steps"]
        if step["after_s"] is not None
    )
    for phase in ("battery low", "15 to 19 %", "saver", "metered", "portal", "offline"):
        assert told[phase]["sent_bytes"] == 0
    assert day["in_store"] > 0
    account = day["account"]
    assert (account["missing"], account["dropped"]) == ({}, {})
    assert account["thinned"] > 0
    assert [change["levers"] for change in day["history"]][-1] == {}
    lines = [one for one in ElementTree.parse(picture).iter() if one.tag.endswith("polyline")]
    assert len(lines) == 5


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_an_upload_stops_in_the_middle_and_the_rest_goes_later(new_laptop: Laptops) -> None:
    drain = figures("--part", "drain")["drain"]
    assert drain["requests_after"] == 0
    assert 0 < drain["waiting_when_stopped"] < drain["waiting_batches"]
    assert drain["requests"] > drain["requests_before"] >= 2
    assert drain["all_sent"]


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_the_budget_holds_and_no_click_is_missing() -> None:
    import adaptation

    budget = figures("--part", "budget")["budget"]
    assert budget["account"]["missing"] == {}
    assert list(budget["costs"]) == ["base", "three times", "back"]
    assert budget["budget"] >= 0.001
    assert budget["samples"]
    assert "Clicks and keys missing: none" in adaptation.budget_text(budget)


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_power_saver_beside_the_bare_listener(new_laptop: Laptops) -> None:
    saver = figures("--part", "saver")["saver"]
    assert list(saver["loads"]) == list(saver["kept"])
    assert len(saver["loads"]) == 4
    for kept in saver["kept"].values():
        assert 0 < kept["kept_ratio"] < 0.5
        assert kept["bytes_per_event"] > 0
    assert saver["kept"]["1000 Hz"]["kept_ratio"] < saver["kept"]["125 Hz"]["kept_ratio"]


def test_help_says_what_is_promised() -> None:
    done = script("--help")
    assert done.returncode == 0
    for option in ("--part", "--phase", "--rounds", "--seconds", "--seed", "--plot", "--json", "--quick"):
        assert option in done.stdout
    assert done.stdout.count("Promised") == 3


# --- what is broken is told ---------------------------------------------------------------------------------

FINE: dict[str, Any] = {"missing": {}, "dropped": {}}


def test_each_broken_promise_of_the_day_is_told() -> None:
    import laptop_day

    steps = [{"step": "metered", "wrong": None}]
    phase = {"phase": "metered", "steps": steps, "levers": {"upload": "control"}, "sent_bytes": 0}
    good = {"phases": [phase], "changes": 1, "expected_changes": 1, "account": FINE}
    assert laptop_day.wrong_day(good) == []
    late = {**phase, "steps": [{"step": "metered", "wrong": "2.0 s later"}]}
    for bad, words in (
        ({**good, "phases": [late]}, "metered: 2.0 s later"),
        ({**good, "phases": [{**phase, "sent_bytes": 7}]}, "metered: 7 bytes were sent"),
        ({**good, "changes": 3}, "the plan changed 3 times, and 1 were due"),
        ({**good, "account": {**FINE, "missing": {"press": 1}}}, "missing: {'press': 1}"),
        ({**good, "account": {**FINE, "dropped": {"spool": 1}}}, "dropped: {'spool': 1}"),
    ):
        assert laptop_day.wrong_day(bad) == [words]


def test_each_broken_promise_of_the_drain_is_told() -> None:
    import laptop_day

    good = {
        "steps": [], "requests_before": 2, "waiting_when_stopped": 3, "waiting_batches": 9, "requests_after": 0,
        "all_sent": True, "account": FINE,
    }  # fmt: skip
    assert laptop_day.wrong_drain(good) == []
    for change, words in (
        ({"requests_before": 1}, "no upload of several requests began"),
        ({"waiting_when_stopped": 0}, "the upload was not stopped in the middle"),
        ({"requests_after": 2}, "2 requests with data began after the plan had changed"),
        ({"all_sent": False}, "the rest was not sent afterwards"),
        ({"account": {**FINE, "missing": {"move": 2}}}, "missing: {'move': 2}"),
    ):
        assert laptop_day.wrong_drain(good | change) == [words]


def test_a_broken_promise_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made up: no real part breaks one on demand."""
    import adaptation
    import laptop_day

    monkeypatch.setattr(adaptation, "missing_parts", list)
    monkeypatch.setattr(laptop_day, "drain", lambda *_: {"wrong": ["something"]})
    monkeypatch.setattr(sys, "argv", ["adaptation.py", "--json", "--part", "drain"])
    monkeypatch.setattr(adaptation, "text", str)
    assert adaptation.main() == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["wrong"] == ["drain: something"]
    assert "WRONG: drain: something" in told.err


def test_what_needs_a_laptop_is_left_out_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made up: here it is installed."""
    import adaptation

    monkeypatch.setattr(adaptation, "missing_parts", lambda: ["umockdev"])
    monkeypatch.setattr(sys, "argv", ["adaptation.py", "--part", "day", "--part", "saver"])
    assert adaptation.main() == 0
    assert "no day, saver: not installed: umockdev" in capsys.readouterr().err


# --- figures ------------------------------------------------------------------------------------------------


def course(*rates: float) -> list[tuple[float, float]]:
    """Samples every quarter of a second at a rate for each second."""
    spent, told = 0.0, [(0.0, 0.0)]
    for number, rate in enumerate(rates):
        for quarter in range(1, 5):
            spent += rate / 4
            told.append((number + quarter / 4, spent))
    return told


def test_when_the_budget_holds_and_how_far_it_was_passed() -> None:
    import cpu_budget

    samples = course(1, 1, 6, 6, *[1] * 16)
    assert cpu_budget.mean(samples, 0, 2) == pytest.approx(1)
    assert cpu_budget.highest(samples, 2, 20) == pytest.approx((2 * 6 + 3) / 5)
    assert cpu_budget.settled(samples, 2, 20, 2.0) == pytest.approx(4.5, abs=0.3)
    assert cpu_budget.settled(samples, 2, 20, 0.5) is None, "never"
    assert cpu_budget.settled(course(*[3, 1, 1, 1] * 5), 0, 20, 1.2) == pytest.approx(4, abs=0.3)


def test_steps_up_that_are_taken_back_are_counted() -> None:
    import cpu_budget

    near = {"motion": "thinned", "tolerance_px": 4.0, "read_interval_s": 0.25}
    far, none = {**near, "tolerance_px": 16.0, "read_interval_s": 0.5}, {"motion": "none"}
    assert cpu_budget.taken_back([{}, near, far, none]) == 0
    assert cpu_budget.taken_back([{}, none, far, near, {}]) == 0
    assert cpu_budget.taken_back([{}, far, near, far, near, far]) == 2
    assert cpu_budget.taken_back([{}, {"read_interval_s": 0.25}, {}, {"read_interval_s": 0.25}]) == 1


def test_a_moving_hand_makes_an_event_each_time() -> None:
    import laptop_day

    day = laptop_day.moving(125, 4, 3)
    assert day == laptop_day.moving(125, 4, 3) != laptop_day.moving(125, 4, 4)
    counts = day.counts()
    assert counts["move"] == 500
    assert counts["press"] == counts["release"] == 4
    assert counts["key_press"] == counts["key_release"] == 16
    assert set(laptop_day.moving(125, 4, 3, presses=False).counts()) == {"move"}


def test_the_proxy_counts_what_is_sent_in_one_go() -> None:
    import tunnel

    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = tunnel.Proxy(server.getsockname()[1])
        client = socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])))
        client.sendall(b"CONNECT receiver.test:443 HTTP/1.1\r\nHost: receiver.test:443\r\n\r\n")
        other, _ = server.accept()
        assert client.recv(100) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        began_s = time.time()
        for size in (100, 5_000, 3_000, 4_000):
            client.sendall(b"x" * (size // 2))
            client.sendall(b"x" * (size // 2))
            left = size
            while left:
                left -= len(other.recv(left))
            other.sendall(b"y" * 10)
            assert client.recv(10) == b"y" * 10
        until(lambda: proxy.carried() == (12_100, 40))
        assert [one.bytes for one in proxy.requests(began_s - 1)] == [5_000, 4_000]
        assert proxy.requests(time.time()) == []
        proxy.answer_s = 0.2
        began_s = time.monotonic()
        other.sendall(b"z")
        assert client.recv(1) == b"z"
        assert time.monotonic() - began_s >= 0.2
        client.close()
        assert other.recv(1) == b""
        other.close()
        proxy.close()


def test_steps_and_lines_over_time() -> None:
    import plot

    panels = [
        plot.Panel("upload", [(0, 1), (5, 0)], ("none", "now")), plot.Panel("CPU < 1", [(0, 1), (10, 3)]),
    ]  # fmt: skip
    root = ElementTree.fromstring(plot.over_time("A day & more", 10, [(0, "mains"), (4, "battery")], panels))
    texts = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert {"A day & more", "mains", "battery", "none", "now", "CPU < 1", "10 s"} <= set(texts)
    steps, line = (one.attrib["points"].split() for one in root.iter() if one.tag.endswith("polyline"))
    assert len(steps) == 4, "a value holds until the next"
    assert len(line) == 2
    assert [one for one in root.iter() if one.attrib.get("fill") in ("#f2f2f2", "#fafafa")], "bands"
