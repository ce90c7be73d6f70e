"""Every benchmark runs, in its short version, and its figures have the promised shape."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = (
    "run",
    "end_to_end",
    "agent_cost",
    "capture_cost",
    "wire_size",
    "record_bursts",
    "fidelity",
    "gate",
    "pause_latency",
)
KINDS = {"move", "press", "release", "scroll", "key_press", "key_release"}


def script(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def figures(name: str, *args: str | Path) -> dict[str, Any]:
    done = script(name, "--quick", "--json", *args)
    assert done.returncode == 0, done.stderr + done.stdout
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_is_measured(name: str) -> None:
    done = script(name, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert "--quick" in done.stdout
    assert len(done.stdout.split("options:")[0]) > 200


def test_the_gate_is_cut_out_and_measured() -> None:
    results = figures("gate")["gate"]
    assert {(r["kind"], r["bars"]) for r in results} == {
        (kind, bars)
        for kind in ("moves", "thinned moves", "clicks and keys")
        for bars in ("", "scope", "program")
    }
    assert all(r["checked_us"] > 0 and r["unchecked_us"] > 0 for r in results)


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_pauses_are_timed_and_nothing_is_captured_meanwhile() -> None:
    results = figures("pause_latency")["pauses"]
    assert [(r["what"], r["read_interval_s"]) for r in results] == [
        ("everything", 0.1), ("everything", 1.0), ("the keyboard", 0.1), ("the keyboard", 1.0),
    ]  # fmt: skip
    assert all(r["captured_while_paused"] == 0 and 0 < r["p50_ms"] <= r["max_ms"] for r in results)


@pytest.mark.needs("Xvfb")
def test_paced_input_is_heard_to_the_last_event() -> None:
    runs = json.loads(script("record_bursts", "--quick", "--json").stdout)
    assert [run["sync_every"] for run in runs] == [None, 20]
    assert runs[1]["lost"] == 0


@pytest.mark.needs("Xvfb")
@pytest.mark.parametrize("scenario", ["plain", "receiver down", "killed"])
def test_all_that_is_injected_is_received(scenario: str) -> None:
    """The project's main promise, in a tenth of its full length."""
    (result,) = figures("end_to_end", "--scenario", scenario)["scenarios"].values()
    assert result["differences"] == []
    assert result["injected"] == result["received"]
    assert result["injected"] == {
        "move": 1000, "press": 50, "release": 50, "scroll": 50, "key_press": 200, "key_release": 200,
    }  # fmt: skip
    told = {kind: number for kind, number in result["rows"].items() if kind not in KINDS}
    agent = {"display": 1, "layout": 1, "focus": 1}
    assert told == {"plain": agent, "receiver down": agent, "killed": {"layout": 3}}[scenario]
    assert result["rows"]["scroll"] < 50, "steps in a row fold into one"
    assert result["batches"] >= {"plain": 1, "receiver down": 1, "killed": 3}[scenario]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda seen: seen[:-1], "release: injected 50, received 49"),
        (lambda seen: [*seen, seen[-1]], "release: injected 50, received 51"),
        (lambda seen: [seen[1], seen[0], *seen[2:]], "number 0"),
        (lambda seen: [("move", 1, 1), *seen[1:]], "number 0"),
        (lambda seen: [s if s[0] != "press" else (*s[:3], "middle") for s in seen], "received ('press', "),
        (lambda seen: [s if s[0] != "scroll" else (*s[:3], 1, 1) for s in seen], "received ('scroll', "),
    ],
)
def test_end_to_end_sees_every_difference(change: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import end_to_end

    pointer, keyboard = end_to_end.Script.make(0.1).expected()
    assert end_to_end.compare(pointer, pointer) == []
    assert end_to_end.compare(keyboard, keyboard) == []
    injected = [seen for seen in pointer if seen[0] != "release"] + [s for s in pointer if s[0] == "release"]
    assert any(words in line for line in end_to_end.compare(injected, change(injected)))


def test_end_to_end_in_full_is_what_the_issue_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import end_to_end

    pointer, keyboard = end_to_end.Script.make().expected()
    counts = {kind: sum(seen[0] == kind for seen in (*pointer, *keyboard)) for kind in KINDS}
    assert counts == {
        "move": 10_000, "press": 500, "release": 500, "scroll": 500, "key_press": 2_000, "key_release": 2_000,
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.needs("Xvfb")
def test_agent_cost_has_both_subjects_and_their_ratios() -> None:
    result = figures("agent_cost")
    for subject in ("bare", "mcilib"):
        assert result[subject]["memory_mib"]["rss"]["median"] > 5
        assert 0 < result[subject]["start_s"]["median"] < 30
        for rate in ("125", "1000"):
            figure = result[subject]["rates"][rate]
            assert set(figure) == {
                "events_per_s", "cpu_us_per_event", "wakeups_per_event", "wakeups_per_s",
                "x_server_cpu_us_per_event",
            }  # fmt: skip
            assert all(0 < f["low"] <= f["median"] <= f["high"] for f in figure.values())
    for ratios in result["ratios"].values():
        assert ratios["cpu_us_per_event"]["low"] > 0
    assert result["import_ms"]["import mcilib"]["median"] > 0
    assert result["memory_parts"][0]["part"] == "Python itself"


OURS = {f"mcilib-{what}{level}" for what in ("", "frame-", "events-") for level in ("3", "19", "default")} | {
    "mcilib-field-60s",
    "mcilib-field-300s",
}
RIVALS = {
    "json-lines", "json-gzip", "msgpack-zstd-3", "msgpack-zstd-19", "differences-zstd-3", "differences-zstd-19",
    "parquet-zstd", "parquet-zstd-whole", "arrow-ipc-zstd",
}  # fmt: skip
MAY_BE_MISSING = {"msgspec-zstd", "zpaq", "zpaq-net"}
POINTER, KEYBOARD = "t_ns,kind,x,y,button", "t_ns,kind,key"


def trace_file(path: Path, head: str, rows: list[str]) -> Path:
    path.write_text("\n".join([head, *rows]))
    return path


def wire_sizes(*args: str | Path) -> dict[str, dict[str, Any]]:
    """By trace."""
    done = script("wire_size", "--quick", "--json", *args)
    assert done.returncode == 0, done.stderr + done.stdout
    return {result["trace"]: result for result in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def synthetic() -> dict[str, dict[str, Any]]:
    """The figures of the synthetic traces."""
    return wire_sizes()


def test_wire_size_of_the_synthetic_traces(synthetic: dict[str, dict[str, Any]]) -> None:
    made, again = synthetic, wire_sizes()
    assert [result["source"] for result in made.values()] == ["pointer", "pointer", "pointer", "keyboard"]
    for name, result in made.items():
        size = result["bytes_per_event"]
        assert OURS | RIVALS <= set(size) <= OURS | RIVALS | MAY_BE_MISSING
        assert 0 < size["mcilib-19"] <= size["mcilib-default"] <= size["mcilib-3"]
        assert size["mcilib-default"] < size["mcilib-frame-default"] < size["mcilib-field-60s"]
        assert size["mcilib-default"] < size["parquet-zstd"] < size["json-gzip"] < size["json-lines"]
        assert size["mcilib-19"] == again[name]["bytes_per_event"]["mcilib-19"], "the same everywhere"
        cpu = result["cpu_us_per_event"]
        assert set(cpu) >= {"mcilib-add", "mcilib-decode-columns", "arrow-ipc-zstd-encode"}
        assert all(0 < us < 1000 for us in cpu.values())
        assert cpu["mcilib-encode-19"] > cpu["mcilib-encode-3"]


def test_wire_size_is_of_all_events_in_batches_as_the_recorder_closes_them(tmp_path: Path) -> None:
    """Two minutes of moves of which each third repeats the pixel, then 13 with a press every 40 s."""
    moves = [f"{n * 10_000_000},move,{2 * (n // 3) + min(n % 3, 1)},7," for n in range(12_000)]
    calm = [f"{(120 + n * 40) * 1_000_000_000},press,7999,7,left" for n in range(20)]
    (mine,) = wire_sizes(trace_file(tmp_path / "mine.csv", POINTER, moves + calm)).values()
    assert (mine["trace"], mine["source"], mine["quanta_per_px"]) == ("mine", "pointer", 1)
    assert (mine["events"], mine["rows"]) == (12_020, 8_020)
    assert mine["batches"] == {"2000 rows": 5, "60 s": 12, "300 s": 4}
    assert mine["bytes_per_event"]["mcilib-events-19"] > mine["bytes_per_event"]["mcilib-19"], "7 batches"


def test_wire_size_in_the_field_is_sealed_to_two(tmp_path: Path) -> None:
    """Both are one batch: what they differ in is age's header and tags (98 bytes a key, and 102) and the key ids."""
    rows = [f"{n * 100_000_000},{('press', 'release')[n % 2]},{'abcdefg'[n // 2 % 7]}" for n in range(400)]
    (mine,) = wire_sizes(trace_file(tmp_path / "mine.csv", KEYBOARD, rows)).values()
    assert (mine["source"], mine["events"], mine["rows"]) == ("keyboard", 400, 400)
    assert mine["batches"] == {"2000 rows": 1, "60 s": 1, "300 s": 1}
    size = mine["bytes_per_event"]
    assert 298 <= round(400 * (size["mcilib-field-60s"] - size["mcilib-frame-default"])) < 800


def test_wire_size_of_fractions_of_a_pixel_is_a_trace_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import wire_size

    rows = [f"{n * 8_000_000},move,{100 + n * n % 97 / 8},{n % 50}.0," for n in range(600)]
    file = trace_file(tmp_path / "mine.csv", POINTER, rows)
    whole, fine = wire_sizes(file).values()
    assert (whole["trace"], fine["trace"]) == ("mine", "mine@1/256px")
    assert whole["events"] == fine["events"] == 600
    for codec in ("mcilib-19", "json-lines"):
        assert fine["bytes_per_event"][codec] > whole["bytes_per_event"][codec]
    table = script("wire_size", "--quick", file).stdout
    assert table.count("geometric mean, pointer") >= 3
    mean = next(line for line in table.splitlines() if "geometric mean" in line)
    assert f" {wire_size.shown(whole['bytes_per_event']['mcilib-19'])} " in mean, "of the first view only"


def test_a_growing_scroll_is_not_cut_by_the_age_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import wire_size

    from mcilib.events import Event, Press, Scroll

    ms = 1_000_000
    events: list[Event] = [
        Press(0, 0, 0, "left"),
        *(Scroll(t * ms, 0, 0, 0, 1) for t in (59_990, 60_010, 60_200)),
    ]
    batches = list(wire_size.batches(wire_size.Trace("mine", events), 2_000, 60))
    assert [list(one.events) for one in batches] == [events[:3], events[3:]]


def test_one_lost_release_makes_no_shortcuts_of_a_recorded_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import traces

    keys = ("ctrl", "a", "5", "+", "symbol_2e", "space", "backspace", "left", "f5")
    file = trace_file(tmp_path / "mine.csv", KEYBOARD, [f"{n},press,{key}" for n, key in enumerate(keys)])
    assert [event.key for event in traces.read(file)] == [
        "modifier", "letter", "digit", "punctuation", "punctuation", "space", "editing", "navigation", "function",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["no,trace"], "no header of a trace"),
        ([POINTER], "no rows"),
        ([POINTER, "1,move,a,b,"], "line 2"),
        ([POINTER, "1,move,5,5,", "2,scroll_up,nan.,5,"], "line 3"),
        ([POINTER, "1,move,5,5,", "2,press,9999999999,5,left"], "cannot hold"),
        ([KEYBOARD, "1,press,a", "2,down,a"], "line 3"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(lines: list[str], words: str, tmp_path: Path) -> None:
    done = script("wire_size", trace_file(tmp_path / "mine.csv", lines[0], lines[1:]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("wire_size.py: ")
    assert "mine" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_traces_of_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = [
        trace_file(folder / "mine.csv", POINTER, ["1,move,5,5,"]) for folder in (tmp_path, tmp_path / "other")
    ]
    done = script("wire_size", *files)
    assert done.returncode == 1
    assert "same name" in done.stderr


def test_the_plot_needs_matplotlib_and_says_so_where_it_is_missing(
    tmp_path: Path, synthetic: dict[str, dict[str, Any]]
) -> None:
    figures_file, picture = tmp_path / "figures.json", tmp_path / "out.svg"
    figures_file.write_text(json.dumps(list(synthetic.values())))
    done = script("plot", figures_file, "-o", picture)
    if find_spec("matplotlib") is None:
        assert (done.returncode, done.stderr) == (2, "plot.py needs matplotlib: pip install matplotlib\n")
    else:
        assert done.returncode == 0, done.stderr
        assert "bytes per event" in picture.read_text()


def test_fidelity_keeps_its_bound_and_costs_fewer_bytes_the_wider_it_is() -> None:
    result = figures("fidelity")
    assert [one["trace"] for one in result["traces"]] == [
        "office, 15.6 ms clock",
        "mouse, 125 Hz",
        "mouse, 1 kHz",
    ]
    for one in result["traces"]:
        plain, *thinned = [r for r in one["results"] if r["way"] in ("same pixel", "thinned")]
        assert (plain["kept"], plain["max_px"], plain["gaps_px"]) == (1.0, 0.0, 0.0)
        assert [r["value"] for r in thinned] == [1, 2, 4, 8, 16]
        assert all(0 < r["max_px"] <= r["value"] and r["gaps_px"] <= r["value"] for r in thinned)
        sizes = [r["bytes_per_event"] for r in (plain, *thinned)]
        assert sizes == sorted(sizes, reverse=True)
        caps = [r for r in one["results"] if r["way"] == "cap"]
        assert [r["value"] for r in caps] == [1, 4, 10, 20, 40, 80]
        assert all(set(ratios) == {"ratio", "nearest"} for ratios in one["ratios"].values())
    assert set(result["geometric_mean"]) == {"1", "2", "4", "8", "16"}


def test_fidelity_measures_recorded_paths_by_the_rule(tmp_path: Path) -> None:
    """A straight line, a rest, a jump of 300 px within a tick, 12 px away and back: 5 rows within 16 px, 7 within 1."""
    line = [f"{n * 10_000_000},move,{n * 10},0," for n in range(11)]
    rest = [f"{2_000_000_000},move,400,0,", f"{2_000_000_001},move,100,0,"]
    rest += [f"{2_010_000_000 + n * 10_000_000},move,100,{y}," for n, y in enumerate((9, 12, 0))]
    trace_file(tmp_path / "pointer_mine.csv", POINTER, [*line, *rest])
    trace_file(tmp_path / "keyboard_other.csv", KEYBOARD, ["0,press,a"])
    [one] = figures("fidelity", "--traces", tmp_path)["traces"]
    assert (one["trace"], one["events"]) == ("pointer_mine", 16)
    by_px = {r["value"]: r for r in one["results"] if r["way"] == "thinned"}
    assert (by_px[1]["kept"], by_px[1]["max_px"]) == (7 / 16, 0)
    assert (by_px[16]["kept"], by_px[16]["max_px"], by_px[16]["gaps_px"]) == (5 / 16, 12, 12)
    assert script("fidelity", "--quick", "--traces", tmp_path / "nowhere").returncode == 2
