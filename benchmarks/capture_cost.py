"""What capture costs beside a bare pynput listener, whether all is captured, and how true the times are.

Everything is real: an X server (Xvfb) with a window that takes the events, as on a desktop, input through XTEST,
`mcilib run` with a receiver and defaults everywhere. The bare listener is pynput's mouse.Listener and
keyboard.Listener with empty callbacks. The parts, each of which `--part` runs alone:

  moves       CPU per event and wake-ups at 125 Hz and 1 kHz, with four key taps and a click a second, and
              with moves alone: the agent as it is, the agent that reads every 0.2 s (as on battery), and an agent
              to which moves are not delivered. Of the last all clicks and keys must be in its spool
  typing      the same for keyboard traces, at their own pace and at four times that; pauses over 1 s are cut to 1 s.
              `--traces FOLDER` takes those of its keyboard_*.csv(.gz) (`t_ns,kind,key`); else a synthetic one
  lost        1 kHz for a minute and 5 kHz for ten seconds: what was injected, and what the spool holds
  timestamps  event time less time of injection, for four read intervals, beside what the time at which the
              event was told would have given, and by when the server had carried it out
  idle        a minute of silence after the open batch was written
  memory      resident before the first upload and after it, and what each import adds

An agent and the bare listener take turns (A, B, A, B ...); a ratio is of two neighbours, given are medians and
ranges. CPU and wake-ups (voluntary context switches) are of all threads of the process, read from outside, in
/proc. The X server's CPU per event stands beside them: work moved there is not saved. It holds what the server
does to inject the event and to hand it to the window, which is the same on both sides.

Needs Linux and Xvfb. Takes 20 minutes, with a folder of four traces 45. Ends with 1 when an injected event is missing;
never because of a time.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import agent_cost
import pyrage
import traces
from rig import (
    PYTHON,
    Process,
    agent,
    arguments,
    charge,
    grant,
    inject,
    machine,
    memory_mib,
    receiver,
    remark,
    settle,
    show,
    shown,
    spread,
    steady_display,
    table,
)

from mcilib import PointerSource
from mcilib.events import Event, KeyPress, Move
from mcilib.reader import Reader, coverage, timeline
from mcilib.testing.fakes import ListSink
from mcilib.testing.xvfb import VirtualDisplay

SOURCES = ("pointer", "display", "keyboard", "window")
"""What `mcilib run` captures."""

BARE, WHOLE, BATTERY, NO_MOTION = "bare", "mcilib run", "mcilib run, read interval 0.2 s", "motion off"
BATTERY_CONFIG = "[agent]\nread_interval_s = 0.2\n"

RATES_HZ = (125, 1000)
"""An ordinary mouse, and a fast one."""

CPU_AIMS = {
    (WHOLE, "125 Hz"): 0.30,
    (WHOLE, "125 Hz, moves alone"): 0.30,
    (WHOLE, "1000 Hz"): 0.10,
    (WHOLE, "1000 Hz, moves alone"): 0.10,
    (NO_MOTION, "125 Hz, moves alone"): 0.01,
    (NO_MOTION, "1000 Hz, moves alone"): 0.01,
}
"""Times the bare listener's CPU per event, at most. Without motion clicks and keys still cost what they cost, and at
125 Hz they are 7 % of the events: the aim is for the moves."""
WAKEUPS_AIM_PER_S = 25
"""Of the agent as it is, while the pointer moves."""

FLOODS = ((1000, 60.0), (5000, 10.0))
"""Events a second, and for how long."""

READ_INTERVALS_S = (0.02, 0.05, 0.1, 0.25)
TIME_AIM_MS = 2.0
TIME_HZ = 127
"""No divisor of 1,000: moves fall anywhere in the server's milliseconds."""

PAUSE_MAX_NS = 1_000_000_000
SPEEDS = (1, 4)

EMBEDDED = """\
import sys
from mcilib import Collector, DisplaySource, Grant, KeyboardSource, PointerSource, WindowSource
state, motion = sys.argv[1:]
sources = [DisplaySource(), KeyboardSource(), WindowSource(), PointerSource(motion=motion == "motion")]
with Collector(sources=sources, grant=Grant.load(state), state_dir=state):
    print("collecting", flush=True)
    sys.stdin.readline()
print("stopped", flush=True)
"""
"""An agent without a transport: all that it captures stays in its spool."""

Play = Callable[[VirtualDisplay], "Counter[str]"]
"""Injects, and says how many events by kind."""


# --- agents -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the agents run."""

    display: VirtualDisplay
    folder: Path
    endpoint: str
    machine: Mapping[str, str] = field(default_factory=dict)
    """Environment of an agent (not of the bare listener) on an emulated machine."""


@contextlib.contextmanager
def running(subject: str, place: Place, state: Path) -> Iterator[Process]:
    """The subject, listening. That without motion has all in its spool afterwards."""
    if subject == NO_MOTION:
        with embedded(place.display, state, motion=False) as process:
            yield process
        return
    flags = ["--sources", ",".join(SOURCES)]
    if subject == BATTERY:
        config = place.folder / "battery.toml"
        config.write_text(BATTERY_CONFIG)
        flags += ["--config", str(config)]
    name, machine = ("bare", {}) if subject == BARE else ("mcilib", place.machine)
    with agent_cost.running(
        name, place.display, place.folder, place.endpoint, *flags, machine=machine
    ) as process:
        yield process


@contextlib.contextmanager
def embedded(display: VirtualDisplay, state: Path, *, motion: bool = True) -> Iterator[Process]:
    """An agent that captures into `state`, which it makes; all is there afterwards."""
    grant(state)
    command = [*PYTHON, "-c", EMBEDDED, str(state), "motion" if motion else "no motion"]
    with Process(command, env=display.environ()) as process:
        process.line("collecting")
        yield process
        settle(process.pid)
        process.tell("stop")
        process.line("stopped")


def spooled(state: Path) -> tuple[Counter[str], int, dict[str, int]]:
    """What the batches in a spool hold: events of the system by kind, those coalesced among the moves; how many
    of them are coalesced; and those dropped, by cause."""
    kinds, coalesced, dropped = Counter[str](), 0, Counter[str]()
    for event in Reader(state / "spool").events():
        kinds[event.kind] += 1
    for totals in coverage(timeline(Reader(state / "spool"))).values():
        coalesced += totals.coalesced
        dropped.update(totals.dropped)
    kinds["move"] += coalesced
    return kinds, coalesced, dict(dropped)


def missing(injected: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, int]:
    """By kind, where it is not the same; less than 0: there are more than were injected."""
    return {kind: n - kept.get(kind, 0) for kind, n in injected.items() if n != kept.get(kind, 0)}


# --- moves and typing ---------------------------------------------------------------------------------------


def moves(place: Place, rounds: int, seconds: float) -> dict[str, Any]:
    """Each agent against the bare listener, by load."""
    loads: dict[str, Play] = {
        f"{rate_hz} Hz{'' if presses else ', moves alone'}": partial(
            inject, rate_hz=rate_hz, seconds=seconds, presses=presses
        )
        for rate_hz in RATES_HZ
        for presses in (True, False)
    }
    return {subject: against_bare(subject, place, loads, rounds) for subject in (WHOLE, BATTERY, NO_MOTION)}


def typing(
    place: Place, rounds: int, seconds: float, strokes: Mapping[str, Sequence[Stroke]]
) -> dict[str, Any]:
    """The same with the first `seconds` of each trace, one after the other; those of four times the pace are the
    same strokes."""
    parts = [beginning(trace, seconds) for trace in strokes.values()]
    loads: dict[str, Play] = {
        f"typing, {speed}x": partial(replay_all, parts=parts, speed=speed) for speed in SPEEDS
    }
    return {subject: against_bare(subject, place, loads, rounds) for subject in (WHOLE, BATTERY)}


def against_bare(subject: str, place: Place, loads: Mapping[str, Play], rounds: int) -> dict[str, Any]:
    """In turn with the bare listener: of each load both sides' figures and their ratio, round by round."""
    pairs, lost = [], Counter[str]()
    for number in range(rounds):
        remark(f"capture cost, {subject} against bare, pair {number + 1} of {rounds} ...")
        bare, _ = one_turn(BARE, place, loads)
        ours, gone = one_turn(subject, place, loads)
        pairs.append((bare, ours))
        lost.update(gone)
    result: dict[str, Any] = {"loads": {}}
    for load in loads:
        names = list(pairs[0][0][load])
        result["loads"][load] = {
            "bare": {name: spread([bare[load][name] for bare, _ in pairs]) for name in names},
            "ours": {name: spread([ours[load][name] for _, ours in pairs]) for name in names},
            "ratio": {
                name: spread([ours[load][name] / bare[load][name] for bare, ours in pairs])
                for name in names
                if name != "events_per_s"
            },
        }
    if subject == NO_MOTION:
        result["missing"] = dict(lost)
    return result


def one_turn(
    subject: str, place: Place, loads: Mapping[str, Play]
) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    """What each load costs, and of the agent without motion which clicks and keys its spool does not hold."""
    injected = Counter[str]()

    def play(load: Play) -> Counter[str]:
        seen = load(place.display)
        injected.update(seen)
        return seen

    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        state = Path(folder) / "state"
        with running(subject, place, state) as process:
            play(partial(inject, rate_hz=125, seconds=0.5))  # the first events import and allocate
            settle(process.pid)
            figures = {
                name: charge(process.pid, place.display.pid, partial(play, load))
                for name, load in loads.items()
            }
        if subject != NO_MOTION:
            return figures, {}
        kept, _, _ = spooled(state)
    return figures, missing({**injected, "move": 0}, kept)


# --- keyboard traces ----------------------------------------------------------------------------------------

Stroke = tuple[int, bool, str]
"""When (ns), whether down, and the name of the key in a trace."""

KEYSYMS = {
    "backspace": "BackSpace", "tab": "Tab", "enter": "Return", "esc": "Escape", "delete": "Delete",
    "shift": "Shift_L", "shift_r": "Shift_R", "left": "Left", "right": "Right", "up": "Up", "down": "Down",
    "home": "Home", "end": "End", "symbol_27": "apostrophe", "symbol_2c": "comma", "symbol_2d": "minus",
    "symbol_2e": "period", "symbol_2f": "slash", "symbol_3b": "semicolon",
}  # fmt: skip
"""Of keys whose keysym has another name. Ctrl, alt and cmd are left out and become a letter, as do keys that the
layout has not: recordings miss some of their releases, and all that follows would be shortcuts."""


def keyboards(folder: Path | None) -> dict[str, list[Stroke]]:
    """The keyboard traces of a folder by name; without any, a synthetic one."""
    files = sorted(folder.glob("keyboard_*.csv*")) if folder is not None else []
    if not files:
        if folder is not None:
            remark(f"capture cost, no keyboard_*.csv(.gz) in {folder}: a synthetic trace instead")
        return {"synthetic": synthetic(traces.typing(120, seed=4))}
    return {traces.name_of(file): recorded(file) for file in files}


def recorded(file: Path) -> list[Stroke]:
    """The strokes of a file with the columns `t_ns,kind,key`."""
    try:
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
            rows = [(int(r["t_ns"]), r["kind"] == "press", r["key"]) for r in csv.DictReader(lines)]
    except (KeyError, ValueError, OSError) as error:
        raise SystemExit(f"{file} is no keyboard trace (columns t_ns,kind,key): {error!r}") from None
    if not rows:
        raise SystemExit(f"{file} has no rows")
    return rows


def synthetic(events: Sequence[Event]) -> list[Stroke]:
    """Keys for classes: letters in turn, so that one may be held while the next goes down."""
    held: dict[str | None, list[str]] = {}
    names = {"space": "space", "punctuation": "symbol_2e", "editing": "backspace"}
    strokes = []
    for number, event in enumerate(events):
        if not isinstance(event, KeyPress):
            strokes.append((event.t_ns, False, held[getattr(event, "key", None)].pop(0)))
            continue
        key = names.get(event.key or "", chr(ord("a") + number % 26))
        held.setdefault(event.key, []).append(key)
        strokes.append((event.t_ns, True, key))
    return strokes


def beginning(strokes: Sequence[Stroke], seconds: float) -> list[Stroke]:
    """The first `seconds` from 0 on, with pauses of at most 1 s."""
    cut: list[Stroke] = []
    now_ns, last_ns = 0, strokes[0][0]
    for t_ns, down, key in strokes:
        now_ns += min(max(t_ns - last_ns, 0), PAUSE_MAX_NS)
        last_ns = t_ns
        if now_ns > seconds * 1e9:
            break
        cut.append((now_ns, down, key))
    return cut


def replay_all(display: VirtualDisplay, parts: Sequence[Sequence[Stroke]], speed: int) -> Counter[str]:
    return sum((replay(display, strokes, speed) for strokes in parts), Counter[str]())


def replay(display: VirtualDisplay, strokes: Sequence[Stroke], speed: int) -> Counter[str]:
    """Types the trace. A key that is pressed while it is held repeats: it goes up and down; a release of one that
    is not held does nothing, and what is held at the end is released."""
    codes = {key: keycode(display, key) for _, _, key in strokes}
    seen, held = Counter[str](), set[int]()

    def turn(code: int, down: bool) -> None:
        display.key(code, down)
        seen["key_press" if down else "key_release"] += 1
        (held.add if down else held.remove)(code)
        if seen.total() % 20 == 0:
            display.sync()

    began_s = time.monotonic()
    for t_ns, down, key in strokes:
        ahead_s = began_s + t_ns / 1e9 / speed - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        if codes[key] in held:
            turn(codes[key], False)
        if down:
            turn(codes[key], True)
    for code in list(held):
        turn(code, False)
    display.sync()
    return seen


def keycode(display: VirtualDisplay, key: str) -> int:
    try:
        return display.keycode(KEYSYMS.get(key, key))
    except KeyError:
        return display.keycode("a")


# --- nothing lost -------------------------------------------------------------------------------------------


def flood(place: Place, rate_hz: int, seconds: float) -> dict[str, Any]:
    """Injected, and read back from the spool."""
    remark(f"capture cost, nothing lost: {rate_hz} Hz for {seconds:g} s ...")
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        state = Path(folder) / "state"
        with embedded(place.display, state):
            began_s = time.monotonic()
            injected = inject(place.display, rate_hz, seconds)
            took_s = time.monotonic() - began_s
        kept, coalesced, dropped = spooled(state)
    return {
        "rate_hz": rate_hz,
        "events_per_s": injected.total() / took_s,
        "injected": dict(injected),
        "captured": dict(kept),
        "coalesced": coalesced,
        "dropped": dropped,
        "missing": missing(injected, kept),
    }


# --- timestamps ---------------------------------------------------------------------------------------------


class TimedSink(ListSink):
    """Keeps moves with the time at which they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.moves: list[tuple[Move, int]] = []

    def emit(self, event: Event, /) -> bool:
        if isinstance(event, Move):
            self.moves.append((event, time.monotonic_ns()))
        return True


def timestamps(display: VirtualDisplay, interval_s: float, seconds: float) -> dict[str, Any]:
    """How late an event's own time and the time of its telling are, ms; each move with a sync, whose return says
    by when the server had carried it out: on a busy machine that is late too. `outside`: events whose own time is
    after that, or more than 2 ms before the injection."""
    remark(f"capture cost, timestamps at a read interval of {interval_s:g} s ...")
    os.environ["DISPLAY"] = display.display
    sink, source = TimedSink(), PointerSource(read_interval_s=interval_s)
    injected: dict[tuple[float, float], tuple[int, int]] = {}  # by place: before the call, and after its sync
    source.start(sink)
    began_s = time.monotonic()
    for n in range(int(TIME_HZ * seconds)):
        time.sleep(max(0.0, began_s + n / TIME_HZ - time.monotonic()))
        x, y = 100 + n % 1000, 100 + n % 601
        before_ns = time.monotonic_ns()
        display.move(x, y)
        display.sync()
        injected[x, y] = before_ns, time.monotonic_ns()
    source.stop()
    times = [(event.t_ns, told_ns, *injected[event.x, event.y]) for event, told_ns in sink.moves]
    return {
        "read_interval_s": interval_s,
        "clock": source.clock,
        "injected": len(injected),
        "moves": len(times),
        "event": percentiles([(t_ns - before_ns) / 1e6 for t_ns, _, before_ns, _ in times]),
        "told": percentiles([(told_ns - before_ns) / 1e6 for _, told_ns, before_ns, _ in times]),
        "carried_out": percentiles([(after_ns - before_ns) / 1e6 for *_, before_ns, after_ns in times]),
        "outside": sum(
            not before_ns - TIME_AIM_MS * 1e6 <= t_ns <= after_ns for t_ns, _, before_ns, after_ns in times
        ),
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Milliseconds at some of them, and which part is within the aim."""
    ordered = sorted(values)
    at = {
        f"p{p}": ordered[min(len(ordered) - 1, math.floor(p / 100 * len(ordered)))] for p in (1, 50, 95, 99)
    }
    within = statistics.fmean(abs(value) <= TIME_AIM_MS for value in values)
    return {"low": ordered[0], **at, "high": ordered[-1], "within_2_ms": within}


# --- memory -------------------------------------------------------------------------------------------------


def memory(place: Place) -> dict[str, Any]:
    """MiB of `mcilib run`, sealing and on a D-Bus where there is one, before the first upload and after it; what each
    import adds."""
    remark("capture cost, memory ...")
    store = place.folder / "memory"
    state = place.folder / "memory-state"
    grant(state)
    recipients = place.folder / "recipients.txt"
    recipients.write_text(str(pyrage.x25519.Identity.generate().to_public()) + "\n")
    flags = ["--sources", ",".join(SOURCES), "--commit-every", "8s", "--upload-every", "1s"]
    flags += ["--recipients", str(recipients)]
    with (
        receiver(store) as endpoint,
        bus() as address,
        agent(state, endpoint, {**place.display.environ(), **address}, *flags) as process,
    ):
        start = memory_mib(process.pid)
        inject(place.display, 125, 1)
        settle(process.pid)
        before = memory_mib(process.pid)
        if batches(store):
            raise SystemExit("the first upload came too early to see what was before it")
        until_s = time.monotonic() + 60
        while not batches(store):
            if time.monotonic() > until_s:
                raise SystemExit("nothing was uploaded within a minute")
            time.sleep(0.1)
        settle(process.pid)
        after = memory_mib(process.pid)
        process.end()
    return {
        "start": start,
        "before_upload": before,
        "after_upload": after,
        "parts": agent_cost.parts(place.display),
    }


@contextlib.contextmanager
def bus() -> Iterator[dict[str, str]]:
    """A D-Bus that nobody but the agent is on, as what names it; nothing where there is no dbus-daemon."""
    if shutil.which("dbus-daemon") is None:
        yield {}
        return
    command = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        address = daemon.stdout.readline().strip() if daemon.stdout is not None else ""
        yield {"DBUS_SYSTEM_BUS_ADDRESS": address, "DBUS_SESSION_BUS_ADDRESS": address}
        daemon.terminate()


def batches(store: Path) -> int:
    """Stored so far."""
    return len(Reader(store).batch_ids()) if any(store.rglob("*.mcib")) else 0


# --- all of it ----------------------------------------------------------------------------------------------

PARTS = ("moves", "typing", "lost", "timestamps", "idle", "memory")


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (may be given again)")
    parser.add_argument("--rounds", type=int, help="pairs of turns (default 5, quick 1)")
    parser.add_argument("--seconds", type=float, help="of moves at each rate (default 4, quick 0.4)")
    parser.add_argument("--traces", type=Path, metavar="FOLDER", help="of recorded keyboard traces")
    parser.add_argument("--typing", type=float, metavar="SECONDS", help="of each trace (default 15, quick 1)")
    parser.add_argument("--idle", type=float, metavar="SECONDS", help="of silence (default 60; quick: none)")
    args = parser.parse_args()
    quick = args.quick
    rounds = args.rounds or (1 if quick else 5)
    seconds = args.seconds or (0.4 if quick else 4.0)
    typing_s = args.typing or (1.0 if quick else 15.0)
    idle_s = args.idle if args.idle is not None else (0.0 if quick else 60.0)
    parts = args.part or PARTS
    strokes = keyboards(args.traces)
    result: dict[str, Any] = {
        "machine": machine(), "sources": list(SOURCES), "rounds": rounds, "seconds": seconds,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name, steady_display() as display:
        folder = Path(name)
        grant(folder / "state")
        with receiver(folder / "store") as endpoint:
            place = Place(display, folder, endpoint)
            if "moves" in parts:
                result["moves"] = moves(place, rounds, seconds)
            if "typing" in parts:
                result["typing_traces"] = {"names": list(strokes), "seconds_each": typing_s}
                result["typing"] = typing(place, rounds, typing_s, strokes)
            if "lost" in parts:
                result["lost"] = [flood(place, hz, 0.5 if quick else flood_s) for hz, flood_s in FLOODS]
            if "timestamps" in parts:
                each_s = 0.5 if quick else 20.0
                result["timestamps"] = [timestamps(display, s, each_s) for s in READ_INTERVALS_S]
            if "idle" in parts and idle_s:
                result["idle"] = agent_cost.idle(display, folder, endpoint, idle_s)
            if "memory" in parts:
                result["memory_mib"] = memory(place)
    show(result, text(result), as_json=args.json)
    return 1 if any(gone(result)) else 0


def gone(result: dict[str, Any]) -> Iterator[dict[str, int]]:
    """What is missing, in all parts that counted."""
    yield result.get("moves", {}).get(NO_MOTION, {}).get("missing", {})
    for one in result.get("lost", ()):
        yield one["missing"]


def text(result: dict[str, Any]) -> str:
    lines = [
        costs(subject, one) for part in ("moves", "typing") for subject, one in result.get(part, {}).items()
    ]
    if "typing_traces" in result:
        about = result["typing_traces"]
        lines += [f"Typed: {about['seconds_each']:g} s each of {', '.join(about['names'])}."]
    if "lost" in result:
        rows = [
            [
                f"{one['rate_hz']:,} Hz", f"{one['events_per_s']:,.0f}", f"{sum(one['injected'].values()):,}",
                f"{sum(one['captured'].get(kind, 0) for kind in one['injected']):,}", f"{one['coalesced']:,}",
                words(one["missing"]), words(one["dropped"]),
            ]
            for one in result["lost"]
        ]  # fmt: skip
        head = [
            "moves",
            "events per second",
            "injected",
            "captured",
            "of these coalesced",
            "missing",
            "dropped",
        ]
        lines += [table(head, rows)]
    if "timestamps" in result:
        names = ("low", "p1", "p50", "p95", "p99", "high")
        rows = [
            [
                f"{one['read_interval_s']:g} s" if side == "event" else "",
                {
                    "event": f"the event's ({one['clock']})",
                    "told": "when it was told",
                    "carried_out": "the server had carried it out",
                }[side],
                *(f"{one[side][name]:.1f}" for name in names),
                f"{one[side]['within_2_ms']:.1%}",
            ]
            for one in result["timestamps"]
            for side in ("event", "told", "carried_out")
        ]
        lines += [table(["read interval", "time, ms after injection", *names, "within 2 ms"], rows)]
    if "idle" in result:
        lines += [agent_cost.idle_text(result["idle"])]
    if "memory_mib" in result:
        both = result["memory_mib"]
        rows = [
            [words, *(f"{both[key][name]:.1f}" for name in ("rss", "private"))]
            for key, words in (
                ("start", "at the start"),
                ("before_upload", "before the first upload"),
                ("after_upload", "after it"),
            )
        ]
        lines += [table(["memory of mcilib run, MiB", "resident", "private"], rows)]
        lines += [agent_cost.parts_text(both["parts"])]
    return "\n\n".join(lines)


def costs(subject: str, result: dict[str, Any]) -> str:
    """The table of one agent against the bare listener."""
    rows = []
    for load, sides in result["loads"].items():
        for name, what, digits in (
            ("cpu_us_per_event", "CPU, us per event", 1),
            ("wakeups_per_s", "wake-ups per second", 0),
            ("x_server_cpu_us_per_event", "X server's CPU, us per event", 1),
        ):
            rows.append([
                load if name == "cpu_us_per_event" else "", what, shown(sides["bare"][name], digits),
                shown(sides["ours"][name], digits), shown(sides["ratio"][name], 3), aim(subject, load, name),
            ])  # fmt: skip
    said = table(["", "", "bare listener", subject, "ratio", "aim"], rows)
    if "missing" in result:
        said += f"\nClicks and keys missing from its spool, moves too many: {words(result['missing'])}."
    return said


def aim(subject: str, load: str, name: str) -> str:
    if (subject, load) in CPU_AIMS and name == "cpu_us_per_event":
        return f"{CPU_AIMS[subject, load]:.2f} times"
    if (subject, load) in CPU_AIMS and name == "wakeups_per_s" and subject == WHOLE:
        return f"{WAKEUPS_AIM_PER_S} a second"
    return ""


def words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())
