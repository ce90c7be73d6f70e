"""Fakes of every seam: small, honest about the promise, and scriptable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from mcilib.clock import Clock, ClockAnchor, SystemClock
from mcilib.consent import Grant
from mcilib.delivery.control import EXEMPTION, PENDING, kind_of
from mcilib.errors import SpoolError
from mcilib.events import Event, Move
from mcilib.format.open_batch import OpenBatch
from mcilib.policy.state import ResourceState
from mcilib.protocols import (
    ControlRecord,
    EventSink,
    Fate,
    Outcome,
    Receipt,
    ReceiptStatus,
    Reply,
    SealedBatch,
)
from mcilib.statistics import Health

_Sent = TypeVar("_Sent", SealedBatch, ControlRecord)


class ManualClock:
    """A clock that stands still until it is moved. Any thread."""

    def __init__(
        self, monotonic_ns: int = 1_000_000_000_000, wall_ns: int = 1_750_000_000_000_000_000
    ) -> None:
        self._monotonic_ns, self._wall_ns, self._suspended_ns = monotonic_ns, wall_ns, 0

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def suspended_ns(self) -> int:
        return self._suspended_ns

    def advance(self, seconds: float) -> None:
        """Time passes: both clocks move."""
        self._monotonic_ns += int(seconds * 1e9)
        self._wall_ns += int(seconds * 1e9)

    def step_wall(self, seconds: float) -> None:
        """Somebody sets the clock: only wall time moves."""
        self._wall_ns += int(seconds * 1e9)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: wall time goes on, monotonic time stands still."""
        self._wall_ns += int(seconds * 1e9)
        self._suspended_ns += int(seconds * 1e9)


class ListSink:
    """Keeps what is emitted, in `events`, up to `capacity`. Any thread."""

    def __init__(self, capacity: int = 1_000_000) -> None:
        self.events: list[Event] = []
        self._capacity = capacity

    def emit(self, event: Event, /) -> bool:
        if not self.room:
            return False
        self.events.append(event)
        return True

    def emit_all(self, events: Sequence[Event], /) -> int:
        return sum([self.emit(event) for event in events])

    @property
    def room(self) -> int:
        return max(0, self._capacity - len(self.events))


class FakeSource:
    """Emits what `feed` is given while it runs, and nothing otherwise. Any thread."""

    clock = "trace"

    def __init__(
        self, name: str = "pointer", scope: str = "pointer", *, fails: Exception | None = None
    ) -> None:
        self.name, self.scope = name, scope
        self._fails = fails
        self._sink: EventSink | None = None

    def start(self, sink: EventSink) -> None:
        if self._fails is not None:
            raise self._fails
        self._sink = sink

    def stop(self) -> None:
        self._sink = None

    def health(self) -> Health:
        return Health()

    def feed(self, *events: Event) -> int:
        """Emits `events`; how many were taken."""
        sink = self._sink
        return sum(sink.emit(event) for event in events) if sink is not None else 0


class FakeSession:
    """Is what `become` says, and tells it in the thread of who calls that. Any thread."""

    def __init__(self, away: str | None = None) -> None:
        self._away = away
        self._on_change: Callable[[], None] | None = None

    @property
    def away(self) -> str | None:
        return self._away

    def start(self, on_change: Callable[[], None], /) -> None:
        self._on_change = on_change

    def stop(self) -> None:
        self._on_change = None

    def health(self) -> Health:
        return Health()

    def become(self, away: str | None) -> None:
        """`locked`, `switched`, or None: here."""
        changed, self._away = away != self._away, away
        on_change = self._on_change
        if changed and on_change is not None:
            on_change()


class FakeResources:
    """Is in the `state` it was made with or that `become` gave it, and tells it in the thread of who calls that.
    `refreshed` counts calls of `refresh`. Any thread."""

    def __init__(self, state: ResourceState | None = None) -> None:
        self._state = state or ResourceState()
        self._on_change: Callable[[], None] | None = None
        self.refreshed = 0

    @property
    def state(self) -> ResourceState:
        return self._state

    def start(self, on_change: Callable[[], None], /) -> None:
        self._on_change = on_change

    def stop(self) -> None:
        self._on_change = None

    def refresh(self) -> None:
        self.refreshed += 1

    def health(self) -> Health:
        return Health()

    def become(self, **fields: object) -> None:
        """Changes fields of the state: `become(on_mains=False, battery_ratio=0.14)`."""
        before, self._state = self._state, replace(self._state, **fields)  # type: ignore[arg-type]
        on_change = self._on_change
        if on_change is not None and self._state != before:
            on_change()


class MemorySpool:
    """A spool in memory, without limits. `fail_next` makes that many commits raise `SpoolError`. Any thread.

    `fates` says what became of batches; `purged` is the number that went on the participant's word. Batches age
    by `clock`.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.fail_next = 0
        self.fates: dict[str, Fate] = {}
        self.purged = 0
        self._clock: Clock = clock or SystemClock()
        self._batches: dict[str, SealedBatch] = {}
        self._since_ns: dict[str, int] = {}
        self._controls: dict[str, ControlRecord] = {}
        self._sequence = self._control_sequence = 0
        self._lock = threading.Lock()

    def _now_ns(self) -> int:
        return self._clock.monotonic_ns() + self._clock.suspended_ns()

    def _fail(self) -> None:
        if self.fail_next:
            self.fail_next -= 1
            raise SpoolError("The spool cannot be written (asked to fail)", "This is a fake; commit again.")

    def commit(self, seal: Callable[[int], SealedBatch], /) -> SealedBatch:
        with self._lock:
            self._fail()
            batch = seal(self._sequence + 1)
            self._sequence += 1
            self._batches[batch.batch_id] = batch
            self._since_ns[batch.batch_id] = self._now_ns()
            return batch

    def waiting(self, min_age_s: float = 0.0, /) -> Sequence[str]:
        with self._lock:
            latest_ns = self._now_ns() - min_age_s * 1e9
            return [i for i in self._batches if min_age_s <= 0 or self._since_ns[i] <= latest_ns]

    def read(self, batch_id: str, /) -> SealedBatch | None:
        with self._lock:
            return self._batches.get(batch_id)

    def settle(self, batch_id: str, fate: Fate, /) -> None:
        with self._lock:
            if self._batches.pop(batch_id, None) is not None:
                self.fates[batch_id] = fate

    def settle_all(self, fates: Mapping[str, Fate], /) -> None:
        for batch_id, fate in fates.items():
            self.settle(batch_id, fate)

    def commit_control(self, make: Callable[[int], ControlRecord], /) -> ControlRecord:
        with self._lock:
            self._fail()
            record = make(self._control_sequence + 1)
            self._control_sequence += 1
            self._controls[record.record_id] = record
            return record

    def controls(self) -> Sequence[ControlRecord]:
        with self._lock:
            return list(self._controls.values())

    def settle_control(self, record_id: str, /) -> None:
        with self._lock:
            self._controls.pop(record_id, None)

    def purge(self, batch_ids: Iterable[str] | None = None, /) -> int:
        with self._lock:
            wanted = list(self._batches) if batch_ids is None else list(batch_ids)
            gone = sum(self._batches.pop(batch_id, None) is not None for batch_id in wanted)
            self.purged += gone
            return gone


class FakeTransport:
    """Answers from a script of `Reply` values (or `Outcome`s), then takes everything; keeps it in `received`, and
    control records in `controls`. A request for an exemption is `pending` until a test puts its id, with `approved` or
    `denied`, into `decisions`."""

    def __init__(self, script: Iterable[Reply | Outcome] = ()) -> None:
        self.decisions: dict[str, str] = {}
        self.received: dict[str, SealedBatch] = {}
        self.controls: dict[str, ControlRecord] = {}
        self.requests: list[list[str]] = []
        self.closed = 0
        self._script = list(script)

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        return self._answer({batch.batch_id: batch for batch in batches}, self.received)

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        reply = self._answer({record.record_id: record for record in records}, self.controls)
        asked = [record.record_id for record in records if kind_of(record) == EXEMPTION]
        told = {
            name: replace(reply.receipts[name], decision=self.decisions.get(name, PENDING))
            for name in asked
            if name in reply.receipts and not reply.receipts[name].decision
        }
        return replace(reply, receipts={**reply.receipts, **told})

    def _answer(self, sent: Mapping[str, _Sent], kept: dict[str, _Sent]) -> Reply:
        self.requests.append(list(sent))
        if self._script:
            answer = self._script.pop(0)
            if isinstance(answer, Reply):
                return answer
            if answer is not Outcome.DELIVERED:
                return Reply(answer, detail="as scripted")
        receipts = {}
        for name in sent:
            status = ReceiptStatus.DUPLICATE if name in kept else ReceiptStatus.STORED
            receipts[name] = Receipt(name, status)
        kept.update({name: one for name, one in sent.items() if name not in kept})
        return Reply(Outcome.DELIVERED, receipts, bytes_sent=sum(len(one.data) for one in sent.values()))

    def close(self) -> None:
        self.closed += 1


def example_grant(*scopes: str, **fields: object) -> Grant:
    """A grant for tests; the scopes `keys` and `pointer` unless others are named. `fields` go to `Grant.give`."""
    given = {"operator": "Example Lab", "purpose": "tests", "scopes": scopes or ("keys", "pointer"), **fields}
    return Grant.give(**given)  # type: ignore[arg-type]


def example_batch(
    sequence: int = 1,
    *,
    events: Sequence[Event] = (),
    grant: Grant | None = None,
    recipients: Sequence[str] = (),
) -> SealedBatch:
    """A real batch with `events` (by default one move), sealed to `recipients` (age public keys) if there are any."""
    anchor = ClockAnchor(1_000_000_000, 1_750_000_000_000_000_000)
    batch = OpenBatch(anchor, max(1, len(events)))
    for event in events or (Move(anchor.monotonic_ns, 1, 2),):
        batch.add(event)
    grant = grant or example_grant()
    return batch.seal(
        sequence=sequence, grant=grant, boot="0" * 16, clocks={"pointer": "trace"}, recipients=recipients
    )
