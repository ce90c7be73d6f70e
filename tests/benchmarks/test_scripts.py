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
SCRIPTS = ("run", "end_to_end", "agent_cost", "bytes_per_event", "record_bursts")
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


def test_bytes_per_event_of_the_synthetic_traces_and_of_a_file(tmp_path: Path) -> None:
    made = figures("bytes_per_event")["traces"]
    assert len(made) == 4
    trace = tmp_path / "mine.csv"
    rows = [f"{n * 8_000_000},move,{100 + n % 700},{n % 500}," for n in range(20_000)]
    trace.write_text("\n".join(["t_ns,kind,x,y,button", *rows]))
    (mine,) = figures("bytes_per_event", trace)["traces"].items()
    assert mine[0] == "mine"
    assert (mine[1]["events"], mine[1]["batches"]) == (20_000, 4), "at most 5,000 rows each"
    for result in (*made.values(), mine[1]):
        assert 0 < result["mcilib"] < result["json_gzip"] < result["json_lines"]


@pytest.mark.parametrize("lines", [["no,trace"], ["t_ns,kind,x,y,button", "1,move,a,b,"]])
def test_a_file_that_is_no_trace_is_refused(lines: list[str], tmp_path: Path) -> None:
    trace = tmp_path / "mine.csv"
    trace.write_text("\n".join(lines))
    done = script("bytes_per_event", trace)
    assert done.returncode != 0
    assert "mine.csv" in done.stderr


def test_the_plot_needs_matplotlib_and_says_so_where_it_is_missing(tmp_path: Path) -> None:
    figures_file, picture = tmp_path / "figures.json", tmp_path / "out.svg"
    figures_file.write_text(json.dumps(figures("bytes_per_event")))
    done = script("plot", figures_file, "-o", picture)
    if find_spec("matplotlib") is None:
        assert (done.returncode, done.stderr) == (2, "plot.py needs matplotlib: pip install matplotlib\n")
    else:
        assert done.returncode == 0, done.stderr
        assert "bytes per event" in picture.read_text()
