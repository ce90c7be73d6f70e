"""Is everything that was injected also received? Real input, real agent, real receiver, real disk.

Injects pointer moves at 1,000/s, clicks, scrolling and keys through XTEST into a real X server (Xvfb) and
compares what a receiver's store holds with it: counts by kind, order, positions, buttons, keys. Three times:

  plain           `mcilib run` and `mcilib receive`
  receiver down   the receiver starts only when half is injected
  killed          an agent that embeds mcilib is killed (SIGKILL) after a flush, twice, and started again:
                  once while its batches wait on disk, once after they were delivered

Ends with 1 when anything differs; never because of time. Needs Linux and Xvfb.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rig import (
    MCILIB,
    Process,
    agent,
    arguments,
    free_port,
    grant,
    receiver,
    remark,
    settle,
    show,
    steady_display,
    table,
)

from mcilib import Reader
from mcilib.events import (
    Display,
    Focus,
    KeyPress,
    KeyRelease,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
    event_count,
)
from mcilib.testing.xvfb import VirtualDisplay

MOVES, CLICKS, SCROLLS, KEYS = 10_000, 500, 500, 2_000
SLOT_S = 0.001
"""One move each: 1,000 a second. Unpaced bursts make the X server's RECORD extension itself drop events."""

BUTTONS = {1: "left", 2: "middle", 3: "right", 8: "back", 9: "forward"}
SCROLL_BURST = 5
"""Steps in a row, so that the recorder folds them into one row with a count."""

KINDS = ("move", "press", "release", "scroll", "key_press", "key_release")

Seen = tuple[Any, ...]
"""What must be the same of an event: all but its time."""


def due(number: int, of: int, total: int) -> int:
    """How many of `total` fall to this one of `of` when they are spread evenly."""
    return (number + 1) * total // of - number * total // of


@dataclass
class Script:
    """What is injected: actions in order, some of them in the same millisecond."""

    slots: list[list[tuple[Any, ...]]] = field(default_factory=list)

    @classmethod
    def make(cls, share: float = 1.0) -> Script:
        """`share` of the full number of events."""
        moves, clicks, scrolls, keys = (int(n * share) for n in (MOVES, CLICKS, SCROLLS, KEYS))
        slots: list[list[tuple[Any, ...]]] = []
        names = [*"the5quick7brown", "space"]
        for n in range(moves):
            slots.append([("move", 100 + (n * 7) % 1000, 100 + (n * 3) % 601)])  # never twice the same pixel
            for k in range(due(n, moves, clicks)):
                button = list(BUTTONS)[(n + k) % len(BUTTONS)]
                slots += [[("button", button, True)], [("button", button, False)]]
            for k in range(due(n, moves, scrolls // SCROLL_BURST)):
                way = ((0, 1), (0, -1), (1, 0), (-1, 0))[(n // 7 + k) % 4]
                slots += [[("scroll", *way)] for _ in range(SCROLL_BURST)]
        taps, at = 0, 0
        while taps < keys:
            place = at * len(slots) // keys
            if taps % 20 == 18:  # a shortcut: two presses
                combo: list[tuple[Any, ...]] = [("key", "Control_L", True), ("key", "c", True)]
                combo += [("key", "c", False), ("key", "Control_L", False)]
                slots[place] += combo
                taps, at = taps + 2, at + 2
            else:
                name = names[taps % len(names)]
                slots[place] += [("key", name, True), ("key", name, False)]
                taps, at = taps + 1, at + 1
        return cls(slots)

    def parts(self, count: int) -> list[Script]:
        """The same, in `count` pieces."""
        cuts = [len(self.slots) * n // count for n in range(count + 1)]
        return [Script(self.slots[a:b]) for a, b in pairwise(cuts)]

    def expected(self) -> tuple[list[Seen], list[Seen]]:
        """What the pointer and the keyboard must say, in order."""
        pointer: list[Seen] = []
        keyboard: list[Seen] = []
        x = y = 0
        ctrl = False
        held: dict[str, str] = {}
        for kind, *what in (action for slot in self.slots for action in slot):
            if kind == "move":
                x, y = what
                pointer.append(("move", x, y))
            elif kind == "button":
                pointer.append(("press" if what[1] else "release", x, y, BUTTONS[what[0]]))
            elif kind == "scroll":
                pointer.append(("scroll", x, y, *what))
            else:
                name, down = what
                if name == "Control_L":
                    label, ctrl = "modifier", down
                elif down:
                    plain = "space" if name == "space" else "digit" if name.isdigit() else "letter"
                    label = held[name] = f"ctrl+{name}" if ctrl else plain
                else:
                    label = held.pop(name)
                keyboard.append(("key_press" if down else "key_release", label))
        return pointer, keyboard


def inject(display: VirtualDisplay, script: Script) -> None:
    """In real time, a slot each millisecond."""
    codes = {a[1]: display.keycode(a[1]) for slot in script.slots for a in slot if a[0] == "key"}
    began_s = time.monotonic()
    for number, slot in enumerate(script.slots):
        ahead_s = began_s + number * SLOT_S - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        for kind, *what in slot:
            if kind == "move":
                display.move(*what)
            elif kind == "button":
                display.button(*what)
            elif kind == "scroll":
                display.scroll(*what)
            else:
                display.key(codes[what[0]], what[1])
        if number % 10 == 9:
            display.sync()  # one that fell behind catches up, but not in one burst
    display.sync()


# --- what was received --------------------------------------------------------------------------------------


def received(store: Path) -> tuple[list[Seen], list[Seen], dict[str, int]]:
    """What the pointer and the keyboard said, folded scrolls unfolded; and how many rows there are by kind."""
    pointer: list[Seen] = []
    keyboard: list[Seen] = []
    rows: dict[str, int] = {}
    for event in Reader(store).events():
        rows[event.kind] = rows.get(event.kind, 0) + 1
        match event:
            case Move():
                pointer.append(("move", event.x, event.y))
            case Press() | Release():
                pointer.append((event.kind, event.x, event.y, event.button))
            case Scroll():
                one = ("scroll", event.x, event.y, event.dx / event.count, event.dy / event.count)
                pointer += [one] * event_count(event)
            case KeyPress() | KeyRelease():
                keyboard.append((event.kind, event.key))
            case Display() | Layout() | Focus():
                pass  # how things are, which nobody injects; `rows` has them
            case _:
                pointer.append((event.kind,))
    return pointer, keyboard, rows


def compare(injected: Sequence[Seen], got: Sequence[Seen]) -> list[str]:
    """What differs, in words; empty when nothing does."""
    found = []
    for kind in sorted({seen[0] for seen in (*injected, *got)}):
        counts = [sum(seen[0] == kind for seen in side) for side in (injected, got)]
        if counts[0] != counts[1]:
            found.append(f"{kind}: injected {counts[0]:,}, received {counts[1]:,}")
    for place, (a, b) in enumerate(zip(injected, got, strict=False)):
        if a != b:
            found.append(f"number {place:,}: injected {a}, received {b}")
            break
    return found


# --- scenarios ----------------------------------------------------------------------------------------------


OFTEN = ("--commit-every", "2s", "--upload-every", "1s")
"""So that a run of seconds makes many batches and uploads."""


def drain(state: Path, endpoint: str) -> None:
    command = [*MCILIB, "run", "--state", str(state), "--endpoint", endpoint, "--drain"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def plain(virtual: VirtualDisplay, script: Script, folder: Path) -> None:
    """`mcilib run` all the while, then what is left is uploaded."""
    state = folder / "state"
    grant(state)
    with receiver(folder / "store") as endpoint:
        with agent(state, endpoint, virtual.environ(), *OFTEN) as run:
            inject(virtual, script)
            settle(run.pid)
            if code := run.end():
                raise SystemExit(f"mcilib run ended with {code}")
        drain(state, endpoint)


def receiver_down(virtual: VirtualDisplay, script: Script, folder: Path) -> None:
    """No receiver until half is injected."""
    state, port = folder / "state", free_port()
    grant(state)
    first, second = script.parts(2)
    endpoint = f"http://127.0.0.1:{port}"
    with agent(state, endpoint, virtual.environ(), *OFTEN) as run:
        inject(virtual, first)
        with receiver(folder / "store", port):
            inject(virtual, second)
            settle(run.pid)
            if code := run.end():
                raise SystemExit(f"mcilib run ended with {code}")
            drain(state, endpoint)


def killed(virtual: VirtualDisplay, script: Script, folder: Path) -> None:
    """An agent of one's own: killed while batches wait on disk, and again when they are delivered."""
    state, port = folder / "state", free_port()
    grant(state)
    first, second, third = script.parts(3)
    command = [sys.executable, __file__, "--agent", str(state), f"http://127.0.0.1:{port}"]

    def life(part: Script, answer: str, end: int) -> None:
        with Process(command, env=virtual.environ()) as own:
            own.line("collecting")
            inject(virtual, part)
            settle(own.pid)
            own.tell("flush")
            own.line(answer)
            own.end(end)

    life(first, "committed", signal.SIGKILL)
    with receiver(folder / "store", port):
        life(second, "delivered", signal.SIGKILL)
        life(third, "delivered", signal.SIGTERM)


SCENARIOS: dict[str, Callable[[VirtualDisplay, Script, Path], None]] = {
    "plain": plain,
    "receiver down": receiver_down,
    "killed": killed,
}


def embedded_agent(state: str, endpoint: str) -> None:
    """The agent of `killed`: collects, and flushes for each line on stdin."""
    from mcilib import Collector, Grant, HttpTransport, KeyboardSource, PointerSource

    with Collector(
        sources=[PointerSource(), KeyboardSource()],
        grant=Grant.load(state),
        state_dir=state,
        transport=HttpTransport(endpoint),
    ) as collector:
        print("collecting", flush=True)
        for _ in sys.stdin:
            done = collector.flush()
            word = "delivered" if done.delivered else "committed" if done.committed else "neither"
            print(word, flush=True)


def measure(name: str, script: Script) -> dict[str, Any]:
    """One scenario: injected, received, and what differs."""
    pointer, keyboard = script.expected()
    with tempfile.TemporaryDirectory() as folder, steady_display() as virtual:
        SCENARIOS[name](virtual, script, Path(folder))
        got_pointer, got_keyboard, rows = received(Path(folder) / "store")
        batches = len(Reader(Path(folder) / "store").batch_ids())
    both, got = [*pointer, *keyboard], [*got_pointer, *got_keyboard]
    return {
        "injected": {kind: sum(seen[0] == kind for seen in both) for kind in KINDS},
        "received": {kind: sum(seen[0] == kind for seen in got) for kind in KINDS},
        "rows": rows,
        "batches": batches,
        "differences": compare(pointer, got_pointer) + compare(keyboard, got_keyboard),
    }


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument(
        "--scenario", choices=SCENARIOS, action="append", help="only this one (may be given again)"
    )
    args = parser.parse_args()
    script = Script.make(0.1 if args.quick else 1.0)
    results = {}
    for name in args.scenario or SCENARIOS:
        remark(f"end to end, {name} ...")
        results[name] = measure(name, script)
    show({"scenarios": results}, text(results), as_json=args.json)
    return 1 if any(result["differences"] for result in results.values()) else 0


def text(results: dict[str, Any]) -> str:
    rows = []
    for name, result in results.items():
        verdict = "same" if not result["differences"] else "DIFFERENT"
        for n, kind in enumerate(KINDS):
            numbers = [f"{result[side].get(kind, 0):,}" for side in ("injected", "received", "rows")]
            rows.append([name if n == 0 else "", kind, *numbers, verdict if n == 0 else ""])
    lines = [
        table(["scenario", "kind", "injected", "received", "rows", "order, positions, buttons, keys"], rows)
    ]
    lines += [f"{name}: {line}" for name, result in results.items() for line in result["differences"]]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        embedded_agent(*sys.argv[2:4])
    else:
        sys.exit(main())
