"""The uploader: one thread that takes what waits in the spool to a receipt, and sleeps in between.

It wakes for three things: the schedule, `flush`, and the first batch after the spool was empty. What an answer
means and when the next upload is due is decided in `retry`; what a batch's fate is, by its receipt alone.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from mcilib import limits
from mcilib.clock import Clock, SystemClock
from mcilib.delivery._controls import Controls
from mcilib.delivery._round import HOUR_USED_UP, Delivery, Permit, Round
from mcilib.delivery.retry import RetryBudget, Schedule, Traffic
from mcilib.delivery.schedule import Remembered, ScheduleFile
from mcilib.errors import ConfigError
from mcilib.files import without_home
from mcilib.protocols import (
    Allowed,
    ControlRecord,
    Outcome,
    Receipt,
    Reply,
    SealedBatch,
    SendPlan,
    Spool,
    Transport,
)
from mcilib.statistics import Health, UploadStatistics

_log = logging.getLogger("mcilib")

_SECOND_NS = 1_000_000_000
_ENDED = "the receiver has said that the programme has ended (410)"


@dataclass(frozen=True, slots=True)
class Flushed:
    """What `Uploader.flush` came to, for the batches that waited when it was called."""

    settled: bool
    """None of them waits any more; what an operator has to decide may take days, and does not count."""
    delivered: bool
    """All of them are with the receiver."""
    outcome: Outcome | None = None
    """Of the last request; None when none was made."""
    detail: str = ""
    """One line for people when something was not delivered."""


class Uploader:
    """Delivers what waits in `spool` through `transport`. All methods may be called from any thread.

    Two things are asked immediately before each request. `may_send`: a reason in words means that no data is
    sent and all is kept. `plan`: the constraints as they are now; what it keeps back still goes once it is older
    than `fallback_age_s` (seconds). Control records go first, also where data may not; only a plan of NOTHING
    holds them back. Batches rest `hold_s` (seconds, 0 to 7 days) on the device before they go, whoever asks.

    `interval_s` (seconds, 0 or more) lies between uploads, from a random moment on; a request holds up to
    `max_request_bytes` (a larger batch goes alone). In a flush, and once something of the same upload was delivered,
    it is tried up to `attempts` times in quick succession, as far as the retry budget reaches; else the schedule
    decides. With a `schedule_file`, back-off and what the server said of `endpoint` survive a restart. Neither the
    spool nor the transport is opened or closed here.

    A request for an exemption stays in the spool until it is decided, and is asked about with each upload, so once in
    an interval, or by `flush`. `on_decision` gets its id and the receipt with the decision, `on_carried_out` the id of
    a deletion that the receiver has carried out. Both make durable what they are told, in the uploader's thread or in
    that of `flush`; only then the record leaves the spool, so they may be told again after a crash. When one raises,
    the record stays, `health()` says so, and it is asked again.

    After `start` nothing is raised: see `health()`. `stop` never uploads and takes at most 2 s; a request
    that hangs is abandoned with its thread, and what it delivers is sent again later (a duplicate). In a child
    made by `fork` nothing is done.
    """

    def __init__(
        self,
        spool: Spool,
        transport: Transport,
        *,
        may_send: Callable[[], str | None] = lambda: None,
        plan: Callable[[], SendPlan] = SendPlan,
        interval_s: float = limits.UPLOAD_INTERVAL_S,
        max_request_bytes: int = limits.REQUEST_MAX_BYTES,
        attempts: int = limits.REQUEST_ATTEMPTS,
        hold_s: float = 0.0,
        fallback_age_s: float = limits.FALLBACK_AGE_S,
        schedule_file: ScheduleFile | None = None,
        endpoint: str = "",
        on_decision: Callable[[str, Receipt], None] = lambda record_id, receipt: None,
        on_carried_out: Callable[[str], None] = lambda record_id: None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        for name, value, least, most in (
            ("interval_s", interval_s, 0, float("inf")),
            ("max_request_bytes", max_request_bytes, 1, float("inf")),
            ("attempts", attempts, 1, float("inf")),
            ("hold_s", hold_s, 0, limits.HOLD_CAP_S),
            ("fallback_age_s", fallback_age_s, 0, float("inf")),
        ):
            if not least <= value <= most:
                upto = f"from {least:g} to {most:g}" if most < float("inf") else f"{least:g} or more"
                raise ConfigError(f"{name} is {value}", f"Give {upto}.")
        self._spool, self._transport, self._may_send, self._plan = spool, transport, may_send, plan
        self._interval_s, self.hold_s, self._fallback_age_s = interval_s, hold_s, fallback_age_s
        self._schedule_file, self._endpoint = schedule_file, endpoint
        self._clock: Clock = clock or SystemClock()
        self._random = random or Random()  # noqa: S311  (spreads load, keeps no secret)
        self._controls = Controls(
            spool,
            self,
            max_request_bytes=max_request_bytes,
            interval_s=interval_s,
            clock=self._clock,
            on_decision=on_decision,
            on_carried_out=on_carried_out,
        )
        self._delivery = Delivery(spool, self, self._controls, max_request_bytes)
        self._budget = RetryBudget()
        self._attempts = attempts

        self._sending = threading.Lock()  # one round at a time: the transport knows one thread
        self._wake = threading.Condition()  # guards all that follows
        self._thread: threading.Thread | None = None
        self._pid = 0  # of the process that has used it
        self._stop = threading.Event()
        self._idle = False  # the thread sleeps without a deadline: only then a commit wakes it
        self._undelivered: list[set[str]] = []  # what each flush still waits for
        self._flush_asked = self._flush_done = 0
        self._resumed = False
        self._schedule = Schedule()
        self._traffic = Traffic()
        self._last = self._flushed = Round(self._stop)
        self._told: set[Outcome | None] = set()  # since something was delivered
        self._statistics = UploadStatistics()

    # --- life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the thread. Nothing when it runs."""
        if self._foreign():
            return
        with self._wake:
            if self._running():
                return
            self._pid = os.getpid()
            self._stop = threading.Event()
            self._resume()
            self._schedule = self._schedule.woken(self._clock.monotonic_ns(), self._interval_s, self._random)
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="mcilib-uploader", daemon=True
            )
            self._thread.start()

    def stop(self, timeout_s: float = limits.STOP_TIMEOUT_S / 2) -> None:
        """Ends the thread, or leaves it behind after `timeout_s`. Uploads nothing. May be called twice."""
        if self._foreign():
            return
        ends_s = time.monotonic() + timeout_s
        stop, thread = self._stop, self._thread
        stop.set()
        # Where it cannot be had, a disk hangs, and the thread is not asleep.
        if self._wake.acquire(timeout=max(0.0, timeout_s)):
            try:
                self._wake.notify_all()
            finally:
                self._wake.release()
        if thread is not None and thread is not threading.current_thread():
            thread.join(max(0.0, ends_s - time.monotonic()))

    def notify(self) -> None:
        """A batch or a control record was committed. Wakes the thread only if it sleeps without a deadline."""
        if self._foreign():
            return
        with self._wake:
            if self._idle:
                self._wake.notify_all()

    def reconsider(self) -> None:
        """What stood in the way of sending may have gone (network, mains, consent). Nothing when nothing did;
        else the next upload comes at a random moment within one interval, if that is sooner."""
        if self._foreign():
            return
        with self._wake:
            if self._schedule.failures or self._last.held or self._last.left:
                now_ns = self._clock.monotonic_ns()
                self._schedule = self._schedule.hastened(now_ns, self._interval_s, self._random)
                self._wake.notify_all()

    def hasten(self) -> None:
        """What was committed goes at once, unless an upload has just failed, or the server asked to wait."""
        if self._foreign():
            return
        with self._wake:
            if not self._schedule.failures:
                self._schedule = self._schedule.hastened(self._clock.monotonic_ns(), 0.0, self._random)
                self._idle = False  # that it is due now is meant
                self._wake.notify_all()

    def _resume(self) -> None:
        """The schedule at the first start, or as it was when this or an earlier process stopped."""
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        if self._resumed:
            return
        self._resumed = True
        remembered = None
        if self._schedule_file is not None:
            remembered = self._schedule_file.load(
                self._endpoint,
                now_ns=now_ns,
                wall_ns=wall_ns,
                interval_s=self._interval_s,
                random=self._random,
            )
        if remembered is None:
            first = Schedule.first(now_ns, interval_s=self._interval_s, random=self._random)
            remembered = Remembered(first)
        self._schedule, self._traffic = remembered.schedule, remembered.traffic
        self._delivery.rejects_in_a_row = self._schedule.rejects_in_a_row
        if self._schedule.outcome is Outcome.GONE:
            self._last.end(Outcome.GONE, _ENDED)

    def _save(self) -> None:
        """Not under the lock that `stop` needs: a disk may hang."""
        if self._schedule_file is not None:
            with self._wake:
                remembered = Remembered(self._schedule, self._traffic)
                now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
            self._schedule_file.save(self._endpoint, remembered, now_ns=now_ns, wall_ns=wall_ns)

    def threads(self) -> list[threading.Thread]:
        """The thread, for the accounting of costs."""
        thread = self._thread
        return [thread] if thread is not None and not self._foreign() else []

    # --- upload now -----------------------------------------------------------------------------------------

    def flush(self, timeout_s: float = limits.FLUSH_TIMEOUT_S) -> Flushed:
        """Uploads all that waits now, whatever the schedule says; returns when that is done.

        Our own back-off does not hold it up; a server's Retry-After, `may_send`, the plan, `hold_s` and a programme
        that has ended do. With a thread it returns after `timeout_s` at the latest. Without one the upload runs
        in the caller's thread, and no request begins after `timeout_s` or `stop`.
        """
        if self._foreign():
            return Flushed(False, False, None, "a child made by fork delivers nothing; its parent does")
        with self._wake:
            self._pid = os.getpid()
            self._resume()
            try:
                remaining = self._present()
            except Exception as error:  # a spool that breaks its promise
                return Flushed(False, False, None, f"the spool failed ({type(error).__name__})")
            if not remaining:
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
                result, why = self._round(Round(stop, deadline_ns, flush=True)), ""
        finally:
            with self._wake:
                self._undelivered = [other for other in self._undelivered if other is not remaining]
        try:
            settled = remaining.isdisjoint(self._present())
        except Exception:  # what it failed with is in the round's result
            settled = False
        if settled and remaining:
            why = "some batches were lost on this device or refused for good: see the counters of the spool"
        if result.outcome is not Outcome.DELIVERED:
            why = why or result.held or result.detail
        why = why or result.held or result.left or self._told_of_controls()
        why = why or f"not all was sent within {timeout_s:g} s"
        return Flushed(settled, not remaining, result.outcome, why if remaining else "")

    def _present(self) -> set[str]:
        """Ids of the batches and control records that wait."""
        return {*self._spool.waiting(), *(record.record_id for record in self._spool.controls())}

    def _something_waits(self) -> bool:
        try:
            return bool(self._spool.waiting()) or bool(self._spool.controls())
        except Exception:  # the round will tell, and the schedule say when to look again
            return True

    def _told_of_controls(self) -> str:
        return next((problem.message for problem in self._controls.problems()), "")

    def _flush_in_thread(self, timeout_s: float, stop: threading.Event) -> tuple[Round, str]:
        with self._wake:
            self._flush_asked += 1
            ticket = self._flush_asked
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._flush_done >= ticket or stop.is_set(), timeout_s)
            if self._flush_done >= ticket:
                return self._flushed, ""
        why = "the uploader was stopped" if stop.is_set() else f"still busy after {timeout_s:g} s"
        return Round(stop), why

    # --- the thread -----------------------------------------------------------------------------------------

    def _foreign(self) -> bool:
        """In a child made by `fork`, where the thread is not and locks may be held for ever."""
        return self._pid not in (0, os.getpid())

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stop.is_set()

    def _run(self, stop: threading.Event) -> None:
        self._save()
        while not stop.is_set():
            flush = self._sleep(stop)
            if stop.is_set():
                break
            run = self._round(Round(stop, flush=flush is not None))
            with self._wake:
                self._flushed = run
                self._flush_done = max(self._flush_done, flush or 0)
                self._wake.notify_all()
        if self._stop is stop:  # not started again meanwhile
            self._save()

    def _sleep(self, stop: threading.Event) -> int | None:
        """Waits until an upload is due; gives the newest flush that it answers, None when it answers none."""
        with self._wake:
            while not stop.is_set():
                if self._flush_asked > self._flush_done:
                    self._idle = False
                    return self._flush_asked
                now_ns = self._clock.monotonic_ns()
                waiting = self._something_waits()
                if waiting and self._idle:
                    self._schedule = self._schedule.woken(now_ns, self._interval_s, self._random)
                self._idle = not waiting
                wait_s = self._schedule.wait_s(now_ns) if waiting else None
                if wait_s == 0:
                    return None
                self._wake.wait(None if wait_s is None else min(wait_s, threading.TIMEOUT_MAX))
        return None

    # --- one round ------------------------------------------------------------------------------------------

    def _round(self, run: Round) -> Round:
        with self._sending:
            schedule, now_ns = self._schedule, self._clock.monotonic_ns()
            if schedule.next_attempt_ns is None:
                run.end(Outcome.GONE, self._last.detail)
            elif run.flush and now_ns < schedule.not_before_ns:
                if schedule.outcome is Outcome.GONE:
                    run.end(Outcome.GONE, _ENDED)
                else:
                    wait_s = (schedule.not_before_ns - now_ns) / _SECOND_NS
                    run.end(Outcome.RETRY, f"the receiver asks to wait {wait_s:.0f} s more")
            else:
                self._delivery.carry_out(run)
                self._conclude(run)
            return run

    # --- one request: the `Line` of `Delivery` --------------------------------------------------------------

    def permit(self, run: Round, /) -> Permit | None:
        """Part of how a round is carried out, not for callers."""
        now_ns = self._clock.monotonic_ns()
        wait_s = self._traffic.wait_s(now_ns)
        begins_ns = now_ns + int(wait_s * _SECOND_NS)
        if run.deadline_ns is not None and begins_ns >= run.deadline_ns:
            return None
        if wait_s > 0:
            run.stop.wait(wait_s)
        if run.stop.is_set():
            return None
        forbidden, plan = self._forbidden(), self._constraints()
        min_age_s: float | None = self.hold_s
        left = "batches are held on this device for a while before they go (hold_s)" if self.hold_s else ""
        control = True
        if plan.allowed is not Allowed.ALL:
            # What is older than the fallback age goes all the same, and the control records with it.
            min_age_s = max(self.hold_s, self._fallback_age_s)
            left = plan.reason or "nothing may be sent now"
            old = forbidden is None and bool(self._spool.waiting(min_age_s))
            min_age_s = min_age_s if old else None
            control = old or plan.allowed is Allowed.CONTROL
        spent_bytes = self._traffic.bytes_last_hour(self._clock.monotonic_ns())
        room_bytes = plan.bytes_per_hour
        if room_bytes is not None:
            room_bytes = max(0, room_bytes - spent_bytes)
        if forbidden is not None:
            min_age_s = None
        crowded = spent_bytes > 0 or plan.bytes_per_hour == 0
        return Permit(control, min_age_s, room_bytes, crowded, forbidden, left)

    def send(self, batches: Sequence[SealedBatch], permit: Permit, run: Round, /) -> Reply | None:
        """Part of how a round is carried out, not for callers."""
        size_bytes = sum(len(batch.data) for batch in batches)
        return self._request(partial(self._transport.send, batches), permit, run, size_bytes)

    def send_control(self, records: Sequence[ControlRecord], permit: Permit, run: Round, /) -> Reply | None:
        """Part of how a round is carried out, not for callers."""
        return self._request(partial(self._transport.send_control, records), permit, run, None)

    def _request(
        self, send: Callable[[], Reply], permit: Permit, run: Round, data_bytes: int | None
    ) -> Reply | None:
        """The reply to one request after a few attempts; None when none may be made (any more)."""
        permits = [permit]

        def attempt() -> Reply | None:
            # Asked first, since a sleep that `stop` ends is followed by one more attempt.
            now = permits.pop() if permits else self.permit(run)
            if now is None:
                return None
            if data_bytes is not None:
                run.held = now.forbidden
                if not now.covers(permit) or not now.fits(data_bytes):
                    run.left = now.left or HOUR_USED_UP
                    return None
            elif not now.control:
                run.left = now.left
                return None
            reply = self._send(send, run)
            run.cause = "retry"  # what follows, until another request sets it
            return reply

        from tenacity import (
            Retrying,
            retry_if_result,
            wait_random_exponential,
        )  # a megabyte, not before it is used

        def pause(wait_s: float) -> None:
            run.stop.wait(wait_s)

        self._budget.request()
        retrying = Retrying(
            stop=lambda state: state.attempt_number >= self._attempts or not self._budget.take(),
            wait=wait_random_exponential(
                multiplier=limits.ATTEMPT_WAIT_FIRST_S, max=limits.ATTEMPT_WAIT_CAP_S
            ),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
            sleep=pause,
            retry=retry_if_result(partial(_soon_again, run)),
        )
        reply: Reply | None = retrying(attempt)
        return reply

    def _send(self, send: Callable[[], Reply], run: Round) -> Reply:
        try:
            reply = send()
        except Exception as error:  # a transport that breaks its promise must not end the thread
            reply = Reply(Outcome.RETRY, detail=f"the transport failed ({type(error).__name__})")
        run.note(reply)
        with self._wake:
            self._traffic = self._traffic.noted(self._clock.monotonic_ns(), reply.bytes_sent)
        return reply

    def _forbidden(self) -> str | None:
        try:
            return self._may_send()
        except Exception as error:  # the host's own code; nothing is sent on a doubt
            return f"whether sending is allowed cannot be told ({type(error).__name__})"

    def _constraints(self) -> SendPlan:
        try:
            return self._plan()
        except Exception as error:  # as above
            return SendPlan(Allowed.NOTHING, f"the plan cannot be told ({type(error).__name__})")

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
                    progress=bool(run.delivered),
                )
            elif not run.stop.is_set():  # held, or nothing was there to send
                self._schedule = self._schedule.held(now_ns, interval_s=interval_s)
            self._schedule = replace(self._schedule, rejects_in_a_row=self._delivery.rejects_in_a_row)
            before = self._statistics
            self._statistics = UploadStatistics(
                requests=before.requests + run.requests.total(),
                bytes_sent=before.bytes_sent + run.bytes_sent.total(),
                requests_by_cause=dict(run.requests + Counter(before.requests_by_cause)),
                bytes_by_cause=dict(run.bytes_sent + Counter(before.bytes_by_cause)),
                requests_by_outcome=dict(run.outcomes + Counter(before.requests_by_outcome)),
                delivered_batches=before.delivered_batches + len(run.delivered),
                duplicate_batches=before.duplicate_batches + run.duplicates,
                last_outcome=run.outcome.value if run.outcome else before.last_outcome,
                last_detail=run.detail if run.outcome else run.left or before.last_detail,
            )
            for remaining in self._undelivered:
                remaining.difference_update(run.delivered, run.carried_out, run.pending)
            self._last = run
            problem = run.problem(self._schedule.failures)
            if run.outcome is Outcome.DELIVERED:
                self._told.clear()
            news = problem is not None and run.held is None and run.outcome not in self._told
            if news:
                self._told.add(run.outcome)
        self._save()
        if news and problem is not None:
            _log.warning("mcilib: %s. %s", without_home(problem.message), problem.next_step)

    # --- what came of it ------------------------------------------------------------------------------------

    def statistics(self) -> UploadStatistics:
        """Counts since this object was made; `delivered_batches` includes the duplicates."""
        if self._foreign():
            return UploadStatistics()
        with self._wake:
            due_s = self._schedule.wait_s(self._clock.monotonic_ns())
            planned = self._running() and self._something_waits()
            return replace(self._statistics, next_attempt_s=due_s if planned else None)

    def totals(self) -> UploadStatistics:
        """The same without `next_attempt_s`. Waits for nothing: not for a disk either."""
        return UploadStatistics() if self._foreign() else self._statistics

    def health(self) -> Health:
        """What is wrong with the last upload, in words."""
        if self._foreign():
            return Health()
        with self._wake:
            problems = (self._last.problem(self._schedule.failures), *self._controls.problems())
            return Health(tuple(problem for problem in problems if problem is not None))


def _soon_again(run: Round, reply: Reply | None) -> bool:
    """Whether a few attempts in quick succession make sense: not when the server asks for time, nor where a whole fleet
    would make them at the beginning of an outage."""
    if reply is None or reply.outcome is not Outcome.RETRY or reply.retry_after_s > 0:
        return False
    return run.flush or bool(run.delivered)
