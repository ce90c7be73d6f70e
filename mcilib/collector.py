"""Everything composed: sources, gate, recorder, spool and uploader under one start and one stop."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mcilib import limits
from mcilib.capture import Capture, carry_out
from mcilib.clock import Clock, SystemClock
from mcilib.consent import Gate, Grant
from mcilib.delivery.schedule import SCHEDULE_FILE, ScheduleFile, endpoint_of
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.delivery.uploader import Uploader
from mcilib.errors import ConfigError, GrantError, SourceError, SpoolError
from mcilib.format.metadata import QUANTA_MAX_PER_PX
from mcilib.format.seal import seal
from mcilib.protocols import SendPlan, Session, Source, Transport
from mcilib.recorder import Recipients, Recorder, current
from mcilib.resources.session import SessionWatch
from mcilib.statistics import (
    CaptureStatistics,
    CostStatistics,
    Health,
    Problem,
    Statistics,
    UploadStatistics,
    thread_cost,
)

_log = logging.getLogger("mcilib")


@dataclass(frozen=True, slots=True)
class FlushResult:
    """What `Collector.flush` came to."""

    delivered: bool
    """Everything that had been captured before the call is with the receiver."""
    committed: bool
    """Everything that had been captured before the call is on disk."""
    waiting_batches: int
    """Batches still on this device."""
    detail: str = ""
    """One line for people when something still waits."""


class Collector:
    """Collects from `sources` under `grant` into `state_dir`, and delivers through `transport`.

        with Collector(sources=[PointerSource()], grant=grant, state_dir="state", transport=transport) as collector:
            ...

    The constructor raises `ConfigError` for an option out of range. `start` raises early and clearly (`GrantError`
    without a valid grant that covers every source, `SealError` for a recipient that is none, `SourceError`,
    `SpoolError`); afterwards nothing raises into the host: see `health()` and `statistics()`. Before `start`
    there is no thread, no file and no open display. `stop` commits the open batch, uploads nothing and takes at
    most 2 s; a stopped collector may be started again. An interpreter that ends without `stop` stops it. A fork's
    child owns nothing of it.

    `recipients` are age public keys: each batch is sealed to all of them before it touches the disk, and each of
    them opens it (needs the extra `seal`). Given as a function it is asked before each batch, from a thread of
    the collector, so that recipients can change while it runs; while it fails, batches wait in memory. Without
    recipients batches are in clear. `quanta_per_px` is the part of a pixel that positions are kept to, 1 to 256:
    more than 1 is of use where the system gives fractions.

    Two things are asked before each request: the grant, and `plan`, the constraints on sending as they are now
    (battery, network). Batches rest `hold_s` (seconds, 0 to 7 days) on the device before they go, whoever asks, and
    what the plan keeps back goes all the same once it is older than `fallback_age_s`. Back-off survives a restart,
    in `state_dir/spool/schedule.json`.

    While the participant's session is locked, or another user's is in the foreground, sources are stopped, nothing is
    captured and no thread of capture wakes; `held` says so. `session` is what tells (default: a
    `mcilib.resources.session.SessionWatch`; where nobody tells, capture goes on).

    `transport=None` keeps everything in the spool, `state_dir/spool`. The collector closes the transport when
    it stops. One collector at a time may use a state directory. Methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        grant: Grant | None,
        state_dir: str | os.PathLike[str],
        transport: Transport | None = None,
        recipients: Recipients = (),
        batch_max_events: int = limits.BATCH_MAX_EVENTS,
        batch_max_bytes: int = limits.BATCH_MAX_BYTES,
        batch_max_age_s: float = limits.BATCH_MAX_AGE_S,
        quanta_per_px: int = 1,
        zstd_level: int = limits.ZSTD_LEVEL,
        spool_max_bytes: int = limits.SPOOL_MAX_BYTES,
        spool_max_files: int = limits.SPOOL_MAX_FILES,
        spool_max_age_s: float = limits.SPOOL_MAX_AGE_S,
        spool_min_free_bytes: int = limits.SPOOL_MIN_FREE_BYTES,
        upload_interval_s: float = limits.UPLOAD_INTERVAL_S,
        max_request_bytes: int = limits.REQUEST_MAX_BYTES,
        plan: Callable[[], SendPlan] = SendPlan,
        hold_s: float = 0.0,
        fallback_age_s: float = limits.FALLBACK_AGE_S,
        session: Session | None = None,
        clock: Clock | None = None,
    ) -> None:
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            raise SourceError(
                f"Sources are {', '.join(names) or 'missing'}", "Give each name once, at least one."
            )
        for option, value, least, most in (
            ("batch_max_events", batch_max_events, 1, limits.BATCH_EVENTS_CAP),
            ("batch_max_bytes", batch_max_bytes, 1, limits.BATCH_BYTES_CAP),
            ("batch_max_age_s", batch_max_age_s, 0.001, limits.BATCH_AGE_CAP_S),
            ("quanta_per_px", quanta_per_px, 1, QUANTA_MAX_PER_PX),
            ("zstd_level", zstd_level, 1, 22),
            ("upload_interval_s", upload_interval_s, 0, limits.UPLOAD_INTERVAL_CAP_S),
            ("max_request_bytes", max_request_bytes, 1, limits.RECEIVER_MAX_BODY_BYTES),
            ("hold_s", hold_s, 0.0, limits.HOLD_CAP_S),
            ("fallback_age_s", fallback_age_s, 0.0, limits.FALLBACK_AGE_CAP_S),
        ):
            if not least <= value <= most:  # not a number is refused too
                raise ConfigError(f"{option} is {value}", f"Give a number from {least:g} to {most:g}.")
            if isinstance(most, int) and not isinstance(value, int):
                raise ConfigError(f"{option} is {value}", "Give a whole number.")
        if isinstance(recipients, str):
            raise ConfigError("recipients is one text", "Give a list of age public keys.")
        self._sources, self._grant, self._transport = tuple(sources), grant, transport
        self._clock: Clock = clock or SystemClock()
        self._recipients = recipients
        self._max_events, self._max_bytes, self._max_age_s = (
            batch_max_events, batch_max_bytes, batch_max_age_s,
        )  # fmt: skip
        self._quanta_per_px, self._zstd_level = quanta_per_px, zstd_level
        self._upload_interval_s, self._max_request_bytes = upload_interval_s, max_request_bytes
        self._plan, self._hold_s, self._fallback_age_s = plan, hold_s, fallback_age_s
        self._state_dir = Path(state_dir)
        self.spool = DirectorySpool(
            self._state_dir / "spool",
            max_bytes=spool_max_bytes,
            max_files=spool_max_files,
            max_age_s=spool_max_age_s,
            min_free_bytes=spool_min_free_bytes,
            intact=intact_frame,
            clock=self._clock,
        )
        self._gate: Gate | None = None
        self._recorder: Recorder | None = None
        self._uploader: Uploader | None = None
        self._pid = 0  # of the process that started it: a fork's child owns none of this
        self._life = threading.RLock()  # start and stop, one at a time
        self._starting_in: int | None = None  # the thread in `start`
        self._stop_asked = False
        self._running = False
        self._capture = Capture(
            self._sources, session if session is not None else SessionWatch(), self._clock
        )

    def start(self) -> None:
        """Starts to collect; nothing when it runs. A `stop` meanwhile, from a signal handler say, ends it.

        Raises `McilibError` before anything was captured, and then leaves nothing running.
        """
        with self._life:
            if self._running:
                return
            grant = self._checked_grant()
            if recipients := current(self._recipients):
                seal(b"", recipients)  # every later one will be as this: a key that is none is found now
            self._capture.begin()
            self._stop_asked, self._starting_in = False, threading.get_ident()
            try:
                self._start(grant)
            except BaseException:
                self._stop_asked = True
                raise
            finally:
                self._starting_in = None
                if self._stop_asked:
                    self._stop_all()

    def _start(self, grant: Grant) -> None:
        """All parts, in the order of the data, until somebody asks to stop."""
        gate = self._gate = Gate(grant)
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SpoolError(
                f"The state folder {self._state_dir} cannot be made ({error.strerror})", "Choose another."
            ) from None
        self.spool.open()
        self._pid, self._running = os.getpid(), True
        atexit.register(self.stop)
        self._uploader = None
        if self._transport is not None:
            self._uploader = Uploader(
                self.spool,
                self._transport,
                may_send=lambda: gate.closed(self._clock.wall_ns()),
                interval_s=self._upload_interval_s,
                max_request_bytes=self._max_request_bytes,
                plan=self._plan,
                hold_s=self._hold_s,
                fallback_age_s=self._fallback_age_s,
                schedule_file=ScheduleFile(self.spool.path / SCHEDULE_FILE),
                endpoint=endpoint_of(self._transport),
                clock=self._clock,
            )
        self._recorder = Recorder(
            gate=gate,
            spool=self.spool,
            sources=self._sources,
            recipients=self._recipients,
            max_events=self._max_events,
            max_bytes=self._max_bytes,
            max_age_s=self._max_age_s,
            quanta_per_px=self._quanta_per_px,
            zstd_level=self._zstd_level,
            on_commit=self._uploader.notify if self._uploader is not None else lambda: None,
            clock=self._clock,
        )
        self._recorder.start()
        self._capture.start(self._recorder)
        if self._stop_asked:
            return
        if self._uploader is not None:
            self._uploader.start()
        names = ", ".join(source.name for source in self._sources)
        _log.info("mcilib: collecting %s for %s (%s)", names, grant.operator, grant.purpose)

    def stop(self) -> None:
        """Ends capture and commits what was captured; never uploads; at most 2 s. May be called twice.

        From any thread, from a signal handler too, also while `start` goes on. An interrupt (Ctrl-C) meanwhile
        is raised when all is done.
        """
        if self._pid not in (0, os.getpid()):
            return
        self._stop_asked = True
        starting_in = self._starting_in
        if starting_in is not None:
            self._capture.interrupt()  # `start` may be waiting for a source
            if starting_in == threading.get_ident():
                return  # `start` sees it and ends everything
        if self._life.acquire(timeout=limits.STOP_TIMEOUT_S):
            try:
                self._stop_all()
            finally:
                self._life.release()

    def _stop_all(self) -> None:
        if not self._running:
            return
        ends_s = time.monotonic() + limits.STOP_TIMEOUT_S - limits.STOP_RESERVE_S
        uploader, transport = self._uploader, self._transport
        steps: list[Callable[[], object]] = [self._capture.stop]
        if self._recorder is not None:
            steps.append(self._recorder.stop)
        if uploader is not None:
            steps.append(lambda: uploader.stop(max(0.0, ends_s - time.monotonic())))
        if transport is not None:
            steps.append(transport.close)
        carry_out([*steps, self.spool.close, self._stopped])

    def _stopped(self) -> None:
        self._running = False
        atexit.unregister(self.stop)

    def flush(self, timeout_s: float = limits.FLUSH_TIMEOUT_S) -> FlushResult:
        """Commits the open batch and uploads everything now; returns when it is delivered or after `timeout_s`."""
        if not self._here() or self._recorder is None:
            return FlushResult(False, False, len(self.spool.waiting()), "the collector is not running")
        committed = self._recorder.commit()
        if self._uploader is None:
            return FlushResult(False, committed, len(self.spool.waiting()), "there is no transport")
        result = self._uploader.flush(timeout_s)
        return FlushResult(
            committed and result.delivered, committed, len(self.spool.waiting()), result.detail
        )

    def reconsider(self) -> None:
        """To be called when what kept batches here may have gone (the network is back, mains). If something did, the
        next upload comes at a random moment within one interval, if that is sooner."""
        if self._here() and self._uploader is not None:
            self._uploader.reconsider()

    @property
    def held(self) -> str | None:
        """Why nothing is captured just now, in words; None when it is, or when the collector does not run."""
        return self._capture.held if self._here() else None

    def statistics(self) -> Statistics:
        """A snapshot; counts of capture, upload and cost begin at the last `start`, those of the spool do not."""
        if self._pid not in (0, os.getpid()):  # a fork's child, in which locks may be held for ever
            nothing = CaptureStatistics(), self.spool.statistics(), UploadStatistics(), CostStatistics()
            return Statistics(False, *nothing)
        recorder, uploader = self._recorder, self._uploader
        return Statistics(
            running=self._running,
            capture=recorder.statistics() if recorder is not None else CaptureStatistics(),
            spool=self.spool.statistics(),
            upload=uploader.statistics() if uploader is not None else UploadStatistics(),
            cost=thread_cost(self.threads()) if self._running else CostStatistics(),
        )

    def health(self) -> Health:
        """What is wrong now, in words, with what to do about it."""
        if not self._here():
            return Health((Problem("collector", "Not running", "Call start()."),))
        closed = self._gate.closed(self._clock.wall_ns()) if self._gate is not None else None
        consent = Health(
            (Problem("consent", f"Nothing is collected: {closed}", "Ask again."),) if closed else ()
        )
        parts = [consent, self._capture.health()]
        parts += [part.health() for part in (self._recorder, self._uploader) if part is not None]
        return Health.join(parts)

    def threads(self) -> list[threading.Thread]:
        """All threads of this collector, as they are now."""
        owners = [self._capture, self._recorder, self._uploader]
        return list(dict.fromkeys(thread for owner in owners for thread in getattr(owner, "threads", list)()))

    def _here(self) -> bool:
        return self._running and self._pid == os.getpid()

    def _checked_grant(self) -> Grant:
        grant = self._grant
        if grant is None:
            raise GrantError(
                "There is no grant", "Nothing is collected without one: `mcilib grant` or Grant.ask()."
            )
        if grant.expired(self._clock.wall_ns()):
            raise GrantError(f"The grant expired at {grant.expires_at}", "Ask again with `mcilib grant`.")
        for source in self._sources:
            if not grant.covers(source.scope):
                raise GrantError(
                    f"The grant covers {', '.join(grant.scopes)}, not {source.scope!r} as source {source.name!r} needs",
                    "Ask for that scope, or leave the source out.",
                )
        return grant

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
