"""The capture side: buffer -> gate -> batch -> seal -> spool, in one thread that sleeps until it is needed."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from mcilib import limits
from mcilib.clock import Clock, ClockAnchor, SystemClock, boot_id
from mcilib.consent import Gate
from mcilib.errors import McilibError, SpoolError
from mcilib.events import Event, Gap, event_count
from mcilib.format.batch import OpenBatch
from mcilib.protocols import SealedBatch, Source, Spool
from mcilib.statistics import CaptureStatistics, Health

_log = logging.getLogger("mcilib")


class Recorder:
    """Turns events into batches on disk. Is the `EventSink` that sources emit into.

    `emit` stamps nothing, waits for nothing and never raises: it appends to a bounded buffer. One thread takes
    the buffer when it has grown to `drain_mark` events or when the open batch is due, holds each event to the
    gate, and commits the batch to `spool` once it has `max_events` rows or is `max_age_s` old. With no input
    the thread does not wake.

    A crash loses at most the open batch. When the spool cannot be written, up to `MEMORY_MAX_EVENTS` rows wait
    in memory; `health()` says so, and what does not fit, or still waits at `stop`, is counted as dropped by cause
    `spool`.

    Each batch's header names `sources` and where their times come from. `on_commit` is called from the
    recorder's thread after each commit. Methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        spool: Spool,
        sources: Sequence[Source],
        max_events: int = limits.BATCH_MAX_EVENTS,
        max_age_s: float = limits.BATCH_MAX_AGE_S,
        zstd_level: int = limits.ZSTD_LEVEL,
        buffer_events: int = limits.BUFFER_EVENTS,
        drain_mark: int = limits.DRAIN_MARK_EVENTS,
        on_commit: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self._gate, self._spool, self._sources = gate, spool, tuple(sources)
        self._max_events, self._zstd_level = max_events, zstd_level
        self._max_age_ns = int(max_age_s * 1e9)
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

        self._open: OpenBatch | None = None
        self._due_ns = 0
        self._unwritten: deque[OpenBatch] = deque()
        self._captured: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._dropped_told: Counter[str] = Counter()
        self._excluded = self._excluded_told = 0
        self._gap_count = self._gap_ns = 0
        self._problem: McilibError | None = None
        self._thread: threading.Thread | None = None

    # --- called by sources, for each event -----------------------------------------------------------------

    def emit(self, event: Event, /) -> bool:
        """Takes one event; False when it was dropped (buffer full, or not running), which is counted."""
        waiting = len(self._buffer)
        if waiting >= self._buffer_events or not self._running:
            with self._drops:
                self._dropped["buffer_full" if self._running else "not_running"] += event_count(event)
            return False
        self._buffer.append(event)
        if not self._armed or waiting + 1 >= self._drain_mark:
            self._armed = True
            self._wake.set()
        return True

    @property
    def room(self) -> int:
        return self._buffer_events - len(self._buffer)

    # --- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. A stopped recorder may be started again."""
        self._running = True
        self._thread = threading.Thread(target=self._run, name="mcilib-recorder", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = limits.SOURCE_STOP_TIMEOUT_S) -> None:
        """Commits what was captured and ends the thread. Events emitted afterwards are dropped."""
        self._running = False
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def commit(self) -> bool:
        """Commits the open batch now, in the caller's thread; True when nothing is left in memory."""
        with self._work:
            self._armed = False
            self._drain()
            self._close_batch()
            return self._write()

    def threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread is not None else []

    def statistics(self) -> CaptureStatistics:
        with self._work:
            self._drain()
            pending = [*self._unwritten, *([self._open] if self._open is not None else [])]
            captured = self._captured + Counter(self._open.captured if self._open is not None else {})
            with self._drops:
                dropped = self._dropped + Counter(invalid=sum(batch.invalid for batch in pending))
            return CaptureStatistics(
                captured=dict(captured),
                excluded=self._excluded,
                dropped=dict(dropped),
                gap_count=self._gap_count,
                gap_s=self._gap_ns / 1e9,
                open_events=sum(batch.event_count for batch in pending),
            )

    def health(self) -> Health:
        return Health.of("spool", self._problem)

    # --- the thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._running:
            self._wake.wait(self._patience_s())
            self._wake.clear()
            with self._work:
                self._armed = False
                self._drain()
                if self._open is not None and self._clock.monotonic_ns() >= self._due_ns:
                    self._close_batch()
                self._write()
                # Until the open batch is due, an event that comes needs no wake-up before the mark.
                self._armed = self._open is not None
        if not self.commit():
            with self._work:
                self._dropped["spool"] += sum(batch.event_count for batch in self._unwritten)
                self._unwritten.clear()

    def _patience_s(self) -> float | None:
        """How long nothing needs to be done: until the open batch is due or the spool is tried again."""
        waits = []
        if self._open is not None:
            waits.append(max(0.0, (self._due_ns - self._clock.monotonic_ns()) / 1e9))
        if self._unwritten:
            waits.append(limits.SPOOL_RETRY_S)
        return min(waits, default=None)

    def _drain(self) -> None:
        """Moves the buffer through the gate into the open batch. Called with `_work` held."""
        buffer = self._buffer
        if not buffer:
            return
        if self._open is not None and abs(self._open.anchor.drift_ns(self._clock)) > limits.WALL_STEP_NS:
            self._close_batch()  # the wall clock was stepped, or the machine slept: a new anchor
        for _ in range(len(buffer)):
            event = buffer.popleft()
            try:
                self._take(event)
            except (AttributeError, TypeError, ValueError, OverflowError):  # no event, from somebody's source
                with self._drops:
                    self._dropped["invalid"] += 1

    def _take(self, event: Event) -> None:
        batch = self._open if self._open is not None else self._begin(event)
        if not self._gate.admits(event.kind, batch.anchor.to_wall_ns(event.t_ns)):
            self._excluded += event_count(event)
            return
        batch.add(event)
        if type(event) is Gap:
            self._gap_count += 1
            self._gap_ns += event.duration_ns
        if batch.full:
            self._close_batch()
            self._write()

    def _begin(self, first: Event) -> OpenBatch:
        anchor = ClockAnchor.now(self._clock)
        self._due_ns = min(anchor.monotonic_ns, first.t_ns) + self._max_age_ns
        self._open = OpenBatch(anchor, self._max_events)
        return self._open

    def _close_batch(self) -> None:
        """Puts the open batch in line for the spool, unless the grant has ended since."""
        batch, self._open = self._open, None
        if batch is None:
            return
        if self._gate.closed(self._clock.wall_ns()) is not None:
            self._excluded += batch.event_count
            return
        self._captured.update(batch.captured)
        if not len(batch):
            self._dropped["invalid"] += batch.invalid  # told with the next batch
            return
        self._unwritten.append(batch)
        while sum(map(len, self._unwritten)) > limits.MEMORY_MAX_EVENTS and len(self._unwritten) > 1:
            oldest = self._unwritten.popleft()
            self._dropped.update(spool=oldest.event_count, invalid=oldest.invalid)

    def _write(self) -> bool:
        """Commits the batches in line; True when all went. Called with `_work` held."""
        all_written = True
        while self._unwritten:
            batch = self._unwritten[0]
            with self._drops:
                dropped, excluded = self._dropped - self._dropped_told, self._excluded - self._excluded_told
            coverage = {"dropped": dict(dropped), "excluded": excluded}

            def seal(
                sequence: int, batch: OpenBatch = batch, coverage: Mapping[str, object] = coverage
            ) -> SealedBatch:
                return batch.seal(
                    sequence=sequence,
                    grant=self._gate.grant,
                    boot=self._boot,
                    sources={source.name: source.clock for source in self._sources},
                    coverage=coverage,
                    level=self._zstd_level,
                )

            try:
                self._spool.commit(seal)
            except SpoolError as error:
                if self._problem != error:
                    _log.error("mcilib: %s", error)
                self._problem = error
                return False
            except (
                Exception
            ) as error:  # a bug of ours or of a foreign spool: this batch, and never the thread
                self._problem = McilibError(
                    f"A batch could not be sealed and is lost ({type(error).__name__})", "Report it."
                )
                _log.error("mcilib: %s", self._problem)
                self._dropped["unsealable"] += self._unwritten.popleft().event_count
                all_written = False
                continue
            self._unwritten.popleft()
            self._dropped["invalid"] += batch.invalid  # `seal` has told them
            self._dropped_told.update({**dropped, "invalid": dropped["invalid"] + batch.invalid})
            self._excluded_told += excluded
            self._problem = None
            self._on_commit()
        return all_written
