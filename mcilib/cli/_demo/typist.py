"""The demo's hands: a process that starts a virtual display of its own, and types and moves on it.

It can only inject into the X server that it started itself, never into a person's display. It is a process of
its own so that its work is not counted as the collector's. `python -P -m mcilib.cli._demo.typist SECONDS` talks
over its pipes, one JSON object per line:

    -> {"display": ":7"}              the server runs, nothing was injected yet (or {"problem", "next_step"})
    <- any line                       begin
    -> {"done": 0.4}                  a few times a second
    -> {"injected": {"move": 812}}    the end: events of the system by kind
    <- end of file, or SIGTERM        stop the server and end
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mcilib.errors import McilibError
from mcilib.sources._x11 import connect
from mcilib.testing.xvfb import VirtualDisplay

MOVES_PER_S = 125
"""An ordinary mouse."""

PROGRESS_EVERY_S = 0.1

_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "2024")
_SHORTCUTS = (("Control_L", "c"), ("Control_L", "v"), ("Control_L", "Shift_L", "t"), ("Alt_L", "Tab"))


@dataclass(frozen=True, slots=True)
class Step:
    """What is injected `at_s` seconds after the begin. `what` is a keysym, a button or a position."""

    at_s: float
    kind: str
    what: Any


def plan(seconds: float, seed: int = 1) -> list[Step]:
    """Glides, clicks, scrolling, words and shortcuts at a person's pace, the same for the same seed."""
    random_ = random.Random(seed)  # noqa: S311  # not for secrets
    steps: list[Step] = []
    at_s, x, y = 0.0, 640.0, 400.0
    for turn in range(10_000):
        for _ in range(2):
            to_x, to_y = random_.uniform(40, 1240), random_.uniform(40, 760)
            for part in _glide(random_.uniform(0.35, 0.6)):
                bow = 20 * math.sin(math.pi * part)
                spot = (round(x + (to_x - x) * part), round(y + (to_y - y) * part + bow))
                steps.append(Step(at_s, "move", spot))
                at_s += 1 / MOVES_PER_S
            x, y = to_x, to_y
        button = 1 if turn % 4 else 3
        steps += [Step(at_s + 0.05, "press", button), Step(at_s + 0.13, "release", button)]
        at_s += 0.15
        if turn % 2:
            steps += [Step(at_s + 0.02 * n, "scroll", (0, -1 if turn % 3 else 1)) for n in range(6)]
            at_s += 0.2
        for letter in _WORDS[turn % len(_WORDS)]:
            steps += [Step(at_s, "key_press", letter), Step(at_s + 0.05, "key_release", letter)]
            at_s += random_.uniform(0.055, 0.09)
        steps += [Step(at_s, "key_press", "space"), Step(at_s + 0.05, "key_release", "space")]
        at_s += 0.08
        keys = _SHORTCUTS[turn % len(_SHORTCUTS)]
        for n, key in enumerate(keys):
            steps.append(Step(at_s + 0.03 * n, "key_press", key))
            steps.append(Step(at_s + 0.03 * (2 * len(keys) - n), "key_release", key))
        at_s += 0.06 * len(keys) + 0.1
        if at_s >= seconds:
            break
    return sorted(steps, key=lambda step: step.at_s)


def _glide(seconds: float) -> Iterator[float]:
    """How far along a movement of the hand is, sample by sample: slow, fast, slow (minimum jerk)."""
    samples = max(2, round(seconds * MOVES_PER_S))
    for n in range(1, samples + 1):
        part = n / samples
        yield part**3 * (10 - 15 * part + 6 * part**2)


def perform(display: VirtualDisplay, steps: list[Step], progress: Callable[[float], None]) -> Counter[str]:
    """Injects `steps` at their times; what was injected, by kind. Tells now and then how much is done."""
    injected: Counter[str] = Counter()
    codes = {step.what: display.keycode(step.what) for step in steps if step.kind.startswith("key_")}
    spot: tuple[int, int] | None = None
    began_s = told_s = time.monotonic()
    for number, step in enumerate(steps):
        ahead_s = began_s + step.at_s - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        if step.kind == "move":
            if step.what == spot:  # the server makes no event of it
                continue
            spot = step.what
            display.move(*step.what)
        elif step.kind == "scroll":
            display.scroll(*step.what)
        elif step.kind in ("press", "release"):
            display.button(step.what, step.kind == "press")
        else:
            display.key(codes[step.what], step.kind == "key_press")
        injected[step.kind] += 1
        if number % 20 == 0:
            display.sync()  # a machine that fell behind must not make it a burst
        if time.monotonic() - told_s >= PROGRESS_EVERY_S:
            told_s = time.monotonic()
            progress(number / len(steps))
    display.sync()
    progress(1.0)
    return injected


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def main(seconds: float) -> int:
    """The process: see the module."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # its owner ends it
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        with VirtualDisplay() as display:
            # A key that is held up by a busy machine would repeat by itself.
            control = connect(display.display)
            control.change_keyboard_control(auto_repeat_mode=0)
            control.sync()
            display.move(8, 8)
            display.sync()
            _tell(display=display.display)
            if sys.stdin.readline():
                injected = perform(display, plan(seconds), lambda done: _tell(done=round(done, 3)))
                _tell(injected=dict(injected))
                sys.stdin.readline()
            control.close()
    except McilibError as error:
        _tell(problem=error.problem, next_step=error.next_step)
        return error.exit_code
    except BrokenPipeError:  # the owner has gone
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
