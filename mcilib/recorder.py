"""The capture side: buffer -> gate -> batch -> seal -> spool, in one thread that sleeps until it is needed."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mcilib import limits
from mcilib.batching import Batcher
from mcilib.clock import Clock, SystemClock, boot_id
from mcilib.consent import Gate
from mcilib.errors import McilibError, SealError, SpoolError
from mcilib.events import Event, event_count
from mcilib.format.metadata import Coverage
from mcilib.format.open_batch import OpenBatch
from mcilib.protocols import SealedBatch, Source, Spool
from mcilib.statistics import CaptureStatistics, Health

_log = logging.getLogger("mcilib")

Recipients: TypeAlias = "Sequence[str] | Callable[[], Sequence[str]]"
"""Age public keys, or what gives them whenever a batch is to be sealed. None: batches stay in clear; but a
function that gives none is an error, as what was meant to be sealed is not written in clear."""


class Recorder:
    """Turns events into batches on disk. Is the `EventSink` that sources emit into.

    `emit` stamps nothing, waits for nothing and never raises: it appends to a bounded buffer. One thread takes
    the buffer when it has grown to `drain_mark` events or when the open batch is due, holds each event to the
    gate, and commits batches to `spool`. With no input the thread does not wake.

    A batch ends at `max_events` rows, at `max_bytes` before compression, and when it is `max_age_s` old, which
    waits for a scroll row that may still grow; see `mcilib.batching`. A sleep of the machine is noticed at the
    next event, since nothing polls. Positions are kept to `quanta_per_px`.

    Batches are sealed to `recipients` before they go anywhere. A crash loses at most the open batch. While
    nothing can be sealed, or the spool cannot be written, up to `MEMORY_MAX_EVENTS` rows wait in memory;
    `health()` says so, and what does not fit, or still waits at `stop`, is counted as dropped by cause `spool`.

    Each batch names `sources` and where their times come from, and tells what was seen since the batch before
    and is no row. `on_commit` is called from the recorder's thread after each commit. Methods may be called from
    any thread.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        spool: Spool,
        sources: Sequence[Source],
        recipients: Recipients = (),
        max_events: int = limits.BATCH_MAX_EVENTS,
        max_bytes: int = limits.BATCH_MAX_BYTES,
        max_age_s: float = limits.BATCH_MAX_AGE_S,
        quanta_per_px: int = 1,
        zstd_level: int = limits.ZSTD_LEVEL,
        buffer_events: int = limits.BUFFER_EVENTS,
        drain_mark: int = limits.DRAIN_MARK_EVENTS,
        on_commit: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self._gate, self._spool, self._sources = gate, spool, tuple(sources)
        self._recipients, self._zstd_level = recipients, zstd_level
        self._buffer_events, self._drain_mark = buffer_events, min(drain_mark, buffer_events)
        self._on_commit = on_commit
        self._clock: Clock = clock or SystemClock()
        self._boot = boot_id(gate.grant.device)

        self._buffer: deque[Event] = deque()
        self._armed = False  # the recorder knows that the buffer is not empty
        self._wake = threading.Event()
        self._running = False
        self._work = threading.RLock()  # held while events move from the buffer to the spool
        self._drops = threading.Lock()

        # By cause: events that are no row of a batch. Besides losses: "excluded" and "coalesced".
        self._aside: Counter[str] = Counter()
        self._told: Counter[str] = Counter()  # how many of them the batches committed so far tell
        self._batcher = Batcher(
            gate, self._clock, self._set_aside,
            max_events=max_events, max_bytes=max_bytes, max_age_s=max_age_s, quanta_per_px=quanta_per_px,
        )  # fmt: skip
        self._unwritten = self._batcher.closed
        self._problem: tuple[str, McilibError] | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    # --- called by sources, for each event -----------------------------------------------------------------

    def emit(self, event: Event, /) -> bool:
        """Takes one event; False when it was dropped (buffer full, or not running), which is counted."""
        waiting = len(self._buffer)
        if waiting >= self._buffer_events or not self._running:
            self._set_aside("buffer_full" if self._running else "not_running", event_count(event))
            return False
        self._buffer.append(event)
        if not self._armed or waiting + 1 >= self._drain_mark:
            self._armed = True
            self._wake.set()
        return True

    @property
    def room(self) -> int:
        return self._buffer_events - len(self._buffer)

    def _set_aside(self, cause: str, count: int) -> None:
        """Counts events that become no row, for the coverage of the next batch."""
        if type(count) is not int or count < 0:  # somebody's scroll
            cause, count = "invalid", 1
        with self._drops:
            self._aside[cause] += count

    # --- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. A stopped recorder may be started again."""
        self._batcher.begin_run()
        self._running = True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mcilib-recorder", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = limits.SOURCE_STOP_TIMEOUT_S) -> None:
        """Commits what was captured and ends the thread. Events emitted afterwards are dropped."""
        self._running = False
        self._wake.set()
        # An interrupted join() makes Python 3.11 take a thread that goes on for ended: the next one would not wait.
        if self._thread is not None and self._ended.wait(timeout_s):
            self._thread.join(timeout_s)

    def commit(self) -> bool:
        """Commits the open batch now, in the caller's thread; True when nothing is left in memory."""
        with self._work:
            self._armed = False
            self._batcher.take(self._buffer)
            self._batcher.close()
            return self._write()

    def threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread is not None else []

    def statistics(self) -> CaptureStatistics:
        batcher = self._batcher
        with self._work:
            waiting = len(self._unwritten)
            batcher.take(self._buffer)
            if len(self._unwritten) > waiting:
                self._wake.set()
            pending = [*self._unwritten, *([batcher.open] if batcher.open is not None else [])]
            with self._drops:
                aside = self._aside + Counter(invalid=sum(batch.invalid for batch in pending))
            return CaptureStatistics(
                captured=dict(batcher.captured),
                coalesced=batcher.coalesced,
                excluded=aside.pop("excluded", 0),
                dropped={cause: count for cause, count in aside.items() if cause != "coalesced"},
                gap_count=batcher.gap_count,
                gap_s=batcher.gap_ns / 1e9,
                open_events=sum(batch.event_count for batch in pending),
            )

    def health(self) -> Health:
        problem = self._problem
        return Health.of(*problem) if problem is not None else Health()

    # --- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._running:
                self._wake.wait(self._patience_s())
                self._wake.clear()
                with self._work:
                    self._turn()
            if not self.commit():
                with self._work:
                    self._give_up(0)
        finally:
            self._ended.set()

    def _turn(self) -> None:
        """What is to be done now. Called, as all that follows, with `_work` held."""
        self._armed = False
        self._batcher.take(self._buffer)
        ends_ns = self._batcher.ends_ns
        if ends_ns is not None and self._clock.monotonic_ns() >= ends_ns:
            self._batcher.close()
        self._write()
        # Until the open batch is due, an event that comes needs no wake-up before the mark.
        self._armed = self._batcher.open is not None

    def _patience_s(self) -> float | None:
        """How long nothing needs to be done: until the open batch is due or the spool is tried again."""
        waits = []
        if (ends_ns := self._batcher.ends_ns) is not None:
            waits.append(max(0.0, (ends_ns - self._clock.monotonic_ns()) / 1e9))
        if self._unwritten:
            waits.append(limits.SPOOL_RETRY_S)
        return min(waits, default=None)

    def _write(self) -> bool:
        """Commits the batches in line; True when all went."""
        all_written = True
        while self._unwritten:
            batch = self._unwritten[0]
            with self._drops:
                untold = self._aside - self._told
            try:
                self._commit(batch, untold)
            except (SealError, SpoolError) as error:
                self._say("seal" if isinstance(error, SealError) else "spool", error)
                self._give_up(limits.MEMORY_MAX_EVENTS)
                return False
            except (
                Exception
            ) as error:  # a bug of ours or of a foreign spool: this batch, and never the thread
                message = f"A batch could not be sealed and is lost ({type(error).__name__})"
                self._say("spool", McilibError(message, "Report it."))
                self._batcher.lose(self._unwritten.popleft(), "unsealable")
                all_written = False
                continue
            self._unwritten.popleft()
            self._told.update(untold)
            self._told["invalid"] += batch.invalid  # which `seal` has told by itself
            self._set_aside("invalid", batch.invalid)
            self._problem = None
            self._on_commit()
        return all_written

    def _commit(self, batch: OpenBatch, untold: Counter[str]) -> None:
        recipients = current(self._recipients)
        dropped = {cause: n for cause, n in untold.items() if cause not in ("coalesced", "excluded")}
        coverage = Coverage(coalesced=untold["coalesced"], excluded=untold["excluded"], dropped=dropped)

        def seal(sequence: int) -> SealedBatch:
            return batch.seal(
                sequence=sequence,
                grant=self._gate.grant,
                boot=self._boot,
                clocks={source.name: source.clock for source in self._sources},
                coverage=coverage,
                level=self._zstd_level,
                recipients=recipients,
            )

        self._spool.commit(seal)

    def _give_up(self, rows: int) -> None:
        """Loses the oldest batches in line until no more than `rows` rows are left, or one batch that has more."""
        while sum(map(len, self._unwritten)) > rows and (len(self._unwritten) > 1 or not rows):
            self._batcher.lose(self._unwritten.popleft(), "spool")

    def _say(self, part: str, error: McilibError) -> None:
        if self._problem != (part, error):
            _log.error("mcilib: %s", error)
        self._problem = part, error


def current(recipients: Recipients) -> tuple[str, ...]:
    """The recipients as they are now. `SealError` when they cannot be told: nothing may be written then."""
    try:
        now = recipients() if callable(recipients) else recipients
        keys = tuple(now)
        if isinstance(now, str) or not all(isinstance(key, str) for key in keys):
            raise TypeError
    except SealError:
        raise
    except Exception as error:  # of the host's
        raise SealError(
            f"The recipients of batches cannot be told ({type(error).__name__})", "Mend what gives them."
        ) from None
    if len(keys) > limits.RECIPIENTS_MAX or (callable(recipients) and not keys):  # what is to be sealed is
        raise SealError(f"There are {len(keys)} recipients of batches", f"Name 1 to {limits.RECIPIENTS_MAX}.")
    return keys
