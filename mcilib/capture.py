"""Sources on while they may hear, and off while the session, the plan or the participant says so."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from mcilib import limits
from mcilib.clock import Clock
from mcilib.consent.state import kinds_of
from mcilib.errors import SourceError
from mcilib.events import Gap
from mcilib.files import without_home
from mcilib.policy.plan import Motion, Plan
from mcilib.protocols import Session, Source
from mcilib.recorder import Recorder
from mcilib.statistics import Health, Problem

_log = logging.getLogger("mcilib")

_INTERRUPTS_MAX = 20
"""Ctrl-C this often during one step of `stop` leaves that step undone."""

_UNTOLD = "you are to be told first that it goes on"

HELD_WORDS = {"locked": "the session is locked", "switched": "another user's session is in the foreground"}


class Capture:
    """Starts and stops `sources` as `session`, the plan and the participant tell: any of them keeps them off. Those
    that read the same system read it together.

    What sources have heard and not yet told when they are stopped is excluded. `start` raises what a source or the
    session does; nothing raises afterwards. What goes on is started in a thread `mcilib-resume`; sources that cannot
    are tried again there, `health` says so, and what they miss becomes a `Gap` of each. A session that cannot say
    whether it is away is taken to be as it was. `on_turn` is called after each change, in the thread of who told it.
    `on_resume` tells the participant that something they had barred goes on: it is called before that does, in
    `mcilib-resume`, and again later when it returns False or raises; until it has told them, all that stays off. Any
    thread.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        session: Session,
        clock: Clock,
        on_turn: Callable[[], object] = lambda: None,
        on_resume: Callable[[], bool] = lambda: True,
    ) -> None:
        # The pointer last: displays and layouts are rows before the first move, and not the end of its batch.
        self._sources = tuple(sorted(sources, key=lambda source: source.name == "pointer"))
        self._session, self._clock, self._on_turn, self._on_resume = session, clock, on_turn, on_resume
        self._turning = threading.Lock()  # sources on and off, one at a time
        self._deciding = threading.Lock()  # what is wanted, and the recorder held or not: together
        self._tried = threading.Condition(self._deciding)  # `_tried_openings` has grown
        self._recorder: Recorder | None = None
        self._own: list[tuple[float | None, bool | None]] = []  # of each source: read interval and motion
        self._scopes: dict[str, str] = {}  # of each source, by name, as it was before titles were barred
        self._on: set[str] = set()  # sources that are started
        self._starting: set[str] = set()  # those that are being started
        self._wish: frozenset[str] = frozenset()  # those that were to be, when it was decided last
        self._stopping: list[threading.Thread] = []  # who may still be stopping some of them
        self._closings = 0  # how often one of them no longer was
        # Why nothing is captured.
        self._barred: str | None = None  # as the plan says
        self._paused: str | None = None  # as the participant says
        self._away: str | None = None  # as the session says
        self._held: str | None = None  # any of them, in words
        # Scopes that the participant has barred; what they have opened again and were not told of yet.
        self._closed: frozenset[str] = frozenset()
        self._untold: frozenset[str] = frozenset()
        self._untold_all = False
        self._openings = self._tried_openings = 0
        self._silent = False  # the participant could not be told
        self._session_failure: Exception | None = None
        self._not_resumed: SourceError | None = None
        self._blind_ns: int | None = None  # since when sources should hear and cannot
        self._missing: list[str] = []  # these
        self._resuming: threading.Thread | None = None
        self._stirred = (
            threading.Event()
        )  # something has changed: nobody waits any longer before he tries again
        self._ended = threading.Event()

    def threads(self) -> list[threading.Thread]:
        """Of all parts, as they are now."""
        parts = [thread for part in (*self._sources, self._session) for thread in _threads_of(part)]
        resuming = self._resuming
        return parts if resuming is None or not resuming.is_alive() else [*parts, resuming]

    @property
    def held(self) -> str | None:
        """Why nothing is captured just now, in words."""
        return self._held

    @property
    def all_exempt(self) -> bool:
        """Whether the participant has barred the scope of each source, so that none may hear. From `begin` on."""
        return not any(self._wants(source, self._closed) for source in self._sources)

    @property
    def session_away(self) -> bool:
        """Whether the session was locked or behind another user's when it was last asked."""
        return self._away is not None

    def begin(self) -> None:
        """Before each `start`: an `interrupt` from here on ends it. What `bar` said of the run before is forgotten."""
        # First: whoever sees the new event does not see the old recorder.
        self._recorder = self._away = self._held = self._resuming = None
        self._stopping = []
        self._ended = threading.Event()
        self._own = [(getattr(s, "read_interval_s", None), getattr(s, "motion", None)) for s in self._sources]
        self._scopes = {source.name: source.scope for source in self._sources}
        self._paused, self._closed = None, frozenset()
        self._untold, self._untold_all, self._silent = frozenset(), False, False  # a start is told anyway

    def start(self, recorder: Recorder) -> None:
        """Into `recorder`, which runs. Returns when all sources hear that may, or `interrupt` was called."""
        readers: list[Any] = [source for source in self._sources if hasattr(source, "read_with")]
        for reader in readers[1:]:
            reader.read_with(readers[0])
        with self._turning:
            self._recorder, self._on, self._wish = recorder, set(), frozenset()
        self._session.start(self._turn)
        _ = self._session.away  # what it raises, it raises here
        with self._turning:
            if self._decide(recorder, self._ended) is None:
                self._start_sources(recorder, self._ended)
        if self._held is not None:
            self._on_turn()

    def bar(self, all: str | None, scopes: Collection[str]) -> None:
        """As the participant has decided, once the gate knows of it: `all`, why nothing at all is captured, in words,
        or None; and the `scopes` of which nothing is. Nothing of that is taken any more at once, whatever the disk
        does, and when this returns the sources are stopped. What is open again is started in `mcilib-resume`. A source
        of window titles goes on without them when they alone are barred. Also before `start`."""
        with self._deciding:
            closed = frozenset(scopes)
            scopes_here = set(self._scopes.values())
            opens = frozenset(
                scope
                for scope in self._closed - closed
                if scope in scopes_here or (scope == "apps" and "titles" in scopes_here)
            )
            if opens or (self._paused is not None and all is None):
                self._openings += 1
                self._untold_all |= self._paused is not None
                self._untold |= opens
            closes = closed - self._closed - self._untold
            self._untold -= closed
            self._untold_all &= all is None
            self._closed, self._paused = closed, all
            recorder, ended = self._recorder, self._ended
            if recorder is None or ended.is_set():
                return
            if all is not None:
                recorder.hold()  # before anybody is asked anything
            for source in self._sources:  # it is not asked for titles any more
                if self._scopes[source.name] == "titles" and "titles" in closed:
                    _tell_titles(source, False)
            still = frozenset(self._scopes[source.name] for source in self._sources if self._wants(source))
            kinds = kinds_of(closes) - kinds_of(still)
            recorder.settle(kinds, blind="focus" in kinds)
        self._turn()

    def await_resumed(self, timeout_s: float) -> None:
        """Until what the participant has opened goes on, or was tried in vain; at most so long."""
        with self._tried:
            openings = self._openings
            self._tried.wait_for(
                lambda: self._tried_openings >= openings or not self._lacks() or self._ended.is_set(),
                timeout_s,
            )

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
        self._stirred.set()
        carry_out([source.stop for source in self._sources])

    def stop(self) -> None:
        """At most 0.5 s. Also from a signal handler."""
        self._ended.set()
        self._stirred.set()
        stop_together([*stops_of(self._sources), self._session.stop, self._join_resuming])
        self._tell_gap()
        self._lower(Plan())
        for source in self._sources:
            _tell_titles(source, self._scopes.get(source.name) == "titles")

    def health(self) -> Health:
        parts = [Health.of("capture", self._not_resumed), *map(_health_of, self._sources)]
        if self._silent:
            message = "Nothing goes on: you could not be told of it"
            parts.append(
                Health((Problem("indicator", message, "Let it notify you, or run it on a terminal."),))
            )
        if self._session_failure is not None:
            message = f"Whether the session is locked cannot be told ({type(self._session_failure).__name__})"
            parts.append(Health((Problem("session", message, "Mend what tells it."),)))
        return Health.join([*parts, _health_of(self._session)])

    # --- what is wanted --------------------------------------------------------------------------------------

    def _off(self) -> frozenset[str]:
        return self._closed | self._untold

    def _wants(self, source: Source, off: frozenset[str] | None = None) -> bool:
        """Whether its scope is open; one of titles goes on without them."""
        scope, off = self._scopes[source.name], self._off() if off is None else off
        if scope == "titles":
            return "apps" not in off and ("titles" not in off or hasattr(source, "titles"))
        return scope not in off

    def _wanted(self) -> list[Source]:
        """Those that are to hear now."""
        return [] if self._held is not None else [source for source in self._sources if self._wants(source)]

    def _unwanted(self) -> list[Source]:
        """Those that hear, or will, and are not to, and those that are to tell titles again: they begin anew."""
        wanted, on = self._wanted(), self._on | self._starting
        return [
            source
            for source in self._sources
            if source.name in on and (source not in wanted or self._keeps_titles_back(source))
        ]

    def _keeps_titles_back(self, source: Source) -> bool:
        return (
            self._scopes[source.name] == "titles"
            and getattr(source, "titles", None) is False
            and "titles" not in self._off()
        )

    # --- as the session, the plan and the participant tell ---------------------------------------------------

    def _turn(self) -> None:
        """As they have it now. Sources are stopped in the caller's thread, and started in one of their own, so that a
        session which is locked meanwhile can tell."""
        ended = self._ended  # before the recorder: see `begin`
        recorder = self._recorder
        if recorder is None or ended.is_set():
            return
        self._decide(recorder, ended)
        if unwanted := self._unwanted():
            stopped, late = list[Source](), list[threading.Thread]()
            if not self._turning.acquire(blocking=False):
                stopped, late = unwanted, stop_sources(unwanted)  # ends a start that waits
                self._turning.acquire()
            try:
                self._stopping += late
                if not ended.is_set():
                    self._stop_unwanted(recorder, stopped)
            finally:
                self._turning.release()
        self._on_turn()
        self._resume_later(recorder, ended)
        self._stirred.set()

    def _stop_unwanted(self, recorder: Recorder, stopped: Sequence[Source] = ()) -> None:
        """With `_turning` held. Also those that were `stopped` without it: they may have been started before that, or
        since, and be wanted again."""
        unwanted = self._unwanted()
        if unwanted := [source for source in self._sources if source in unwanted or source in stopped]:
            self._stopping += stop_sources(unwanted)
            self._on -= {source.name for source in unwanted}
            if any(map(self._tells_programs, unwanted)):
                recorder.settle(blind=True)  # which program is in use, until it tells again

    def _decide(self, recorder: Recorder, ended: threading.Event) -> str | None:
        """Why nothing is to be captured; the recorder is held or not accordingly, before anything else is done."""
        with self._deciding:
            if ended.is_set():
                return self._held
            before = self._held
            self._away = self._ask_session()
            self._held = self._why_held(recorder)
            wish = frozenset(source.name for source in self._wanted())
            self._closings += bool(self._wish - wish)
            self._wish = wish
            self._silent &= self._paused is None and bool(self._untold or self._untold_all)
            if self._held is not None or not self._lacks():
                self._tell_gap()
            if self._held is not None:
                recorder.hold()
            else:
                recorder.release()
            if (before is None) != (self._held is None):
                _log.info(
                    "mcilib: %s", f"nothing is collected: {self._held}" if self._held else "collecting again"
                )
            return self._held

    def _why_held(self, recorder: Recorder) -> str | None:
        if self._paused is not None:
            return self._paused
        if self._away is not None:
            return HELD_WORDS.get(self._away, f"the session is {self._away}")
        if self._barred is not None:
            return self._barred
        if recorder.guards_programs and not self._sees_programs(self._closed):
            return "programs are exempt, and nothing here tells which one is in use"
        if self._untold_all or (recorder.guards_programs and not self._sees_programs(self._off())):
            return _UNTOLD
        return None

    def _sees_programs(self, off: frozenset[str]) -> bool:
        return any(self._tells_programs(source, off) for source in self._sources)

    def _tells_programs(self, source: Source, off: frozenset[str] | None = None) -> bool:
        return self._scopes[source.name] in ("apps", "titles") and self._wants(source, off)

    def _ask_session(self) -> str | None:
        try:
            away, self._session_failure = self._session.away, None
        except Exception as error:  # somebody else's
            self._session_failure = error
            return self._away
        return away

    def _start_sources(self, recorder: Recorder, ended: threading.Event) -> bool:
        """Starts those that are wanted and off; True when nobody wanted one of them stopped meanwhile. With `_turning`
        held. Those that were started when one raises are stopped again."""
        closings = self._closings
        begun: list[Source] = []
        self._await_stops()
        try:
            for source in self._wanted():
                if source.name in self._on:
                    continue
                begun.append(source)
                if self._scopes[source.name] == "titles":
                    _tell_titles(source, "titles" not in self._off())
                self._starting.add(source.name)  # before it is looked whether it is still to be
                if ended.is_set() or self._closings != closings:
                    break
                source.start(recorder)
            with self._deciding:
                if not ended.is_set() and self._closings == closings:
                    self._on |= self._starting
                    return True
            self._stopping += stop_sources(begun)
            return False
        except BaseException:
            self._stopping += stop_sources(begun)
            raise
        finally:
            self._starting = set()

    def _await_stops(self) -> None:
        """Else a stop that took longer than it was waited for would stop what is started now."""
        for thread in self._stopping:
            thread.join(limits.SOURCE_STOP_TIMEOUT_S)
        self._stopping = [thread for thread in self._stopping if thread.is_alive()]
        if self._stopping:
            raise SourceError(
                "A source is still being stopped", "Wait; if it never ends, start the program anew."
            )

    # --- on again --------------------------------------------------------------------------------------------

    def _lacks(self) -> bool:
        """Whether something is to be started, or the participant to be told so that it can be."""
        if (self._untold_all or self._untold) and self._held in (None, _UNTOLD):
            return True
        return any(source.name not in self._on for source in self._wanted())

    def _resume_later(self, recorder: Recorder, ended: threading.Event) -> None:
        with self._deciding:
            if self._resuming is not None or ended.is_set() or not self._lacks():
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
            self._stirred.clear()
            openings = self._openings
            if self._tell_participant(recorder, ended):
                with self._turning:
                    self._try_to_resume(recorder, ended)
            with self._tried:
                self._tried_openings = openings
                self._tried.notify_all()
            if self._lacks() and not ended.is_set():
                self._stirred.wait(pause_s)
                pause_s = min(2 * pause_s, limits.RECONNECT_IDLE_S)

    def _to_resume(self, ended: threading.Event) -> bool:
        """False ends the thread; together with `_resume_later`, so that one of them goes on."""
        with self._deciding:
            if self._lacks() and not ended.is_set():
                return True
            if self._resuming is threading.current_thread():  # and not of another run
                self._resuming = None
            return False

    def _tell_participant(self, recorder: Recorder, ended: threading.Event) -> bool:
        """True when the participant knows of all that is to go on."""
        with self._deciding:
            if not (self._untold_all or self._untold):
                return True
            openings = self._openings
        try:
            told = bool(self._on_resume())
        except Exception as error:  # of the host's
            _log.error("mcilib: you could not be told that it goes on (%s)", type(error).__name__)
            told = False
        with self._deciding:
            self._silent = not told
            if not told or self._openings != openings:
                return False
            self._untold, self._untold_all = frozenset(), False
        self._decide(recorder, ended)
        with self._turning:  # titles are told again
            if not ended.is_set():
                self._stop_unwanted(recorder)
        return True

    def _try_to_resume(self, recorder: Recorder, ended: threading.Event) -> None:
        began_ns = self._clock.monotonic_ns()
        try:
            started = self._start_sources(recorder, ended)
        except Exception as error:
            with self._deciding:
                if not ended.is_set() and self._lacks():
                    self._fail(_as_source_error(error), began_ns)
            return
        if started:
            with self._deciding:
                self._tell_gap()

    def _fail(self, error: SourceError, began_ns: int) -> None:
        if self._not_resumed is None:
            _log.warning("mcilib: capture cannot go on (%s)", without_home(error))
            self._blind_ns = began_ns
            self._missing = [source.name for source in self._wanted() if source.name not in self._on]
        self._not_resumed = error

    def _tell_gap(self) -> None:
        """What the sources have missed since they should hear again, up to now."""
        since_ns, self._blind_ns, self._not_resumed = self._blind_ns, None, None
        if since_ns is not None and self._recorder is not None:
            lasted_ns = self._clock.monotonic_ns() - since_ns
            for name in self._missing:
                self._recorder.emit(Gap(since_ns, lasted_ns, name))

    def _join_resuming(self) -> None:
        resuming = self._resuming
        if resuming is not None and resuming is not threading.current_thread():
            resuming.join(limits.SOURCE_STOP_TIMEOUT_S)


def stop_sources(sources: Sequence[Source]) -> list[threading.Thread]:
    return stop_together(stops_of(sources))


def stops_of(sources: Sequence[Source]) -> list[Callable[[], object]]:
    """What stops each of them; those that read together and all leave are stopped as one."""
    as_one = [source for source in sources if getattr(source, "leave_with", _stays)(sources)]
    stops: list[Callable[[], object]] = [source.stop for source in sources if source not in as_one]
    if as_one:
        stops.append(partial(carry_out, [source.stop for source in as_one]))
    return stops


def _stays(_: Sequence[Source]) -> bool:
    return False


def stop_together(
    stops: Sequence[Callable[[], object]], timeout_s: float = limits.SOURCE_STOP_TIMEOUT_S
) -> list[threading.Thread]:
    """All at once, so that one that hangs does not keep the others, nor the caller for more than `timeout_s`. Gives the
    threads that have not ended by then."""
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
    return [thread for thread in stopping if thread.is_alive()]


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


def _tell_titles(source: Source, titles: bool) -> None:
    """Has a source of window titles tell them or not; of one that was stopped."""
    if isinstance(getattr(source, "titles", None), bool):
        with contextlib.suppress(Exception):  # somebody else's
            source.titles = titles  # type: ignore[attr-defined]


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
