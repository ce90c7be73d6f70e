"""The uploader: one thread that takes what waits in the spool to a receipt, and sleeps in between.

It wakes for three things: the schedule, `flush`, and the first batch after the spool was empty. What is
sent, kept or given up is decided in `retry`; what a batch's fate is, by its receipt alone.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_random_exponential

from mcilib import limits
from mcilib.clock import Clock, SystemClock
from mcilib.delivery._round import Delivery, Round
from mcilib.delivery.retry import Schedule
from mcilib.errors import ConfigError
from mcilib.protocols import Outcome, Reply, SealedBatch, Spool, Transport
from mcilib.statistics import Health, UploadStatistics

_log = logging.getLogger("mcilib")

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Flushed:
    """What `Uploader.flush` came to, for the batches that waited when it was called."""

    settled: bool
    """None of them waits any more."""
    delivered: bool
    """All of them are with the receiver."""
    outcome: Outcome | None = None
    """Of the last request; None when none was made."""
    detail: str = ""
    """One line for people when something was not delivered."""


class Uploader:
    """Delivers what waits in `spool` through `transport`. All methods may be called from any thread.

    `may_send` is asked immediately before each request: a reason in words means that nothing is sent and all
    is kept. `interval_s` (seconds, 0 or more) lies between uploads; a request holds up to `max_request_bytes`
    (a larger batch goes alone) and is tried up to `attempts` times in quick succession. Neither the spool nor
    the transport is opened or closed here.

    After `start` nothing is raised: see `health()`. `stop` never uploads and takes at most 2 s; a request
    that hangs is abandoned with its thread, and what it delivers is sent again later (a duplicate).
    """

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        *,
        may_send: Callable[[], str | None] = lambda: None,
        interval_s: float = limits.UPLOAD_INTERVAL_S,
        max_request_bytes: int = limits.REQUEST_MAX_BYTES,
        attempts: int = limits.REQUEST_ATTEMPTS,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        for name, value, least in (
            ("interval_s", interval_s, 0),
            ("max_request_bytes", max_request_bytes, 1),
            ("attempts", attempts, 1),
        ):
            if not value >= least:
                raise ConfigError(f"{name} is {value}", f"Give {least} or more.")
        self._spool, self._transport, self._may_send = spool, transport, may_send
        self._interval_s = interval_s
        self._delivery = Delivery(spool, self._attempts, max_request_bytes)
        self._retrying = Retrying(
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(
                multiplier=limits.ATTEMPT_WAIT_FIRST_S, max=limits.ATTEMPT_WAIT_CAP_S
            ),
            retry=retry_if_result(_soon_again),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        self._clock: Clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311  (spreads load, keeps no secret)

        self._sending = threading.Lock()  # one round at a time: the transport knows one thread
        self._wake = threading.Condition()  # guards all that follows
        self._thread: threading.Thread | None = None
        self._pid = 0  # of the process with the thread
        self._stop = threading.Event()
        self._idle = False  # the thread sleeps without a deadline: only then a commit wakes it
        self._undelivered: list[set[str]] = []  # what each flush still waits for
        self._flush_asked = self._flush_done = 0
        self._schedule = Schedule()
        self._last = Round(self._stop)
        self._told: Outcome | None = None
        self._statistics = UploadStatistics()

    # --- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. Nothing when it runs."""
        with self._wake:
            if self._running():
                return
            self._stop = threading.Event()
            waiting = bool(self._spool.waiting())
            self._schedule = Schedule.first(
                self._clock.monotonic_ns(), waiting=waiting, interval_s=self._interval_s, random=self._random
            )
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="mcilib-uploader", daemon=True
            )
            self._thread.start()
            self._pid = os.getpid()

    def stop(self, timeout_s: float = limits.STOP_TIMEOUT_S / 2) -> None:
        """Ends the thread, or leaves it behind after `timeout_s`. Uploads nothing. May be called twice."""
        if self._foreign():
            return
        with self._wake:
            thread = self._thread
            self._stop.set()
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def notify(self) -> None:
        """A batch was committed. Wakes the thread only if it sleeps without a deadline."""
        with self._wake:
            if self._idle:
                self._wake.notify_all()

    def threads(self) -> list[threading.Thread]:
        """The thread, for the accounting of costs."""
        thread = self._thread
        return [thread] if thread is not None else []

    # --- upload now -----------------------------------------------------------------------------------------

    def flush(self, timeout_s: float = limits.FLUSH_TIMEOUT_S) -> Flushed:
        """Uploads all that waits now, whatever the schedule says; returns when that is done.

        Our own back-off does not hold it up; a server's Retry-After, `may_send` and a programme that has
        ended do. With a thread it returns after `timeout_s` at the latest. Without one the upload runs in
        the caller's thread, and no request begins after `timeout_s` or `stop`.
        """
        if self._foreign():
            return Flushed(False, False, None, "a child made by fork delivers nothing; its parent does")
        with self._wake:
            remaining = set(self._spool.waiting())
            targets = frozenset(remaining)
            if not targets:
                return Flushed(True, True)
            self._undelivered.append(remaining)
            in_thread = self._running()
            if not in_thread:
                self._stop = threading.Event()
            stop = self._stop
        try:
            if in_thread:
                result, why = self._flush_in_thread(timeout_s, stop)
            else:
                deadline_ns = self._clock.monotonic_ns() + int(timeout_s * _SECOND_NS)
                result, why = self._round(Round(stop, deadline_ns), flush=True), ""
        finally:
            with self._wake:
                self._undelivered = [other for other in self._undelivered if other is not remaining]
        settled = targets.isdisjoint(self._spool.waiting())
        if settled and remaining:
            why = "some batches were lost on this device or refused for good: see the counters of the spool"
        why = why or result.held or ("" if result.outcome is Outcome.DELIVERED else result.detail)
        why = why or f"not all was sent within {timeout_s:g} s"
        return Flushed(settled, not remaining, result.outcome, why if remaining else "")

    def _flush_in_thread(self, timeout_s: float, stop: threading.Event) -> tuple[Round, str]:
        with self._wake:
            self._flush_asked += 1
            ticket = self._flush_asked
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._flush_done >= ticket or stop.is_set(), timeout_s)
            if self._flush_done >= ticket:
                return self._last, ""
        return Round(
            stop
        ), "the uploader was stopped" if stop.is_set() else f"still busy after {timeout_s:g} s"

    # --- the thread -----------------------------------------------------------------------------------------

    def _foreign(self) -> bool:
        """In a child made by `fork`, where the thread is not and locks may be held for ever."""
        return self._pid not in (0, os.getpid())

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stop.is_set()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            flush = self._sleep(stop)
            if stop.is_set():
                return
            self._round(Round(stop), flush=flush is not None)
            with self._wake:
                self._flush_done = max(self._flush_done, flush or 0)
                self._wake.notify_all()

    def _sleep(self, stop: threading.Event) -> int | None:
        """Waits until an upload is due; gives the newest flush that it answers, None when it answers none."""
        with self._wake:
            while not stop.is_set():
                if self._flush_asked > self._flush_done:
                    self._idle = False
                    return self._flush_asked
                now_ns = self._clock.monotonic_ns()
                waiting = bool(self._spool.waiting())
                if waiting and self._idle:
                    self._schedule = self._schedule.woken(now_ns, self._interval_s, self._random)
                self._idle = not waiting
                wait_s = self._schedule.wait_s(now_ns) if waiting else None
                if wait_s == 0:
                    return None
                self._wake.wait(None if wait_s is None else min(wait_s, threading.TIMEOUT_MAX))
        return None

    # --- one round ------------------------------------------------------------------------------------------

    def _round(self, run: Round, *, flush: bool) -> Round:
        with self._sending:
            schedule, now_ns = self._schedule, self._clock.monotonic_ns()
            if schedule.next_attempt_ns is None:
                run.end(Outcome.GONE, self._last.detail)
            elif flush and now_ns < schedule.not_before_ns:
                wait_s = (schedule.not_before_ns - now_ns) / _SECOND_NS
                run.end(Outcome.RETRY, f"the receiver asks to wait {wait_s:.0f} s more")
            else:
                self._delivery.carry_out(run)
                self._conclude(run)
            return run

    def _attempts(self, batches: Sequence[SealedBatch], run: Round) -> Reply | None:
        """The reply to one request after a few attempts; None when none may be made (any more)."""

        def attempt() -> Reply | None:
            # First, since a sleep that `stop` ends is followed by one more attempt.
            late = run.deadline_ns is not None and self._clock.monotonic_ns() >= run.deadline_ns
            if run.stop.is_set() or late:
                return None
            run.held = self._reason_to_hold()
            return self._send(batches, run) if run.held is None else None

        reply: Reply | None = self._retrying.copy(sleep=lambda wait_s: run.stop.wait(wait_s) and None)(
            attempt
        )
        return reply

    def _reason_to_hold(self) -> str | None:
        try:
            return self._may_send()
        except Exception as error:  # the host's own code; nothing is sent on a doubt
            return f"whether sending is allowed cannot be told ({type(error).__name__})"

    def _send(self, batches: Sequence[SealedBatch], run: Round) -> Reply:
        try:
            reply = self._transport.send(batches)
        except Exception as error:  # a transport that breaks its promise must not end the thread
            reply = Reply(Outcome.RETRY, detail=f"the transport failed ({type(error).__name__})")
        run.note(reply)
        return reply

    def _conclude(self, run: Round) -> None:
        """The schedule and the counters after a round, and one log line when something new is wrong."""
        now_ns, interval_s = self._clock.monotonic_ns(), self._interval_s
        with self._wake:
            if run.outcome is not None:
                self._schedule = self._schedule.after(
                    run.outcome,
                    now_ns,
                    interval_s=interval_s,
                    random=self._random,
                    retry_after_s=run.retry_after_s,
                )
            elif not run.stop.is_set():  # held, or nothing was there to send
                self._schedule = self._schedule.held(now_ns, interval_s=interval_s)
            before = self._statistics
            self._statistics = UploadStatistics(
                requests=before.requests + run.requests,
                bytes_sent=before.bytes_sent + run.bytes_sent,
                delivered_batches=before.delivered_batches + len(run.delivered),
                duplicate_batches=before.duplicate_batches + run.duplicates,
                last_outcome=run.outcome.value if run.outcome else before.last_outcome,
                last_detail=run.detail if run.outcome else before.last_detail,
            )
            for remaining in self._undelivered:
                remaining.difference_update(run.delivered)
            self._last = run
            problem = run.problem(self._schedule.failures)
            news = problem is not None and run.held is None and run.outcome is not self._told
            if news or run.outcome is Outcome.DELIVERED:
                self._told = run.outcome
        if news and problem is not None:
            _log.warning("mcilib: %s. %s", problem.message, problem.next_step)

    # --- what came of it ------------------------------------------------------------------------------------

    def statistics(self) -> UploadStatistics:
        """Counts since this object was made; `delivered_batches` includes the duplicates."""
        with self._wake:
            due_s = self._schedule.wait_s(self._clock.monotonic_ns())
            planned = self._running() and bool(self._spool.waiting())
            return replace(self._statistics, next_attempt_s=due_s if planned else None)

    def health(self) -> Health:
        """What is wrong with the last upload, in words."""
        with self._wake:
            problem = self._last.problem(self._schedule.failures)
            return Health((problem,) if problem is not None else ())


def _soon_again(reply: Reply | None) -> bool:
    """Whether a few attempts in quick succession make sense: not when the server asks for time."""
    return reply is not None and reply.outcome is Outcome.RETRY and reply.retry_after_s == 0
