"""The figures of capture in their short version: all parts are there, what is counted is counted right."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from mcilib import KeyboardSource
from mcilib.events import KeyPress, KeyRelease
from mcilib.testing.fakes import ListSink
from mcilib.testing.xvfb import VirtualDisplay

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
HEAD = "t_ns,kind,key\n"
AGENTS = ("mcilib run", "mcilib run, read interval 0.2 s", "motion off")


def script(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "capture_cost.py"), "--quick", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def figures(*args: str | Path) -> dict[str, Any]:
    done = script("--json", *args)
    assert done.returncode == 0, done.stderr + done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def capture_cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import capture_cost

    return capture_cost


def check_loads(result: dict[str, Any], loads: set[str]) -> None:
    assert set(result["loads"]) == loads
    for sides in result["loads"].values():
        for side in ("bare", "ours", "ratio"):
            assert set(sides[side]) - {"events_per_s"} == {
                "cpu_us_per_event", "wakeups_per_event", "wakeups_per_s", "x_server_cpu_us_per_event",
            }  # fmt: skip
            assert all(0 <= f["low"] <= f["median"] <= f["high"] for f in sides[side].values())
        assert sides["bare"]["cpu_us_per_event"]["low"] > 0
        assert sides["ours"]["x_server_cpu_us_per_event"]["low"] > 0


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_moves_of_each_agent_against_the_bare_listener() -> None:
    result = figures("--part", "moves")
    assert set(result) == {"machine", "sources", "rounds", "seconds", "moves"}
    assert tuple(result["moves"]) == AGENTS
    rates = ("125 Hz", "1000 Hz")
    for one in result["moves"].values():
        check_loads(one, {*rates, *(f"{rate}, moves alone" for rate in rates)})
    whole, battery, _ = (
        sum(load["ours"]["wakeups_per_s"]["median"] for load in one["loads"].values())
        for one in result["moves"].values()
    )
    assert whole > 1.2 * battery, "twice as often in all, with what comes on top of the reads"
    for rate in rates:
        woken = [
            one["loads"][f"{rate}, moves alone"]["ours"]["wakeups_per_s"] for one in result["moves"].values()
        ]
        assert woken[0]["median"] > 2 * woken[2]["median"]
    assert result["moves"]["motion off"]["missing"] == {}


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_typing_from_a_folder_of_traces(tmp_path: Path) -> None:
    (tmp_path / "keyboard_one.csv").write_text(HEAD + "0,press,a\n500000000,release,a\n")
    with gzip.open(tmp_path / "keyboard_two.csv.gz", "wt") as file:
        file.write(HEAD + "5,press,symbol_2e\n500000005,release,symbol_2e\n")
    (tmp_path / "pointer_one.csv").write_text("t_ns,kind,x,y,button\n")
    result = figures("--part", "typing", "--traces", tmp_path, "--typing", "0.6")
    assert result["typing_traces"] == {"names": ["keyboard_one", "keyboard_two"], "seconds_each": 0.6}
    assert tuple(result["typing"]) == AGENTS[:2]
    paces: dict[int, list[float]] = {1: [], 4: []}
    for one in result["typing"].values():
        check_loads(one, {"typing, 1x", "typing, 4x"})
        for speed, seen in paces.items():
            seen += [
                one["loads"][f"typing, {speed}x"][side]["events_per_s"]["high"] for side in ("bare", "ours")
            ]
    assert max(paces[1]) <= 4, "4 events in two times half a second, at the least"
    assert 4 < max(paces[4]) <= 16, "the quickest of four"


def test_a_ratio_is_of_two_neighbours(
    capture_cost: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made up: real turns never cost the same twice."""
    turns = iter([2.0, 1.0, 4.0, 3.0, 8.0, 2.0])
    asked = []

    def one_turn(subject: str, *_: object) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
        asked.append(subject)
        return {"a load": {"events_per_s": 7.0, "cpu_us_per_event": next(turns)}}, {"press": 1}

    monkeypatch.setattr(capture_cost, "one_turn", one_turn)
    result = capture_cost.against_bare("motion off", None, {"a load": None}, 3)
    assert asked == ["bare", "motion off"] * 3
    sides = result["loads"]["a load"]
    assert sides["bare"]["cpu_us_per_event"] == {"median": 4.0, "low": 2.0, "high": 8.0}
    assert sides["ours"]["cpu_us_per_event"] == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert sides["ratio"] == {"cpu_us_per_event": {"median": 0.5, "low": 0.25, "high": 0.75}}
    assert result["missing"] == {"press": 3}
    assert capsys.readouterr().err.count("pair 2 of 3") == 1


@pytest.mark.needs("Xvfb")
def test_as_many_rounds_as_told(
    capture_cost: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Made up: what they cost is tested above."""
    monkeypatch.setattr(capture_cost, "moves", lambda _, rounds, seconds: {"asked": [rounds, seconds]})
    monkeypatch.setattr(capture_cost, "typing", lambda _, rounds, seconds, __: {"asked": [rounds, seconds]})
    monkeypatch.setattr(capture_cost, "gone", lambda _: [])
    only = ["--part", "moves", "--part", "typing", "--rounds", "2", "--seconds", "3", "--typing", "5"]
    monkeypatch.setattr(sys, "argv", ["capture_cost.py", "--quick", "--json", *only])
    monkeypatch.setattr(capture_cost, "text", str)
    assert capture_cost.main() == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rounds"] == 2
    assert (result["moves"], result["typing"]) == ({"asked": [2, 3.0]}, {"asked": [2, 5.0]})


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_what_is_injected_is_in_the_spool_and_times_are_those_of_the_injection(capture_cost: Any) -> None:
    result = figures("--part", "lost", "--part", "timestamps")
    assert [one["rate_hz"] for one in result["lost"]] == [1000, 5000]
    for one in result["lost"]:
        assert one["injected"]["move"] == one["rate_hz"] // 2
        assert {kind: one["captured"][kind] for kind in one["injected"]} == one["injected"]
        assert (one["missing"], one["dropped"]) == ({}, {})
    assert [one["read_interval_s"] for one in result["timestamps"]] == [0.02, 0.05, 0.1, 0.25]
    for one in result["timestamps"]:
        assert one["moves"] == one["injected"] == 63
        assert (one["clock"], one["outside"]) == ("x11", 0)
        assert one["told"]["high"] > one["event"]["low"] >= -2
        assert set(one["event"]) == {"low", "p1", "p50", "p95", "p99", "high", "within_2_ms"}
    assert result["timestamps"][3]["told"]["p50"] > 25, "a quarter of a second between two reads"
    text = capture_cost.text(result)
    assert text.count("none") == 4
    assert text.count("when it was told") == 4


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_memory_before_and_after_the_first_upload(capture_cost: Any) -> None:
    result = figures("--part", "memory")
    memory = result["memory_mib"]
    assert all(memory[when]["rss"] > 5 for when in ("start", "before_upload", "after_upload"))
    assert memory["parts"][0]["part"] == "Python itself"
    assert "before the first upload" in capture_cost.text(result)


def test_aims_stand_beside_the_figures(capture_cost: Any) -> None:
    one = {"median": 1.0, "low": 1.0, "high": 1.0}
    names = ("cpu_us_per_event", "wakeups_per_s", "x_server_cpu_us_per_event")
    sides = {side: dict.fromkeys(names, one) for side in ("bare", "ours", "ratio")}
    result = {"loads": dict.fromkeys(("125 Hz", "1000 Hz", "1000 Hz, moves alone"), sides)}
    said = capture_cost.costs("mcilib run", result)
    assert [said.count(words) for words in ("0.30 times", "0.10 times", "25 a second")] == [1, 2, 3]
    said = capture_cost.costs("motion off", {**result, "missing": {"press": 3}})
    assert said.count("0.01 times") == 1
    assert "3 press" in said


@pytest.mark.needs("Xvfb")
def test_silence_is_as_long_as_told_and_a_loss_ends_with_1(
    capture_cost: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are made up here: the silence begins after half a minute, and no real part loses an event on demand."""
    monkeypatch.setattr(capture_cost.agent_cost, "idle", lambda *args: {"seconds": args[-1]})
    monkeypatch.setattr(capture_cost, "flood", lambda *_: {"missing": {"move": 1}})
    monkeypatch.setattr(capture_cost, "text", str)
    only = ["--part", "lost", "--part", "idle"]
    monkeypatch.setattr(sys, "argv", ["capture_cost.py", "--quick", "--json", *only, "--idle", "7"])
    assert capture_cost.main() == 1
    assert json.loads(capsys.readouterr().out)["idle"] == {"seconds": 7.0}


def test_what_is_missing_is_told_by_kind(capture_cost: Any) -> None:
    assert capture_cost.missing({"move": 5, "press": 1}, {"move": 4, "press": 1, "key_press": 9}) == {
        "move": 1
    }
    assert capture_cost.missing({"move": 0, "press": 1}, {"move": 2}) == {"move": -2, "press": 1}
    fine: dict[str, dict[str, int]] = {"missing": {}}
    bad = {"missing": {"press": 1}}
    assert not any(capture_cost.gone({"moves": {"motion off": fine}, "lost": [fine, fine]}))
    assert any(capture_cost.gone({"moves": {"motion off": bad}, "lost": [fine, fine]}))
    assert any(capture_cost.gone({"lost": [fine, bad]}))


def test_a_trace_is_cut_to_its_beginning_with_short_pauses(capture_cost: Any) -> None:
    second = 1_000_000_000
    times = (7, 7 + second // 2, 7 + 60 * second, 7 + 61 * second)
    strokes = [(t_ns, True, "a") for t_ns in times]
    assert [t for t, _, _ in capture_cost.beginning(strokes, 10)] == [
        0, second // 2, second * 3 // 2, second * 5 // 2,
    ]  # fmt: skip
    assert [t for t, _, _ in capture_cost.beginning(strokes, 2)] == [0, second // 2, second * 3 // 2]


def test_the_synthetic_trace_holds_a_key_while_the_next_goes_down(capture_cost: Any) -> None:
    events = [
        KeyPress(0, "letter"), KeyPress(1, "letter"), KeyRelease(2, "letter"), KeyPress(3, "space"),
        KeyRelease(4, "letter"), KeyRelease(5, "space"),
    ]  # fmt: skip
    assert capture_cost.synthetic(events) == [
        (0, True, "a"), (1, True, "b"), (2, False, "a"), (3, True, "space"), (4, False, "b"), (5, False, "space"),
    ]  # fmt: skip
    (name, made), *others = capture_cost.keyboards(None).items()
    assert (name, others) == ("synthetic", [])
    assert len(made) > 200


def test_a_folder_without_keyboard_traces_is_told(
    capture_cost: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(capture_cost.keyboards(tmp_path)) == ["synthetic"]
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize("lines", [HEAD, "t_ns,kind\n1,press\n", HEAD + "soon,press,a\n"])
def test_a_file_that_is_no_keyboard_trace_is_refused(lines: str, tmp_path: Path) -> None:
    (tmp_path / "keyboard_mine.csv").write_text(lines)
    done = script("--traces", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "keyboard_mine.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_replay_says_what_the_server_was_given(capture_cost: Any, xserver: VirtualDisplay) -> None:
    """Real traces repeat keys, miss releases and presses, and name keys that no layout has."""
    strokes = [
        (0, True, "a"), (0, True, "a"), (1_000_000, False, "a"), (1_000_000, False, "b"), (2_000_000, True, "cmd"),
        (2_000_000, True, "symbol_2e"), (2_000_000, False, "symbol_2e"), (3_000_000, True, "shift"),
    ]  # fmt: skip
    sink, source = ListSink(), KeyboardSource()
    source.start(sink)
    seen = capture_cost.replay_all(xserver, [strokes, strokes], 1)
    assert seen == {"key_press": 10, "key_release": 10}
    until(lambda: len(sink.events) >= 21)
    source.stop()
    assert Counter(event.kind for event in sink.events) == seen + Counter(layout=1)
    keys = [event.key for event in sink.events[:11] if isinstance(event, KeyPress)]
    assert keys == ["letter", "letter", "letter", "punctuation", "modifier"]
