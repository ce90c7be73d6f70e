"""The seams, in the order in which data flows through them. Each makes one promise.

Fakes and conformance checks for all of them are in `mcilib.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mcilib.events import Event
from mcilib.policy.state import ResourceState
from mcilib.statistics import Health


class EventSink(Protocol):
    """Takes events from sources. Never blocks, never raises; callable from any thread."""

    def emit(self, event: Event, /) -> bool:
        """True when the event was taken, False when it was dropped and counted (buffer full, stopped)."""

    def emit_all(self, events: Sequence[Event], /) -> int:
        """The same for several, in this order; how many were taken."""

    @property
    def room(self) -> int:
        """How many events it would take now: a source that can wait, waits while this is 0."""


class Source(Protocol):
    """Produces events of one consent scope.

    Promise: between `start` and `stop`, each event the system shows is emitted once, in the order in which
    it was seen, or a `Gap` says when the source could not see. `start` may raise `SourceError`; afterwards
    nothing is raised. `stop` ends all threads of the source, takes at most 0.5 s and may be called twice; no
    event is emitted after it returns. A stopped source may be started again.

    It may have an attribute `backend`: what it hears with, text of at most 128 bytes (`xrecord`, `pynput`,
    `x11` for what is read from the X server, `trace`). Batches then name it.
    """

    @property
    def name(self) -> str:
        """Unique within a collector: `pointer`, `keyboard`."""

    @property
    def scope(self) -> str:
        """The consent scope that covers its events (`mcilib.consent.SCOPES`)."""

    @property
    def clock(self) -> str:
        """Where `t_ns` comes from: `x11` (the X server's event times), `callback` (when the listener was
        called) or `trace`. Known once it has started."""

    def start(self, sink: EventSink) -> None: ...

    def stop(self) -> None: ...

    def health(self) -> Health: ...


class Session(Protocol):
    """Tells whether the participant's session is locked, or behind another user's: then nothing is captured.

    Promise: `away` is right when `start` returns, after about a second at most; `on_change` is called, from any thread,
    after each change of it. Nothing raises. `stop` ends all threads within 0.5 s and may be called twice.
    """

    @property
    def away(self) -> str | None:
        """`locked`, `switched`, or None: here, or unknown."""

    def start(self, on_change: Callable[[], None], /) -> None: ...

    def stop(self) -> None: ...

    def health(self) -> Health: ...


class Resources(Protocol):
    """Tells what the machine can spare.

    Promise: `state` is right when `start` returns, after a second at most, as far as anything is known; it is read
    without waiting. `on_change` is called, from any thread, within a second after the system tells of a change.
    `refresh` reads what no service tells; whoever is awake anyway calls it, and it does something once a minute at
    most. Nothing raises and nothing wakes by a timer of its own. `stop` ends all threads within 0.5 s and may be
    called twice.
    """

    @property
    def state(self) -> ResourceState: ...

    def start(self, on_change: Callable[[], None], /) -> None: ...

    def stop(self) -> None: ...

    def refresh(self) -> None: ...

    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class SealedBatch:
    """A batch as it lies on disk and travels: written once, resent byte for byte."""

    batch_id: str
    """32 hex digits."""
    sequence: int
    """1, 2, 3 ... per spool, never reused."""
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """A message to the operator that is no data, such as a request to delete: never evicted, sent even when
    no data may be."""

    record_id: str
    """32 hex digits."""
    sequence: int
    """1, 2, 3 ... per spool, never reused."""
    data: bytes = field(repr=False)
    """JSON in UTF-8, at most `limits.CONTROL_MAX_BYTES`."""


class Fate(Enum):
    """What became of a batch that leaves the spool."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    """Refused for good by the receiver; kept in `bad/`."""
    PURGED = "purged"
    """Refused because its participant had it deleted at the receiver; nothing of it is kept."""


class Spool(Protocol):
    """Keeps sealed batches until their fate is known.

    Promise: when `commit` returns the batch survives a power cut; it stays until `settle` or until a limit
    evicts it, which is counted. All methods may be called from any thread.
    """

    def commit(self, seal: Callable[[int], SealedBatch], /) -> SealedBatch:
        """Gives `seal` the next sequence and stores what it returns. Raises `SpoolError`; then nothing was
        stored and the sequence was not used."""

    def waiting(self, min_age_s: float = 0.0, /) -> Sequence[str]:
        """Ids of the batches that have lain here for at least so long, oldest first."""

    def read(self, batch_id: str, /) -> SealedBatch | None:
        """The batch, or None when it is gone or damaged (a damaged one is moved to `bad/` and counted)."""

    def settle(self, batch_id: str, fate: Fate, /) -> None:
        """Counts the fate, then removes the batch. An unknown id is ignored."""

    def settle_all(self, fates: Mapping[str, Fate], /) -> None:
        """`settle` for each; all that one reply told is counted in one go."""

    def controls(self) -> Sequence[ControlRecord]:
        """The control records present, oldest first."""

    def settle_control(self, record_id: str, /) -> None:
        """Removes a control record whose receipt has come. An unknown id is ignored."""


class Allowed(Enum):
    """What may be sent now."""

    ALL = "all"
    CONTROL = "control"
    """Control records only."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class SendPlan:
    """The constraints on sending, as they are now (battery, network, budget)."""

    allowed: Allowed = Allowed.ALL
    reason: str = ""
    """Why not everything, in words."""
    bytes_per_hour: int | None = None
    """Of data; None: as many as there are."""


class Outcome(Enum):
    """What one attempt to send came to. `mcilib.delivery.retry` maps statuses and errors to it."""

    DELIVERED = "delivered"
    """2xx with receipts; see them for each batch."""
    RETRY = "retry"
    """Try again later: busy, unreachable, timed out."""
    NOT_OUR_SERVER = "not_our_server"
    """An answer without receipts (captive portal, proxy page): keep all, back off."""
    REFUSED = "refused"
    """Token, certificate, address or method is wrong: keep all, tell the host once."""
    BAD_BATCH = "bad_batch"
    """The receiver will never take this request's content."""
    GONE = "gone"
    """The programme has ended: stop sending."""


class ReceiptStatus(Enum):
    """What the receiver did with one batch."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receiver's word for one batch: durable (`stored`, `duplicate`) or refused for good."""

    batch_id: str
    status: ReceiptStatus
    reason: str = ""
    decision: str = ""
    """Of a request for an exemption only: `pending`, `approved`, `denied`; or `withdrawn`, `expired`: there is nothing
    left to decide. Empty where nobody decides, such as in a folder."""
    decided_ns: int | None = None
    """Unix time, by the operator's clock."""
    answer: str = ""
    """In the operator's words."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One attempt's result, as a value."""

    outcome: Outcome
    receipts: Mapping[str, Receipt] = field(default_factory=dict)
    """By batch (or record) id. A batch without a receipt was not delivered, whatever the outcome says."""
    retry_after_s: float = 0.0
    """The least time to wait before the next attempt, as the server asked."""
    detail: str = ""
    """One line for people: status or error. Never payload, never a token."""
    bytes_sent: int = 0


class Transport(Protocol):
    """Makes one attempt to deliver.

    Promise: `send` returns a `Reply` for every failure of network or server and raises nothing; it takes at
    most its stated timeout; used by one thread at a time. `close` may be called twice.

    It may have an attribute `is_local`: True when nothing leaves this machine, so that it needs no network.
    """

    def send(self, batches: Sequence[SealedBatch], /) -> Reply: ...

    def send_control(self, records: Sequence[ControlRecord], /) -> Reply:
        """Receipts are by record id: `stored` and `duplicate` say that it is carried out, durably; `decision`, for a
        request for an exemption, what the operator says to it."""

    def close(self) -> None: ...
