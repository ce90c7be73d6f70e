"""Sources on while the participant is there, and off while the session is locked or behind another user's."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.errors import SourceError
from mcilib.events import Gap
from mcilib.policy.plan import Motion, Plan
from mcilib.protocols import Session, Source
from mcilib.recorder import Recorder
from mcilib.statistics import Health, Problem

_log = logging.getLogger("mcilib")

_INTERRUPTS_MAX = 20
"""Ctrl-C this often during one step of `stop` leaves that step undone."""

HELD_WORDS = {"locked": "the session is locked", "switched": "another user's session is in the foreground"}

_BARRED = "barred"  # why nothing is captured when the plan says so


class Capture:
    """Starts and stops `sources` as `session` and the plan tell. Those that read the same system read it together.

    What sources have heard and not yet told when the session is locked is excluded. `start` raises what a source or
    the session does; nothing raises afterwards. Sources that cannot go on after a lock are tried again in a thread
    `mcilib-resume`, `health` says so, and what they miss becomes a `Gap` of each. A session that cannot say whether it
    is away is taken to be as it was. `on_turn` is called after each change, in the thread of who told it. Any thread.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        session: Session,
        clock: Clock,
        on_turn: Callable[[], object] = lambda: None,
    ) -> None:
        # The pointer last: displays and layouts are rows before the first move, and not the end of its batch.
        self._sources = tuple(sorted(sources, key=lambda source: source.name == "pointer"))
        self._session, self._clock, self._on_turn = session, clock, on_turn
        self._turning = threading.Lock()  # sources on and off, one at a time
        self._deciding = threading.Lock()  # what the session says, and the recorder held or not: together
        self._recorder: Recorder | None = None
        self._own: list[tuple[float | None, bool | None]] = []  # of each source: read interval and motion
        self._barred: str | None = None  # why the plan lets nothing be captured
        self._on = False  # all sources are started
        self._hold_count = 0
        self._away: str | None = None
        self._session_failure: Exception | None = None
        self._not_resumed: SourceError | None = None
        self._blind_ns: int | None = None  # since when sources should hear and cannot
        self._resuming: threading.Thread | None = None
        self._ended = threading.Event()

    def threads(self) -> list[threading.Thread]:
        """Of all parts, as they are now."""
        parts = [thread for part in (*self._sources, self._session) for thread in _threads_of(part)]
        resuming = self._resuming
        return parts if resuming is None or not resuming.is_alive() else [*parts, resuming]

    @property
    def held(self) -> str | None:
        """Why nothing is captured just now, in words."""
        away, barred = self._away, self._barred
        if away == _BARRED:
            return barred
        return None if away is None else HELD_WORDS.get(away, f"the session is {away}")

    @property
    def session_away(self) -> bool:
        """Whether the session was locked or behind another user's when it was last asked."""
        return self._away not in (None, _BARRED)

    def begin(self) -> None:
        """Before each `start`: an `interrupt` from here on ends it."""
        # First: whoever sees the new event does not see the old recorder.
        self._recorder = self._away = None
        self._ended = threading.Event()
        self._own = [(getattr(s, "read_interval_s", None), getattr(s, "motion", None)) for s in self._sources]

    def start(self, recorder: Recorder) -> None:
        """Into `recorder`, which runs. Returns when all sources hear, or are held, or `interrupt` was called."""
        readers: list[Any] = [source for source in self._sources if hasattr(source, "read_with")]
        for reader in readers[1:]:
            reader.read_with(readers[0])
        with self._turning:
            self._recorder, self._on, self._away = recorder, False, None
        self._session.start(self._turn)
        _ = self._session.away  # what it raises, it raises here
        with self._turning:
            if self._decide(recorder, self._ended) is None and not self._on:
                self._on = self._start_sources(recorder, self._ended)
        if self._away is not None:
            self._on_turn()

    def adopt(self, plan: Plan) -> None:
        """Sources read no more often and tell no more motion than `plan` allows, nor than they were set to before the
        start. One call at a time, from any thread; waits for nothing: capture ends, or goes on, in another thread.
        Nothing after `stop`."""
        if self._ended.is_set():
            return
        self._lower(plan)
        why = "; ".join(plan.reasons) or "the plan says so"
        before, self._barred = self._barred, None if plan.capture else why
        if (before is None) != (self._barred is None):
            with contextlib.suppress(RuntimeError):  # no more threads: the next change of the session tells
                threading.Thread(target=self._turn, name="mcilib-plan", daemon=True).start()

    def _lower(self, plan: Plan) -> None:
        for source, (read_interval_s, motion) in zip(self._sources, self._own, strict=False):
            lowered: dict[str, Any] = {}
            if read_interval_s is not None:
                lowered["read_interval_s"] = max(read_interval_s, plan.read_interval_s)
            if motion is not None:
                lowered["motion"] = motion and plan.motion is not Motion.NONE
            try:
                for lever, value in lowered.items():
                    if getattr(source, lever) != value:
                        setattr(source, lever, value)
            except Exception as error:  # somebody else's
                _log.error("mcilib: the %s does not follow the plan (%s)", source.name, type(error).__name__)

    def interrupt(self) -> None:
        """Ends a start that waits for a source. Also from a signal handler."""
        self._ended.set()
        carry_out([source.stop for source in self._sources])

    def stop(self) -> None:
        """At most 0.5 s. Also from a signal handler."""
        self._ended.set()
        stop_together([*(source.stop for source in self._sources), self._session.stop, self._join_resuming])
        self._tell_gap()
        self._lower(Plan())

    def health(self) -> Health:
        parts = [Health.of("capture", self._not_resumed), *map(_health_of, self._sources)]
        if self._session_failure is not None:
            message = f"Whether the session is locked cannot be told ({type(self._session_failure).__name__})"
            parts.append(Health((Problem("session", message, "Mend what tells it."),)))
        return Health.join([*parts, _health_of(self._session)])

    # --- as the session tells --------------------------------------------------------------------------------

    def _turn(self) -> None:
        """As the session has it now. Sources are stopped in the caller's thread, and started in one of their own, so
        that a session which is locked meanwhile can tell."""
        ended = self._ended  # before the recorder: see `begin`
        recorder = self._recorder
        if recorder is None or ended.is_set():
            return
        away = self._decide(recorder, ended)
        self._on_turn()
        if away is None:
            self._resume_later(recorder, ended)
            return
        if not self._turning.acquire(blocking=False):
            self._stop_sources()  # ends a start that waits
            self._turning.acquire()
        try:
            if self._away is not None and not ended.is_set():
                self._stop_sources()
                self._on = False
        finally:
            self._turning.release()
        if self._away is None:  # somebody else has decided so meanwhile, and taken the sources to be on
            self._resume_later(recorder, ended)

    def _decide(self, recorder: Recorder, ended: threading.Event) -> str | None:
        """Why nothing is to be captured; the recorder is held or not accordingly, before anything else is done."""
        with self._deciding:
            if ended.is_set():
                return self._away
            before, self._away = self._away, self._ask_session()
            if self._away is not None:
                self._tell_gap()
                recorder.hold()
                self._hold_count += before is None
            else:
                recorder.release()
            if self._away != before:
                _log.info(
                    "mcilib: %s", f"nothing is collected: {self.held}" if self.held else "collecting again"
                )
            return self._away

    def _ask_session(self) -> str | None:
        away: str | None
        try:
            away, self._session_failure = self._session.away, None
        except Exception as error:  # somebody else's
            self._session_failure = error
            away = self._away if self.session_away else None
        return away or (_BARRED if self._barred is not None else None)

    def _start_sources(self, recorder: Recorder, ended: threading.Event) -> bool:
        """True when all are started and nobody wanted them stopped meanwhile. With `_turning` held."""
        hold_count = self._hold_count
        for source in self._sources:
            if ended.is_set() or self._away is not None or self._hold_count != hold_count:
                break
            source.start(recorder)
        if not ended.is_set() and self._away is None and self._hold_count == hold_count:
            return True
        self._stop_sources()
        return False

    def _stop_sources(self) -> None:
        stop_together([source.stop for source in self._sources])

    # --- back again ------------------------------------------------------------------------------------------

    def _resume_later(self, recorder: Recorder, ended: threading.Event) -> None:
        with self._deciding:
            if self._on or self._resuming is not None:
                return
            resuming = threading.Thread(
                target=self._resume, args=(recorder, ended), name="mcilib-resume", daemon=True
            )
            try:
                resuming.start()
                self._resuming = resuming
            except RuntimeError:  # no more threads
                error = SourceError("No thread can be started", "Start the collector again.")
                self._fail(error, self._clock.monotonic_ns())

    def _resume(self, recorder: Recorder, ended: threading.Event) -> None:
        pause_s = limits.RECONNECT_FIRST_S
        while self._to_resume(ended):
            with self._turning:
                self._try_to_resume(recorder, ended)
            if not self._on and self._away is None:
                ended.wait(pause_s)
                pause_s = min(2 * pause_s, limits.RECONNECT_IDLE_S)

    def _to_resume(self, ended: threading.Event) -> bool:
        """False ends the thread; together with `_resume_later`, so that one of them goes on."""
        with self._deciding:
            if self._away is None and not self._on and not ended.is_set():
                return True
            if self._resuming is threading.current_thread():  # and not of another run
                self._resuming = None
            return False

    def _try_to_resume(self, recorder: Recorder, ended: threading.Event) -> None:
        if self._on:  # it was only being started
            return
        began_ns = self._clock.monotonic_ns()
        try:
            self._on = self._start_sources(recorder, ended)
        except Exception as error:
            self._stop_sources()
            with self._deciding:
                if not ended.is_set() and self._away is None:
                    self._fail(_as_source_error(error), began_ns)
            return
        if self._on:
            with self._deciding:
                self._tell_gap()

    def _fail(self, error: SourceError, began_ns: int) -> None:
        if self._not_resumed is None:
            _log.warning("mcilib: capture cannot go on after a lock (%s)", error)
            self._blind_ns = began_ns
        self._not_resumed = error

    def _tell_gap(self) -> None:
        """What the sources have missed since they should hear again, up to now."""
        since_ns, self._blind_ns, self._not_resumed = self._blind_ns, None, None
        if since_ns is not None and self._recorder is not None:
            lasted_ns = self._clock.monotonic_ns() - since_ns
            for source in self._sources:
                self._recorder.emit(Gap(since_ns, lasted_ns, source.name))

    def _join_resuming(self) -> None:
        resuming = self._resuming
        if resuming is not None and resuming is not threading.current_thread():
            resuming.join(limits.SOURCE_STOP_TIMEOUT_S)


def stop_together(
    stops: Sequence[Callable[[], object]], timeout_s: float = limits.SOURCE_STOP_TIMEOUT_S
) -> None:
    """All at once, so that one that hangs does not keep the others, nor the caller for more than `timeout_s`."""
    stopping = []
    for stop in stops:
        thread = threading.Thread(target=carry_out, args=([stop],), daemon=True)
        try:
            thread.start()
            stopping.append(thread)
        except RuntimeError:  # Python 3.12 starts no thread once the interpreter ends
            carry_out([stop])
    ends_s = time.monotonic() + timeout_s
    for thread in stopping:
        thread.join(max(0.0, ends_s - time.monotonic()))


def carry_out(steps: Sequence[Callable[[], object]]) -> None:
    """Every step, also after one that fails or is interrupted; an interrupted one is done again."""
    interrupt: BaseException | None = None
    for step in steps:
        for _ in range(_INTERRUPTS_MAX):
            try:
                step()
            except Exception as error:  # a part of the host's; the others must still be stopped
                _log.error("mcilib: a part did not stop cleanly (%s)", type(error).__name__)
            except BaseException as caught:
                interrupt = caught
                continue
            break
    if interrupt is not None:
        raise interrupt


def _as_source_error(error: Exception) -> SourceError:
    if isinstance(error, SourceError):
        return error
    return SourceError(f"A source cannot be started ({type(error).__name__})", "Mend it.")


def _health_of(part: Source | Session) -> Health:
    try:
        return part.health()
    except Exception as error:  # somebody else's
        message = f"Its health cannot be told ({type(error).__name__})"
        return Health((Problem(getattr(part, "name", "session"), message, "Mend it."),))


def _threads_of(part: object) -> list[threading.Thread]:
    try:
        return list(getattr(part, "threads", list)())
    except Exception:  # somebody else's
        return []
