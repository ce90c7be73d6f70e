"""What holding each event to the consent gate costs: microseconds of CPU per event on its way into a batch.

The same events go through the batcher as it is, and through one whose checks were cut out of its source, so that it
admits everything without looking. The two take turns, several times; given are medians of the differences and of the
ratios of neighbouring rounds. Events come in portions of 1,000, as the recorder's buffer hands them over, and are made
before the clock runs, 20 portions at a time: in a buffer they have left the processor's cache, too.

Moves, moves that are thinned within 8 px, and presses, releases and keys are measured; then each of these with a scope
barred (the others go on), and with a program exempt, so that events wait until it is known which was in use. There the
other side has neither checks nor guard.
"""

from __future__ import annotations

import gc
import inspect
import statistics
import textwrap
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from rig import arguments, machine, show, table

import mcilib.batching
import mcilib.sampler
from mcilib.batching import Batcher
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate
from mcilib.consent.pause import Now
from mcilib.events import Event, Focus, KeyPress, KeyRelease, Move, Press, Release
from mcilib.guarding import Guarding
from mcilib.policy.plan import Motion, Plan
from mcilib.sampler import ThinnedBatch
from mcilib.testing.fakes import ManualClock, example_grant

AIM_US = 0.15
PORTION = 1_000
MS = 1_000_000

CHECKS = {
    Batcher._take: """
            from_ns, until_ns = self._windows.get(event.kind, NEVER)
            if not from_ns <= event.t_ns < until_ns:
                self._set_aside("excluded", event_count(event))
                if isinstance(event, _STATES) and event.t_ns < from_ns and event.kind in self._windows:
                    self._learn(event, is_told=False)
                return
            if self._untold and type(event) not in _NO_INPUT:
                self._tell_again(event)
                batch = self.open if self.open is not None else self._begin(event.t_ns)
            if type(event) is Focus:
                self.focus = int(event.t_ns), event.app
                event = self._gate.cut(event)
""",
    ThinnedBatch.take_moves: """
                if not from_ns <= t_ns < until_ns:
                    break
""",
}


def without(check: Callable[..., Any], module: Any) -> Callable[..., Any]:
    """A method without its check."""
    source = inspect.getsource(check)
    lines = CHECKS[check].lstrip("\n")
    if source.count(lines) != 1:
        raise SystemExit(f"{check.__qualname__} is not what it was: mend CHECKS here")
    scope = dict(vars(module))
    exec(textwrap.dedent(source.replace(lines, "")), scope)
    made: Callable[..., Any] = scope[check.__name__]
    return made


class Unchecked(Batcher):
    """Admits all that it is given."""

    _take = without(Batcher._take, mcilib.batching)


class UncheckedThinned(ThinnedBatch):
    __slots__ = ()
    take_moves = without(ThinnedBatch.take_moves, mcilib.sampler)


def gate_of(bars: str) -> tuple[Gate, ManualClock]:
    clock = ManualClock(wall_ns=time.time_ns())
    scope = {"scope": ExemptScope(scopes=("titles",)), "program": ExemptScope(apps=("keepassxc",))}.get(bars)
    gate = Gate(example_grant("keys", "pointer", "titles"))
    exemptions = () if scope is None else (Exemption("e" * 32, scope, "personal", "", clock.wall_ns()),)
    gate.apply(Now.by(clock, ""), state=ControlState(exemptions=exemptions))
    return gate, clock


def events_of(kind: str, at_ns: int) -> list[Event]:
    """A portion, from `at_ns` on, one in each millisecond."""
    if kind == "clicks and keys":
        four = (
            lambda t, n: Press(t, n, n, "left"),
            lambda t, n: Release(t, n, n, "left"),
            lambda t, n: KeyPress(t, "letter"),
            lambda t, n: KeyRelease(t, "letter"),
        )
        return [four[n % 4](at_ns + n * MS, n % 1_900) for n in range(PORTION)]
    return [Move(at_ns + n * MS, n % 1_900, n * 7 % 1_000) for n in range(PORTION)]


class Way:
    """From the buffer into batches, which are thrown away."""

    def __init__(self, kind: str, bars: str, *, checked: bool) -> None:
        self.gate, self.clock = gate_of(bars)
        self.kind = kind
        sizes: dict[str, Any] = {
            "max_events": 5_000, "max_bytes": 2**20, "max_age_s": 60.0, "quanta_per_px": 1,
        }  # fmt: skip
        self.batcher = (Batcher if checked else Unchecked)(self.gate, self.clock, lambda *_: None, **sizes)
        if kind == "thinned moves":
            self.batcher.adopt(Plan(motion=Motion.THINNED, tolerance_px=8.0))
            if not checked:
                made: Any = self.batcher._new_batch
                self.batcher._new_batch = partial(UncheckedThinned, **made.keywords)
        self.take: Callable[[deque[Event]], None] = self.batcher.take
        if checked:
            guarding = Guarding(self.gate, self.batcher, self.clock, lambda *_: None, ["window"])
            self.take = guarding.take
        self.take(deque([Focus(self.clock.monotonic_ns(), "editor")]))
        self.clock.advance(10)

    def round_us(self, portions: int) -> float:
        """Of CPU, per event."""
        clock, take, batcher = self.clock, self.take, self.batcher
        spent_ns, at_ns = 0, clock.monotonic_ns()
        lots = [deque(events_of(self.kind, at_ns + n * PORTION * MS)) for n in range(portions)]
        gc.collect()
        for waiting in lots:
            clock.advance(PORTION / 1_000)
            began_ns = time.process_time_ns()
            take(waiting)
            spent_ns += time.process_time_ns() - began_ns
            batcher.closed.clear()
        return spent_ns / portions / PORTION / 1e3


def measure(kind: str, bars: str, rounds: int, portions: int) -> dict[str, Any]:
    ways = Way(kind, bars, checked=True), Way(kind, bars, checked=False)
    for way in ways:
        way.round_us(portions)
    pairs = []
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        took = {which: ways[which].round_us(portions) for which in order}
        pairs.append((took[0], took[1]))
    return {
        "kind": kind,
        "bars": bars,
        "checked_us": round(statistics.median(checked for checked, _ in pairs), 3),
        "unchecked_us": round(statistics.median(bare for _, bare in pairs), 3),
        "gate_us": round(statistics.median(checked - bare for checked, bare in pairs), 3),
        "ratio": round(statistics.median(checked / bare for checked, bare in pairs), 3),
    }


def text(results: list[dict[str, Any]]) -> str:
    words = {"": "nothing barred", "scope": "a scope barred", "program": "a program exempt"}
    return table(
        ["events", "", "with the gate, us", "without, us", "the gate, us per event", "ratio", "aim"],
        [
            [
                r["kind"],
                words[r["bars"]],
                f"{r['checked_us']:.3f}",
                f"{r['unchecked_us']:.3f}",
                f"{r['gate_us']:.3f}",
                f"{r['ratio']:.2f}",
                f"{AIM_US}",
            ]
            for r in results
        ],
    )


def main() -> None:
    args = arguments(__doc__).parse_args()
    rounds, portions = (3, 2) if args.quick else (41, 20)
    results = [
        measure(kind, bars, rounds, portions)
        for bars in ("", "scope", "program")
        for kind in ("moves", "thinned moves", "clicks and keys")
    ]
    show({"machine": machine(), "gate": results}, text(results), as_json=args.json)


if __name__ == "__main__":
    main()
