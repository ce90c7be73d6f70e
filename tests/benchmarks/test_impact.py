"""What agents take from battery and network, in the short version: all is there, and what is counted is counted right."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mcilib.testing.laptop import missing_parts

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
KINDS = {"move", "press", "release", "scroll", "key_press", "key_release"}


def script(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


# --- the whole scripts --------------------------------------------------------------------------------------


def check(result: dict[str, Any], states: set[str], rivals: set[str]) -> None:
    """All agents, nothing lost by any, and figures that add up."""
    found = result["agents"]
    assert set(found) == rivals | {f"mcilib {state}" for state in states}
    injected = Counter(result["activity"]["events"]) + Counter(result["warm_up"]["events"])
    assert set(injected) == KINDS
    for name, one in found.items():
        assert one["cpu_s"] >= one.get("end_cpu_s", 0) >= 0
        assert one["x_server_cpu_s"] > 0
        assert one["due_bytes"] == one["wire_bytes"] + one["waiting_bytes"]
        assert one["wire_bytes"] == sum(cause["up"] + cause["down"] for cause in one["causes"].values())
        assert one["requests"] == sum(cause["requests"] for cause in one["causes"].values())
        assert one.get("missing", {}) == {}, name
        assert one["energy"]["day_ratio"] == one["energy"]["day_joules"] / (50 * 3600)
    for name in rivals & {"naive", "fair"}:
        assert list(found[name]["causes"]) == ["POST /events"]
        assert found[name]["requests"] >= (2 if name == "naive" else 1)
    for state in states:
        one = found[f"mcilib {state}"]
        stored = Counter(one["stored"])
        stored["move"] += one["coalesced"] + one["thinned"] + one["not_delivered"]
        assert {kind: stored[kind] for kind in injected} == injected
        assert one["dropped"] == {}
        assert sum(plan["batches"] for plan in one["plans"]) > 0
        assert one["wire_bytes"] > 0, "the endpoint was asked at the start"
        assert one["memory_mib"]["rss"] > 5


@pytest.mark.slow
@pytest.mark.needs("Xvfb", "strace")
def test_battery_impact_counts_all_and_says_when_a_state_was_not_followed(tmp_path: Path) -> None:
    picture = tmp_path / "bars.svg"
    done = script("battery_impact", "--quick", "--json", "--states", "mains,saver", "--plot", picture)
    result = json.loads(done.stdout)
    check(result, {"mains", "saver"}, {"nothing", "bare", "naive", "fair"})
    found = result["agents"]
    assert found["nothing"]["cpu_s"] == found["nothing"]["wakeups"] == 0
    assert found["bare"]["wakeups"] > found["mcilib mains"]["wakeups"] > 0
    assert found["bare"]["wire_bytes"] == found["bare"]["fsyncs"] == found["naive"]["fsyncs"] == 0
    assert found["mcilib mains"]["fsyncs"] >= 2, "the last batch, and its folder"
    assert [aim["what"] for aim in result["aims"]] == [], "no battery, no aim"
    if missing_parts():  # there is no machine in power saver here: that is told, and no figure without a word
        assert found["mcilib saver"]["not_followed"] == "the plan in force was the usual one"
        assert done.stderr.count("WRONG") == len(result["wrong"]) == done.returncode == 1
    else:
        assert found["mcilib saver"]["plan"]["levers"]["upload"] == "control"
        assert (done.returncode, result["wrong"]) == (0, [])
    bars = [r for r in ElementTree.parse(picture).iter() if r.tag.endswith("rect")]
    assert len(bars) == 1 + 5 + 4, "the ground, CPU of all but nothing, bytes of all that send"


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_network_impact_counts_all_from_a_folder_of_traces(tmp_path: Path) -> None:
    rows = [f"{n * 10_000_000},move,{10 + n % 400},{20 + n % 300}," for n in range(500)]
    rows[200] = "2000000000,press,210,220,left"
    rows[210] = "2100000000,release,220,230,left"
    rows[300:302] = ["3000000000,scroll_up,310,320,", "3010000000,scroll_down,310,320,"]
    (tmp_path / "pointer_office_one.csv").write_text("\n".join(["t_ns,kind,x,y,button", *rows]))
    keys = [
        f"{n * 150_000_000},{kind},{'abc'[n // 2 % 3]}"
        for n, kind in enumerate(["press", "release"] * 30)
    ]  # fmt: skip
    (tmp_path / "keyboard_one.csv").write_text("\n".join(["t_ns,kind,key", *keys]))
    done = script(
        "network_impact", "--minutes", "0.2", "--json", "--states", "unmetered,allowed", "--traces", tmp_path
    )
    result = json.loads(done.stdout)
    check(result, {"unmetered", "allowed"}, {"naive", "fair"})
    assert result["activity"]["source"] == "recorded traces"
    assert result["agents"]["mcilib unmetered"]["not_followed"] is None
    assert [aim["at_most"] for aim in result["aims"]] == [1 / 20, 1 / 3] * 2
    if not missing_parts():
        assert result["agents"]["mcilib allowed"]["plan"]["levers"]["bytes_per_hour"] == 300 * 1024
        assert (done.returncode, result["wrong"]) == (0, [])


@pytest.mark.parametrize("name", ["battery_impact", "network_impact"])
def test_help_says_what_is_measured(name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0
    for option in ("--minutes", "--states", "--traces", "--seed", "--active", "--plot", "--json", "--quick"):
        assert option in done.stdout
    assert len(done.stdout.split("options:")[0]) > 1000


def test_options_that_mean_nothing_are_refused() -> None:
    assert "no metered" in script("battery_impact", "--states", "mains,metered").stderr
    for minutes in ("0.01", "0"):
        assert "more than 0.1" in script("battery_impact", "--minutes", minutes).stderr
    assert "more than 0" in script("battery_impact", "--active", "0").stderr


# --- the activity -------------------------------------------------------------------------------------------


def test_a_person_is_the_same_for_the_same_seed_and_does_everything() -> None:
    import working_day

    one, same, other = (working_day.make(600, seed=seed, traces_in=None) for seed in (1, 1, 2))
    assert one == same != other
    counts = one.counts()
    assert set(counts) == KINDS
    assert counts["press"] == counts["release"]
    assert counts["key_press"] == counts["key_release"]
    times = [act[0] for act in one.acts]
    assert times == sorted(times)
    assert max(later - before for before, later in pairwise(times)) < 5e9, "no long pause"
    assert 540 < one.seconds < 610
    held = [kind for kind, down in drags(one.acts) if down]
    assert "move" in held, "somebody drags"


def drags(acts: Any) -> list[tuple[str, bool]]:
    """Each act, and whether a button is down meanwhile."""
    down, told = False, []
    for _, kind, _, second in acts:
        told.append((kind, down))
        down = bool(second) if kind == "button" else down
    return told


def test_what_makes_no_event_is_left_out_and_what_is_held_is_released() -> None:
    import working_day

    acts: list[Any] = [
        (1, "move", *working_day.START), (2, "move", 9000, -4), (3, "move", 5000, -9), (4, "key", "a", True),
        (5, "key", "a", True), (6, "key", "b", False), (8, "scroll", 0, -2), (7, "button", 1, True),
    ]  # fmt: skip
    fit = working_day.clean(acts)
    assert fit == [
        (2, "move", 1919, 0), (4, "key", "a", True), (5, "key", "a", False), (5, "key", "a", True),
        (7, "button", 1, True), (8, "scroll", 0, -2), (8, "key", "a", False), (8, "button", 1, False),
    ]  # fmt: skip
    assert working_day.counts(fit) == Counter(
        move=1, key_press=2, key_release=2, scroll=2, press=1, release=1
    )


def test_a_day_is_split_into_two_that_begin_at_0() -> None:
    import working_day

    day = working_day.make(60, seed=3, traces_in=None)
    first, rest = day.split(20)
    assert first.counts() + rest.counts() == day.counts()
    assert first.seconds < 20
    assert rest.acts[0][0] + 20_000_000_000 == day.acts[len(first.acts)][0]


def test_pauses_of_a_recording_are_taken_out_and_sessions_take_turns() -> None:
    import working_day

    second = 1_000_000_000
    slow: list[Any] = [(n * 100 * second, "move", n, n) for n in range(500)]
    fast: list[Any] = [(n * second, "move", -n, -n) for n in range(500)]
    pieces = working_day.cycle_all([slow, fast])
    first, other, again = next(pieces), next(pieces), next(pieces)
    assert (len(first), len(other)) == (42, 22), (
        "half a second is left of a pause of 100 s, and all of one of 1 s"
    )
    assert first[-1][0] == 20.5 * second
    assert again[0][2] == 42, "it goes on where it was"


def test_a_slice_is_not_cut_while_something_is_held() -> None:
    import working_day

    second = 1_000_000_000
    acts: list[Any] = [(n * second, "move", n, n) for n in range(100)]
    acts[10], acts[25] = (10 * second, "button", 1, True), (25 * second, "button", 1, False)
    assert next(working_day.slices(acts))[-1] == (25 * second, "button", 1, False)


def test_a_folder_without_both_kinds_of_traces_is_refused(tmp_path: Path) -> None:
    done = script("network_impact", "--traces", tmp_path, "--quick")
    assert done.returncode == 1
    assert "pointer_office" in done.stderr


# --- the network --------------------------------------------------------------------------------------------


def test_a_wire_counts_each_byte_by_request_and_each_connection() -> None:
    import wires

    with wires.wires([0, 0]) as network:
        one, other = network.ports
        kept = HTTPConnection("127.0.0.1", one)
        for _ in range(2):
            kept.request("POST", "/a", b'{"kind":"move"}\n{"kind":"press"}\n')
            kept.getresponse().read()
        request = urllib.request.Request(f"http://127.0.0.1:{one}/b", b'[{"kind":"move"}]')
        answer = urllib.request.urlopen(request)
        assert answer.status == 200
        answer.read()
        first, second = network.counts()
        kept.close()
    assert first["connections"] == 2
    assert first["kinds"] == {"move": 3, "press": 2}
    assert {name: cause["requests"] for name, cause in first["causes"].items()} == {
        "POST /a": 2,
        "POST /b": 1,
    }
    a, b = first["causes"]["POST /a"], first["causes"]["POST /b"]
    assert a["up"] == 2 * len(head("/a", one, 33)) + 2 * 33
    assert a["down"] == 2 * b["down"]
    assert (second["connections"], second["causes"], other != one) == (0, {}, True)
    carried = sum(cause["up"] + cause["down"] for cause in (a, b))
    assert wires.tls_bytes(first) == 2 * wires.handshake_bytes() + 22 * (3 * 4 + carried // 16_384)


def head(path: str, port: int, length: int) -> str:
    """What `HTTPConnection.request` sends before a body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept-Encoding: identity\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )


def test_a_handshake_of_tls_is_measured() -> None:
    import wires

    assert 1_000 < wires.handshake_bytes() < 6_000


# --- what is right, and what is wrong -----------------------------------------------------------------------

FRUGAL = {"read_interval_s": 0.25, "batch_age_s": 300.0}
METERED = {"upload": "control"}
ALLOWED = {"bytes_per_hour": 300 * 1024, "byte_effort": "high"}


@pytest.mark.parametrize(
    ("state", "followed", "not_followed"),
    [
        ("mains", [{}, ALLOWED], [FRUGAL, METERED]),
        ("battery", [FRUGAL, FRUGAL | METERED], [{}, METERED, {"batch_age_s": 300.0}]),
        ("saver", [FRUGAL | METERED], [{}, FRUGAL, METERED]),
        ("unmetered", [{}, FRUGAL], [METERED, ALLOWED, {"upload": "none"}]),
        ("metered", [METERED, {"upload": "none"}], [{}, ALLOWED]),
        ("allowed", [ALLOWED], [{}, METERED, {"bytes_per_hour": 5}]),
    ],
)
def test_the_plan_in_force_says_whether_a_state_was_followed(
    state: str, followed: list[dict[str, Any]], not_followed: list[dict[str, Any]]
) -> None:
    import agents_beside

    assert [agents_beside.not_followed(state, levers) for levers in followed] == [None] * len(followed)
    assert all(agents_beside.not_followed(state, levers) for levers in not_followed)


def test_each_thing_that_is_wrong_is_told() -> None:
    import impact

    assert impact.wrong({"a": {"missing": {}, "dropped": {}, "not_followed": None}, "bare": {}}) == []
    bad = {
        "missing": {"move": 3},
        "dropped": {"spool": 1},
        "not_followed": "the plan in force was the usual one",
    }
    told = impact.wrong({"mcilib saver": bad})
    assert len(told) == 3
    assert all(line.startswith("mcilib saver: ") for line in told)


def test_an_aim_is_a_ratio_of_two_that_were_there() -> None:
    import impact

    found = {
        "mcilib battery": {"cpu_s": 1.0, "due_bytes": 10},
        "bare": {"cpu_s": 4.0},
        "fair": {"due_bytes": 40},
    }
    told = impact.reached(impact.BATTERY_AIMS, found)
    assert [(aim["ratio"], aim["at_most"]) for aim in told] == [(0.25, 1 / 8), (0.25, 1 / 3)]
    assert impact.reached(impact.BATTERY_AIMS, {"bare": {"cpu_s": 4.0}}) == []


def test_energy_is_of_the_same_coefficients_for_all_and_of_a_day() -> None:
    import impact

    spent = dict.fromkeys(("wakeups", "requests", "fsyncs", "written_bytes", "due_bytes", "tls_bytes"), 0)
    one = impact.energy({**spent, "cpu_s": 1.0}, 60, 0.5)
    assert one["day_joules"] == pytest.approx(one["joules"] * 240)
    assert one["day_ratio"] == pytest.approx(one["day_joules"] / 180_000)
    for name in ("wakeups", "requests", "fsyncs", "due_bytes", "tls_bytes"):
        assert impact.energy({**spent, "cpu_s": 1.0, name: 1000}, 60, 0.5)["joules"] > one["joules"], name
    uncounted = impact.energy({**spent, "cpu_s": 1.0, "fsyncs": None}, 60, 0.5)
    assert (uncounted["joules"], uncounted["without"], one["without"]) == (one["joules"], ["fsyncs"], [])


def test_a_busy_machine_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import impact

    monkeypatch.setattr("os.getloadavg", lambda: (90.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert impact.watch_load("now") == 45
    assert "WARNING: load 45.00" in capsys.readouterr().err
    monkeypatch.setattr("os.getloadavg", lambda: (0.5, 0.0, 0.0))
    assert impact.watch_load("now") == 0.25
    assert capsys.readouterr().err == ""
