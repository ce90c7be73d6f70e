"""Fakes of every seam: small, honest about the promise, and scriptable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from mcilib.clock import ClockAnchor
from mcilib.consent import Grant
from mcilib.errors import SpoolError
from mcilib.events import Event, Move
from mcilib.format.open_batch import OpenBatch
from mcilib.protocols import EventSink, Fate, Outcome, Receipt, ReceiptStatus, Reply, SealedBatch
from mcilib.statistics import Health


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


class MemorySpool:
    """A spool in memory. `fail_next` makes that many commits raise `SpoolError`. Any thread."""

    def __init__(self) -> None:
        self.fail_next = 0
        self.fates: dict[str, Fate] = {}
        self._batches: dict[str, SealedBatch] = {}
        self._sequence = 0
        self._lock = threading.Lock()

    def commit(self, seal: Callable[[int], SealedBatch], /) -> SealedBatch:
        with self._lock:
            if self.fail_next:
                self.fail_next -= 1
                raise SpoolError(
                    "The spool cannot be written (asked to fail)", "This is a fake; commit again."
                )
            batch = seal(self._sequence + 1)
            self._sequence += 1
            self._batches[batch.batch_id] = batch
            return batch

    def waiting(self) -> Sequence[str]:
        with self._lock:
            return list(self._batches)

    def read(self, batch_id: str, /) -> SealedBatch | None:
        with self._lock:
            return self._batches.get(batch_id)

    def settle(self, batch_id: str, fate: Fate, /) -> None:
        with self._lock:
            if self._batches.pop(batch_id, None) is not None:
                self.fates[batch_id] = fate


class FakeTransport:
    """Answers from a script of `Reply` values (or `Outcome`s), then takes everything; keeps it in `received`."""

    def __init__(self, script: Iterable[Reply | Outcome] = ()) -> None:
        self.received: dict[str, SealedBatch] = {}
        self.requests: list[list[str]] = []
        self.closed = 0
        self._script = list(script)

    def send(self, batches: Sequence[SealedBatch], /) -> Reply:
        self.requests.append([batch.batch_id for batch in batches])
        if self._script:
            answer = self._script.pop(0)
            if isinstance(answer, Reply):
                return answer
            if answer is not Outcome.DELIVERED:
                return Reply(answer, detail="as scripted")
        receipts = {}
        for batch in batches:
            known = batch.batch_id in self.received
            self.received.setdefault(batch.batch_id, batch)
            status = ReceiptStatus.DUPLICATE if known else ReceiptStatus.STORED
            receipts[batch.batch_id] = Receipt(batch.batch_id, status)
        return Reply(Outcome.DELIVERED, receipts, bytes_sent=sum(len(batch.data) for batch in batches))

    def close(self) -> None:
        self.closed += 1


def example_grant(*scopes: str, **fields: object) -> Grant:
    """A grant for tests; all scopes of this version unless some are named. `fields` go to `Grant.give`."""
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
