"""A world in which a participant decides, clocks are stepped, machines sleep and events are told late; and an oracle.

`World` knows, at each moment, what is allowed: written plainly from what the words of each control promise, and sharing
nothing with `mcilib.consent` but the scopes' names. `Run` drives the real gate and the real batcher through the same
schedule and compares the batches with it.

Of wall time nobody knows more than looks at it: so between two looks the wall clock is stepped, or the machine sleeps,
once at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from typing import Any

from mcilib.batching import Batcher
from mcilib.consent import Exemption, ExemptionState, ExemptScope, Gate, Pause
from mcilib.consent.pause import Now
from mcilib.consent.state import ControlState, Withdrawal
from mcilib.events import Display, Event, Focus, KeyPress, Layout, Move, Press
from mcilib.format.batch import decode
from mcilib.guarding import Guarding
from mcilib.policy.plan import Motion, Plan
from mcilib.testing.fakes import ManualClock, example_grant

MS, S = 1_000_000, 1_000_000_000
MONDAY_NOON_NS = 1_750_075_200 * S  # 2025-06-16 12:00 UTC
BOOT = "b0" * 8

HOURS: dict[str, Callable[[datetime], bool]] = {
    "12:30-13:00": lambda at: at.hour == 12 and at.minute >= 30,
    "mon-fri 14:00-15:00": lambda at: at.weekday() < 5 and at.hour == 14,
    "22:00-07:00": lambda at: at.hour >= 22 or at.hour < 7,
    "03:30-04:00": lambda at: at.hour == 3 and at.minute >= 30,
    "tue 00:00-24:00": lambda at: at.weekday() == 1,
    "12:01-12:03": lambda at: at.hour == 12 and at.minute in (1, 2),
    "12:10-12:20": lambda at: at.hour == 12 and 10 <= at.minute < 20,
}
MAKE: dict[str, Callable[[int, int], Event]] = {
    "move": lambda t, n: Move(t, n, 1),
    "press": lambda t, n: Press(t, n, 2, "left"),
    "display": lambda t, n: Display(t, 0, 0, 0, 640 + n, 480),
    "key_press": lambda t, n: KeyPress(t, None),
    "layout": lambda t, n: Layout(t, f"us({n})"),
    "focus": lambda t, n: Focus(t, f"open{n}", f"title {n}"),
    "secret": lambda t, n: Focus(t, f"secret{n}", f"title {n}"),
}
THINGS = ("move", "press", "display", "key_press", "layout", "focus", "title")


class World:
    """The truth."""

    def __init__(self, tz: tzinfo) -> None:
        self.tz = tz
        self.running_ns, self.slept_ns, self.wall_ns = 1_000 * S, 0, MONDAY_NOON_NS
        self.granted: set[str] = {"pointer", "keys", "titles"}
        self.expires_ns: int | None = None
        self.pause_ends_ns: int | None = None  # in time awake and asleep
        self.asked = self.withdrawn = False
        self.exempt: dict[str, tuple[str, Any, int | None]] = {}  # id -> kind, what, until
        self.app = ""  # in use; empty: nobody has told

    def allows(self, thing: str) -> bool:
        if self.withdrawn or self.asked:
            return False
        if self.expires_ns is not None and self.wall_ns >= self.expires_ns:
            return False
        if self.pause_ends_ns is not None and self.running_ns + self.slept_ns < self.pause_ends_ns:
            return False
        off = set[str]()
        for kind, what, until_ns in self.exempt.values():
            if until_ns is not None and self.wall_ns >= until_ns:
                continue
            if kind == "everything" or (kind == "apps" and not self.app.startswith("open")):
                return False
            if kind == "hours" and HOURS[what](
                datetime.fromtimestamp(self.wall_ns // S, UTC).astimezone(self.tz)
            ):
                return False
            if kind == "scopes":
                off |= set(what)
        if thing in ("move", "press", "display"):
            return "pointer" in self.granted - off
        if thing in ("key_press", "layout"):
            return "keys" in self.granted - off
        if thing == "focus":
            return bool(self.granted & {"apps", "titles"}) and "apps" not in off
        return "titles" in self.granted and not off & {"apps", "titles"}


class Clock(ManualClock):
    """Moved by hand; but no two looks see the same nanosecond."""

    looks = 0

    def set(self, running_ns: int, slept_ns: int, wall_ns: int) -> None:
        self._monotonic_ns, self._suspended_ns, self._wall_ns, self.looks = running_ns, slept_ns, wall_ns, 0

    def monotonic_ns(self) -> int:
        self.looks += 1
        return self._monotonic_ns + self.looks

    def wall_ns(self) -> int:
        return self._wall_ns + self.looks


@dataclass
class Happened:
    event: Event
    allowed: dict[str, bool]
    """Thing -> whether it was, when it happened."""
    must: set[str]
    """Things that have to be recorded."""
    place: str = "flight"
    """`flight` (nobody was told), `buffer`, `taken` or `stored`."""
    forgotten: bool = False


@dataclass
class Run:
    """One schedule, carried out step by step. Raises `AssertionError` when a record is where it must not be."""

    tz: tzinfo
    motion: Motion = Motion.FULL
    clock: Clock = field(default_factory=lambda: Clock(1_000 * S, MONDAY_NOON_NS))

    def __post_init__(self) -> None:
        self.world = World(self.tz)
        self.state = ControlState()
        grant = example_grant(*self.world.granted)
        self.gate = Gate(grant, self.state, tz=self.tz)
        self.batcher = Batcher(
            self.gate, self.clock, lambda cause, count: None,
            max_events=1_000, max_bytes=10**6, max_age_s=60.0, quanta_per_px=1,
        )  # fmt: skip
        self.guarding = Guarding(self.gate, self.batcher, self.clock, lambda cause, count: None, ["window"])
        self.batcher.adopt(Plan(motion=self.motion, tolerance_px=4.0))
        self.guarded = False  # what is near a program that is exempt is left out too
        self.log: list[tuple[int, dict[str, bool]]] = []  # since when what is allowed
        self.queues: tuple[deque[Happened], ...] = (deque(), deque())
        self.told: deque[Happened] = deque()
        self.buffer: deque[Event] = deque()
        self.all: dict[int, Happened] = {}
        self.recorded: set[tuple[int, str]] = set()
        self.was = {thing: self.world.allows(thing) for thing in THINGS}
        self.log.append((0, dict(self.was)))
        self.known_open: set[str] = set()
        self.unseen_step = self.slept = False
        self.look()

    # --- time ----------------------------------------------------------------------------------------------

    def now(self) -> Now:
        return Now.by(self.clock, BOOT)

    def _move(self, running_ns: int = 0, slept_ns: int = 0, stepped_ns: int = 0) -> None:
        world = self.world
        world.running_ns += running_ns
        world.slept_ns += slept_ns
        world.wall_ns = max(0, world.wall_ns + running_ns + slept_ns + stepped_ns)
        self.clock.set(world.running_ns, world.slept_ns, world.wall_ns)
        self._note_changes()

    def passes(self, ms: int) -> None:
        left_ns = ms * MS
        while left_ns:  # no interval of the world is jumped over
            world = self.world
            walls = [world.expires_ns, *(until_ns for *_, until_ns in world.exempt.values())]
            edges = [wall_ns - world.wall_ns for wall_ns in walls if wall_ns is not None]
            if world.pause_ends_ns is not None:
                edges.append(world.pause_ends_ns - world.running_ns - world.slept_ns)
            to_the_minute_ns = 60 * S - world.wall_ns % (60 * S)
            piece_ns = min([left_ns, to_the_minute_ns, *(edge_ns for edge_ns in edges if edge_ns > 0)])
            self._move(running_ns=piece_ns)
            left_ns -= piece_ns

    def step(self, seconds: int) -> None:
        self._one_step()
        self._move(stepped_ns=seconds * S)
        self.passes(1)

    def sleep(self, seconds: int) -> None:
        self._one_step()
        self._move(slept_ns=seconds * S)
        self.slept = True
        self.passes(1)

    def _one_step(self) -> None:
        if self.unseen_step:
            self.look()
        self.unseen_step = True
        self._excuse(lambda one: one.place in ("flight", "buffer"))

    # --- events --------------------------------------------------------------------------------------------

    def event(self, kind: str, queue: int) -> None:
        self.passes(1)
        event = MAKE[kind](self.world.running_ns, len(self.all))
        things = [kind]
        if isinstance(event, Focus):
            things, self.world.app = ["focus", "title"], str(event.app)
            self._note_changes()
        allowed = {thing: self.world.allows(thing) for thing in things}
        certain = (
            not (self.unseen_step or self.guarded) and self.tz is UTC
        )  # where local time steps, more is left out
        must = {thing for thing in things if certain and allowed[thing] and thing in self.known_open}
        if self.motion is not Motion.FULL:
            must -= {"move"}
        one = self.all[event.t_ns] = Happened(event, allowed, must)
        self.queues[queue].append(one)
        if isinstance(event, Focus):  # of another window is told soon, see `limits.FOCUS_TOLD_S`
            self.tell(queue, len(self.queues[queue]))

    def heard(self, kind: str) -> None:
        """Told at once."""
        self.event(kind, 0)
        if self.queues[0] and self.queues[0][-1] is self.all[max(self.all)]:
            self.queues[1].appendleft(self.queues[0].pop())
            self.tell(1, 1)

    def tell(self, queue: int, count: int) -> None:
        for _ in range(min(count, len(self.queues[queue]))):
            one = self.queues[queue].popleft()
            one.place = "buffer"
            self.told.append(one)
            self.buffer.append(one.event)

    def take(self) -> None:
        if self.slept and any(
            k == "hours" or until_ns is not None for k, _, until_ns in self.world.exempt.values()
        ):
            self._excuse(
                lambda one: one.place == "buffer"
            )  # which of them is from before the sleep is a guess
        self.slept &= not self.buffer
        self.guarding.take(self.buffer)
        for one in self.told:
            one.place = "taken"
        self.told.clear()
        self._store()

    def close(self) -> None:
        self.batcher.close()
        self._store()

    def _store(self) -> None:
        """Checks what the batches say against the truth."""
        while self.batcher.closed:
            sealed = self.batcher.closed.popleft().seal(
                sequence=1, grant=self.gate.grant, boot=BOOT, clocks={}, recipients=()
            )
            for event in decode(sealed.data).events:
                if event.kind == "gap":
                    continue
                one, allowed = self._of(event)
                assert not (one.forgotten and one.event.t_ns == event.t_ns), f"{event} was forgotten"
                things = [event.kind, *(["title"] if isinstance(event, Focus) and event.title else [])]
                for thing in things:
                    assert allowed[thing], f"{thing} of {event} was not allowed when it happened"
                    self.recorded.add((event.t_ns, thing))
        if self.batcher.open is None:
            for one in self.all.values():
                one.place = "stored" if one.place == "taken" else one.place

    def _of(self, event: Event) -> tuple[Happened, dict[str, bool]]:
        """What it was, and what was allowed at the time that it says. What is true of windows, displays and the layout is
        told again: when a program that is exempt is left, with that time, and after it was lost or excluded for its time,
        with that of the next input."""
        one = self.all.get(event.t_ns)
        if one is not None and one.event.kind == event.kind:
            return one, one.allowed
        assert isinstance(event, (Focus, Display, Layout)), f"{event} never happened"
        (one,) = (h for h in self.all.values() if _named(h.event) == _named(event))
        assert one.event.t_ns < event.t_ns, f"{event} had not happened yet"
        allowed = next(allowed for since_ns, allowed in reversed(self.log) if since_ns <= event.t_ns)
        return one, allowed

    # --- decisions -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """As a collector does when something is due."""
        self.gate.apply(self.now(), grant=self.gate.grant, state=self.state)
        self.unseen_step = False
        self.known_open = {thing for thing in THINGS if self.world.allows(thing)}

    def settle(self) -> None:
        self.take()
        self.gate.shut()

    def _decided(self, promptly: bool, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self._note_changes()
        self.look()
        if promptly:
            self.settle()

    def pause(self, seconds: int, promptly: bool) -> None:
        self.passes(1)
        self.world.pause_ends_ns = self.world.running_ns + self.world.slept_ns + seconds * S
        self._decided(promptly, pause=Pause(self.now(), seconds * S))

    def resume(self, promptly: bool) -> None:
        self.passes(1)
        self.world.pause_ends_ns = None
        self._decided(promptly, pause=None)

    def ask(self, asked: bool, promptly: bool) -> None:
        self.passes(1)
        self.world.asked = asked
        self._decided(promptly, asked="Do you agree?" if asked else "")

    def exempt(self, kind: str, what: Any, lasts_s: int | None, promptly: bool) -> None:
        self.passes(1)
        if kind == "apps":
            self.guarded = True
            self._excuse(lambda one: one.place != "stored")
        name = f"{len(self.state.exemptions):032x}"
        until_ns = None if lasts_s is None else self.world.wall_ns + lasts_s * S
        scope = ExemptScope(everything=True)
        if kind != "everything":
            parts: dict[str, Any] = {kind: tuple(what) if kind == "scopes" else (what,)}
            scope = ExemptScope(**parts)
        self.world.exempt[name] = (kind, what, until_ns)
        made = Exemption(name, scope, "other", "", self.world.wall_ns, until_ns)
        self._decided(promptly, exemptions=(*self.state.exemptions, made))

    def decide(self, number: int, state: ExemptionState, promptly: bool) -> None:
        """By the operator or the participant."""
        self.passes(1)
        found = self.state.exemptions
        if not found:
            return
        one = found[number % len(found)]
        if not one.state.bars:
            return
        if state is not ExemptionState.APPROVED:
            del self.world.exempt[one.exemption_id]
        self._decided(promptly, exemptions=tuple(replace(e, state=state) if e is one else e for e in found))

    def grant(self, scopes: frozenset[str], lasts_s: int | None) -> None:
        """Given anew. What is narrower takes away what is in memory."""
        self.passes(1)
        wider = scopes >= self.world.granted
        self.world.granted = set(scopes)
        self.world.expires_ns = None if lasts_s is None else (self.world.wall_ns // S + lasts_s) * S
        if wider:
            self.close()
        new = example_grant(*scopes, earlier=self.gate.grant)
        if self.world.expires_ns is not None:
            expires = datetime.fromtimestamp(self.world.expires_ns // S, UTC)
            new = replace(new, expires_at=expires.isoformat())
        self._note_changes()
        self.gate.apply(self.now(), grant=new)
        self.look()
        if not wider:
            self.forget()

    def withdraw(self) -> None:
        self.passes(1)
        self.world.withdrawn = True
        self._decided(False, withdrawal=Withdrawal("a" * 32, "d" * 32, 1, ""))
        self.forget()

    def forget(self) -> None:
        """What is in memory, and whatever is told later of the time before."""
        self.passes(1)
        self.gate.restart(self.now())
        self.guarding.take(self.buffer)
        self.guarding.exclude_waiting()
        self.batcher.lose_open()
        self.batcher.lose_closed()
        self.told.clear()
        for one in self.all.values():
            one.forgotten |= one.place != "stored"
        self._excuse(lambda one: one.forgotten)

    # --- what has to be recorded ---------------------------------------------------------------------------

    def _note_changes(self) -> None:
        """What was not told in time does not have to be recorded: after it was closed and settled, or opened again."""
        before = dict(self.was)
        for thing, was in before.items():
            allows = self.was[thing] = self.world.allows(thing)
            if was and not allows:
                self.known_open.discard(thing)
                self._excuse(lambda one: one.place == "flight", thing)
            elif allows and not was:
                self._excuse(lambda one: one.place == "buffer", thing)
        if self.was != before:
            self.log.append((self.world.running_ns, dict(self.was)))
        if self.world.expires_ns is not None and self.world.wall_ns >= self.world.expires_ns:
            self._excuse(lambda one: one.place != "stored")  # nothing is committed any more

    def _excuse(self, which: Callable[[Happened], bool], thing: str | None = None) -> None:
        for one in self.all.values():
            if one.must and which(one):
                one.must -= one.must.copy() if thing is None else {thing}

    def end(self) -> None:
        """Raises `AssertionError` when something is not recorded that was allowed and told in time."""
        self._excuse(lambda one: one.place == "flight")
        self.take()
        self.close()
        for t_ns, one in self.all.items():
            for thing in one.must:
                assert (t_ns, thing) in self.recorded, (
                    f"{thing} of {one.event} was allowed, told, and is lost"
                )


def _named(event: Event) -> tuple[Any, ...]:
    """By what it can be told from the others when its time is another."""
    return (
        event.kind,
        getattr(event, "app", None),
        getattr(event, "width", None),
        getattr(event, "name", None),
    )
