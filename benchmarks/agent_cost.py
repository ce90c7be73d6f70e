"""What the agent costs: memory, start, CPU and wake-ups beside a bare pynput listener, and when nothing happens.

The agent is a real `mcilib run` with a real receiver, defaults everywhere; the bare listener is pynput's
mouse.Listener and keyboard.Listener with empty callbacks. Both hear the same kind of input, one after the
other and in turn (A, B, A, B ...), from a real X server (Xvfb) with a window that takes the events, as on a
desktop. CPU and wake-ups (voluntary context switches) of all threads are read from outside, in /proc.

Needs Linux and Xvfb. Never fails on a time.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rig import (
    PYTHON,
    Cost,
    Process,
    agent,
    arguments,
    charge,
    cost,
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
    table,
)

from mcilib.testing.xvfb import VirtualDisplay

RATES_HZ = (125, 1000)
"""An ordinary mouse, and a fast one."""

BARE = """\
from pynput import keyboard, mouse
def nothing(*args): pass
listeners = [mouse.Listener(on_move=nothing, on_click=nothing, on_scroll=nothing),
             keyboard.Listener(on_press=nothing, on_release=nothing)]
for listener in listeners: listener.start()
for listener in listeners: listener.wait()
print("ready", flush=True)
for listener in listeners: listener.join()
"""

SUBJECTS = ("bare", "mcilib")


@contextlib.contextmanager
def running(
    subject: str,
    display: VirtualDisplay,
    folder: Path,
    endpoint: str,
    *flags: str,
    machine: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Process]:
    """The subject, listening, with `machine` in its environment. Its `began_s` is when it was started."""
    if subject == "bare":
        process = Process([*PYTHON, "-c", BARE], env={**display.environ(), **machine})
        process.line("ready")
    else:
        process = agent(folder / "state", endpoint, {**display.environ(), **machine}, *flags)
    with process:
        yield process
        process.end(9 if subject == "bare" else 15)


def one_turn(
    subject: str, display: VirtualDisplay, folder: Path, endpoint: str, seconds: float
) -> dict[str, Any]:
    """Start, memory, and the cost of each rate."""
    with running(subject, display, folder, endpoint) as process:
        start_s = time.perf_counter() - process.began_s
        figures: dict[str, Any] = {"start_s": start_s, "rates": {}}
        inject(display, 125, 0.5)  # the first events import and allocate
        settle(process.pid)
        for rate_hz in RATES_HZ:
            figures["rates"][rate_hz] = charge(
                process.pid, display.pid, partial(inject, display, rate_hz, seconds)
            )
        figures["memory_mib"] = memory_mib(process.pid)
    return figures


def compare(
    display: VirtualDisplay, folder: Path, endpoint: str, rounds: int, seconds: float
) -> dict[str, Any]:
    """Both subjects in turn; medians and ranges, also of the ratio in each round."""
    turns: dict[str, list[dict[str, Any]]] = {subject: [] for subject in SUBJECTS}
    for number in range(rounds):
        for subject in SUBJECTS:
            remark(f"agent cost, round {number + 1} of {rounds}, {subject} ...")
            turns[subject].append(one_turn(subject, display, folder, endpoint, seconds))
    result: dict[str, Any] = {}
    for subject, figures in turns.items():
        result[subject] = {
            "start_s": spread([f["start_s"] for f in figures]),
            "memory_mib": {
                k: spread([f["memory_mib"][k] for f in figures]) for k in ("rss", "pss", "private")
            },
            "rates": {
                str(rate): {
                    name: spread([f["rates"][rate][name] for f in figures])
                    for name in figures[0]["rates"][rate]
                }
                for rate in RATES_HZ
            },
        }
    pairs = list(zip(turns["bare"], turns["mcilib"], strict=True))
    result["ratios"] = {
        str(rate): {
            name: spread([ours["rates"][rate][name] / bare["rates"][rate][name] for bare, ours in pairs])
            for name in ("cpu_us_per_event", "wakeups_per_event", "x_server_cpu_us_per_event")
        }
        for rate in RATES_HZ
    }
    return result


def idle(display: VirtualDisplay, folder: Path, endpoint: str, seconds: float) -> dict[str, Any]:
    """Wake-ups and CPU while nobody touches anything, once the open batch is on disk.

    For half a minute after the last event the library still asks the X server whether it is alive; that time
    is waited for and counted on its own.
    """
    from mcilib import limits

    with running("mcilib", display, folder, endpoint, "--commit-every", "5s") as process:
        inject(display, 125, 1)
        settle(process.pid)
        watched_s = limits.WATCH_WINDOW_S + 2 * limits.WATCH_INTERVAL_S + 1
        remark(f"agent cost, idle: {watched_s:.0f} s until the batch is committed and the watch sleeps ...")
        before = cost(process.pid)
        time.sleep(watched_s)
        watch = cost(process.pid) - before
        remark(f"agent cost, idle: {seconds:.0f} s ...")
        before = cost(process.pid)
        time.sleep(seconds)
        still: Cost = cost(process.pid) - before
    return {
        "seconds": seconds,
        "wakeups": still.wakeups,
        "cpu_ms": still.cpu_s * 1e3,
        "first_seconds": watched_s,
        "first_wakeups": watch.wakeups,
        "first_cpu_ms": watch.cpu_s * 1e3,
    }


def timed(code: str, runs: int) -> dict[str, float]:
    """Milliseconds that some code takes in a fresh interpreter."""
    program = f"import time; t = time.perf_counter()\n{code}\nprint((time.perf_counter() - t) * 1e3)"
    return spread([float(subprocess.check_output([*PYTHON, "-c", program])) for _ in range(runs)])


IMPORTS = {
    "import mcilib": "import mcilib",
    "all names of a Collector": (
        "from mcilib import Collector, Grant, HttpTransport, KeyboardSource, PointerSource"
    ),
}

PARTS = (
    ("Python itself", "import threading, json, logging, pathlib, dataclasses, argparse"),
    ("python-xlib", "import Xlib.display"),
    ("msgpack and zstandard", "import msgpack, zstandard"),
    ("pyrage, where batches are sealed", "import pyrage"),
    ("jeepney, where there is a bus", "import jeepney"),
    ("mcilib", "import mcilib.cli._agent"),
    ("OpenSSL, with the first upload", "import hashlib, ssl; ssl.create_default_context()"),
    ("urllib3, with the first upload", "import urllib3"),
    ("tenacity, with the first upload", "import tenacity"),
    ("pynput, with that backend", "from pynput import mouse, keyboard"),
)


def parts(display: VirtualDisplay) -> list[dict[str, Any]]:
    """Where resident memory goes: what each import adds to a process that has all before it. Rough."""
    code = "import os\ndef pages(): return int(open('/proc/self/statm').read().split()[1])\n"
    code += "def mib(): return pages() * os.sysconf('SC_PAGE_SIZE') / 2**20\n"
    code += "".join(f"{line}\nprint(mib())\n" for _, line in PARTS)
    out = subprocess.check_output([*PYTHON, "-c", code], env=display.environ(), text=True)
    sizes = [0.0, *map(float, out.split())]
    return [
        {"part": name, "mib": round(after - before, 1)}
        for (name, _), before, after in zip(PARTS, sizes, sizes[1:], strict=False)
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="turns of each subject (default 12, quick 1)")
    parser.add_argument("--seconds", type=float, help="of input at each rate (default 4, quick 0.4)")
    parser.add_argument(
        "--idle", type=float, metavar="SECONDS", help="of silence (default 60; 0 and quick: none)"
    )
    args = parser.parse_args()
    rounds = args.rounds or (1 if args.quick else 12)
    seconds = args.seconds or (0.4 if args.quick else 4.0)
    idle_s = args.idle if args.idle is not None else (0.0 if args.quick else 60.0)
    with tempfile.TemporaryDirectory() as name, VirtualDisplay() as display:
        folder = Path(name)
        grant(folder / "state")
        with receiver(folder / "store") as endpoint:
            result = {
                "machine": machine(),
                "rounds": rounds,
                "seconds": seconds,
                "import_ms": {words: timed(code, 3 if args.quick else 15) for words, code in IMPORTS.items()},
                "python_start_ms": spread([python_start() for _ in range(3 if args.quick else 15)]),
                "memory_parts": parts(display),
                **compare(display, folder, endpoint, rounds, seconds),
            }
            if idle_s:
                result["idle"] = idle(display, folder, endpoint, idle_s)
    show(result, text(result), as_json=args.json)


def python_start() -> float:
    """Milliseconds of an interpreter that does nothing."""
    began_s = time.perf_counter()
    subprocess.run([*PYTHON, "-c", "pass"], check=True)
    return (time.perf_counter() - began_s) * 1e3


def text(result: dict[str, Any]) -> str:
    bare, ours = result["bare"], result["mcilib"]
    rows = []
    for rate, ratios in result["ratios"].items():
        for name, words, digits in (
            ("cpu_us_per_event", "CPU, us per event", 0),
            ("wakeups_per_event", "wake-ups per event", 2),
            ("wakeups_per_s", "wake-ups per second", 0),
            ("x_server_cpu_us_per_event", "X server's CPU, us per event", 0),
        ):
            ratio = shown(ratios[name], 2) if name in ratios else ""
            sides = [shown(side["rates"][rate][name], digits) for side in (bare, ours)]
            rows.append([f"{rate} Hz" if name == "cpu_us_per_event" else "", words, *sides, ratio])
    memory = ("rss", "resident, MiB"), ("private", "private, MiB")
    for name, words in memory:
        sides = [shown(side["memory_mib"][name]) for side in (bare, ours)]
        ratio = ours["memory_mib"][name]["median"] / bare["memory_mib"][name]["median"]
        rows.append(["memory" if name == "rss" else "", words, *sides, f"{ratio:.2f}"])
    sides = [shown(side["start_s"], 2) for side in (bare, ours)]
    rows.append(
        ["start", "s until capturing", *sides, f"{ours['start_s']['median'] / bare['start_s']['median']:.2f}"]
    )
    lines = [table(["", "", "bare listener", "mcilib run", "ratio"], rows), ""]
    imports = [[words, shown(figure)] for words, figure in result["import_ms"].items()]
    imports.append(["an interpreter that does nothing", shown(result["python_start_ms"])])
    lines += [table(["import", "ms"], imports), ""]
    lines += [parts_text(result["memory_parts"])]
    if "idle" in result:
        lines += ["", idle_text(result["idle"])]
    return "\n".join(lines)


def parts_text(parts: list[dict[str, Any]]) -> str:
    return table(["resident memory, added by", "MiB"], [[p["part"], f"{p['mib']:.1f}"] for p in parts])


def idle_text(still: dict[str, Any]) -> str:
    rows = [
        [
            f"{still['first_seconds']:.0f} s after the last event",
            f"{still['first_wakeups']}",
            f"{still['first_cpu_ms']:.1f}",
        ],
        [f"{still['seconds']:.0f} s after that", f"{still['wakeups']}", f"{still['cpu_ms']:.1f}"],
    ]
    return table(["idle, all threads", "wake-ups", "CPU, ms"], rows)


if __name__ == "__main__":
    main()
