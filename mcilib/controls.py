"""What the participant decides, carried out in a running collector: in memory first, then on disk, then told."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mcilib import limits
from mcilib.capture import Capture
from mcilib.channel.server import ControlServer
from mcilib.clock import Clock
from mcilib.consent.exemption import Exemption, ExemptScope
from mcilib.consent.gate import Gate
from mcilib.consent.grant import SCOPES, Grant
from mcilib.consent.pause import Now, Pause
from mcilib.consent.state import ControlState
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.errors import GrantError
from mcilib.indicator import Indicator, Notice
from mcilib.language import Words
from mcilib.participant import Participant
from mcilib.protocols import Receipt
from mcilib.recorder import Recorder
from mcilib.statistics import Forgotten, Health, Problem

_log = logging.getLogger("mcilib")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ControlChange:
    """The participant, or the operator's answer, has changed something."""

    what: str
    """A name out of `mcilib.consent.commands.COMMANDS`, or `decided`, `confirmed`, `due` (a pause is over, hours have
    begun or ended, something has expired)."""
    state: ControlState
    held: str | None
    """Why nothing is captured now; None when something is."""
    exemption_id: str = ""
    """Which exemption was `decided`."""


class Controls:
    """Of one collector, for one run. Methods may be called from any thread; see `Collector` for what each does."""

    def __init__(
        self,
        folder: Path,
        spool: DirectorySpool,
        grant: Grant | None,
        *,
        clock: Clock,
        indicator: Indicator,
        pause_cap_s: float,
        policy: str | None,
        channel: Callable[[str, Mapping[str, Any]], Mapping[str, Any]] | None,
        on_control: Callable[[ControlChange], object],
        language: str,
    ) -> None:
        self._folder, self._clock = folder, clock
        self._indicator, self._policy, self._on_control = indicator, policy, on_control
        self.participant = Participant(
            folder, spool, clock=clock, pause_cap_s=pause_cap_s, on_change=self._carry_out, grant=grant
        )
        self._tr = Words(language)
        self.gate = Gate(grant, tr=self._tr) if grant is not None else None
        self._capture: Capture | None = None
        self._recorder: Recorder | None = None
        self._uploader: Uploader | None = None
        self._own_hold_s = 0.0
        self._acting = (
            threading.RLock()
        )  # what is in force is carried out, one at a time: never during a write
        self._erasing = threading.RLock()  # one deletion after the other, however long the disk takes
        self._deciding: list[int] = []  # threads in which something that was decided is carried out
        self._decided = threading.Condition()  # that one of them has done so
        self._held: str | None = None
        self._due_ns: int | None = None  # by boottime: when something changes by itself
        self._ahead_ns = 0  # of the wall clock before boottime, when it was last looked at
        self._looking = False  # a thread is on its way to look again
        self._problem: Problem | None = None  # of the channel
        self._server = ControlServer(folder, channel, self._note_channel) if channel is not None else None

    # --- life ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The spool is open. Raises `McilibError`: a grant that was withdrawn, a state that cannot be read."""
        self.participant.open()
        grant = self.gate.grant if self.gate is not None else None
        if grant is not None and self.participant.is_withdrawn(grant.participant):
            withdrawal = self.participant.state.withdrawal
            if withdrawal is None or withdrawal.confirmed_ns is not None:
                raise GrantError(
                    "This grant was withdrawn",
                    "Ask for a new one with `mcilib grant`; it gets another pseudonym.",
                )
            self.gate = None  # only to ask for the deletion that is still to be confirmed
        elif grant is not None and not self.participant.state.unreadable:
            self.participant.keep_to(grant)

    def begin(self, capture: Capture | None, recorder: Recorder | None, uploader: Uploader | None) -> None:
        """They run, but for `capture`, which is told what may be captured before it starts."""
        self._capture, self._recorder, self._uploader = capture, recorder, uploader
        self._own_hold_s = uploader.hold_s if uploader is not None else 0.0
        self._carry_out()
        if self._server is not None:
            self._server.start()

    def note_batch(
        self, batch_id: str, sequence: int, began_ns: int, ended_ns: int, kinds: Iterable[str]
    ) -> None:
        """From the recorder, before a batch is in the spool: times (monotonic) and kinds of its events."""
        gate = self.gate
        if gate is None:
            return
        now = self._now()

        def at(t_ns: int) -> Now:
            return replace(now, monotonic_ns=t_ns, wall_ns=now.wall_ns - (now.monotonic_ns - t_ns))

        scopes = {scope for scope in gate.grant.scopes if not set(SCOPES[scope].kinds).isdisjoint(kinds)}
        self.participant.journal.record(
            batch_id, sequence, at(began_ns), at(ended_ns), sorted(scopes), gate.grant
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def settle(self, timeout_s: float) -> None:
        """Waits until what was decided in other threads is carried out, or the time is over."""
        me = threading.get_ident()
        with self._decided:
            self._decided.wait_for(lambda: all(thread == me for thread in self._deciding), timeout_s)

    def close(self) -> None:
        """Before the spool is."""
        self.participant.close()

    def threads(self) -> list[threading.Thread]:
        return self._server.threads() if self._server is not None else []

    def health(self) -> Health:
        problems = [self._problem] if self._problem is not None else []
        gate = self.gate
        if gate is not None and gate.grant.expired(self._clock.wall_ns()):
            words = f"Nothing is collected: the grant expired at {gate.grant.expires_at}"
            problems.insert(0, Problem("consent", words, "Ask again."))
        return Health(tuple(problems))

    # --- what the participant decides ----------------------------------------------------------------------

    def pause(self, duration_s: float | None) -> Pause:
        return self._decide("pause", lambda: self.participant.pause(duration_s))

    def resume(self) -> None:
        self._decide("resume", self.participant.resume)

    def request_exemption(
        self, scope: ExemptScope, reason_class: str, note: str, until_ns: int | None
    ) -> Exemption:
        return self._decide(
            "exempt", lambda: self.participant.request_exemption(scope, reason_class, note, until_ns)
        )

    def withdraw_exemption(self, exemption_id: str) -> Exemption:
        return self._decide("unexempt", lambda: self.participant.withdraw_exemption(exemption_id))

    def hold(self, hold_s: float) -> None:
        self._decide("hold", lambda: self.participant.hold(hold_s))

    def ask(self, why: str) -> None:
        self._decide("ask", lambda: self.participant.ask(why))

    def answered(self) -> None:
        self._decide("answered", self.participant.answered)

    def forget(self, last_s: float) -> Forgotten:
        self.participant.check_forget(last_s)

        def step() -> Forgotten:
            with self._erasing:
                return self._discard_and(lambda: self.participant.forget(last_s))

        return self._decide("forget", step)

    def withdraw(self) -> Forgotten:
        gate = self.gate
        if gate is None:
            raise GrantError(
                "It is withdrawn already", "Nothing is collected; `mcilib status` says what is left."
            )

        def step() -> Forgotten:
            grant, before = gate.grant, self._excluded()
            self.participant.void(grant.participant, grant.device)  # at once, whatever the disk does
            with self._erasing:
                return self._discard_and(
                    lambda: self.participant.withdraw(grant.participant, grant.device), before
                )

        return self._decide("withdraw", step)

    def regrant(self, grant: Grant | None) -> Forgotten:
        gate = self.gate
        new = Grant.load(self._folder) if grant is None else grant
        if gate is None or (new.participant, new.device) != (gate.grant.participant, gate.grant.device):
            raise GrantError("The grant is another participant's", "Stop, and start with it.")
        if self.participant.is_withdrawn(new.participant):
            raise GrantError("This grant was withdrawn", "Stop, and ask for a new one: `mcilib grant`.")
        check_policy(new, self._policy)
        if new.expired(self._clock.wall_ns()):
            raise GrantError(f"The grant expired at {new.expires_at}", "Ask again with `mcilib grant`.")

        def step() -> Forgotten:
            if self._recorder is not None and set(gate.grant.scopes) <= set(new.scopes):
                self._recorder.commit()  # under the grant that it was captured under
            with self._acting:  # at once, whatever the disk does
                old = gate.grant
                gate.apply(self._now(), grant=new)
                self._carry_out()
            with self._erasing:
                if set(old.scopes) <= set(new.scopes):
                    return self._answered_by(old, new)
                return self._discard_and(lambda: self._answered_by(old, new))

        return self._decide("regrant", step)

    def _answered_by(self, old: Grant, new: Grant) -> Forgotten:
        forgotten = self.participant.narrow(old, new)
        self.participant.answered()
        return forgotten

    def _discard_and(self, forget: Callable[[], Forgotten], before: int | None = None) -> Forgotten:
        """What is in memory goes first: with it nothing comes after what is forgotten. `before`: how many events were
        excluded then."""
        recorder = self._recorder
        if before is None:
            before = self._excluded()
        if self.gate is not None:
            self.gate.restart(self._now())
        if recorder is not None:
            recorder.discard()
        forgotten = forget()
        events = self._excluded() - before
        if self._uploader is not None and forgotten.asked:
            self._uploader.hasten()
        return replace(forgotten, events=events)

    def _excluded(self) -> int:
        return self._recorder.excluded if self._recorder is not None else 0

    # --- what comes from the receiver ----------------------------------------------------------------------

    def decided(self, record_id: str, receipt: Receipt) -> None:
        approved = receipt.decision == "approved"
        self._decide(
            "decided",
            lambda: self.participant.decide(record_id, approved, receipt.decided_ns, receipt.answer),
            exemption_id=record_id,
        )

    def carried_out(self, record_id: str) -> None:
        self._decide("confirmed", lambda: self.participant.confirm(record_id))

    # --- what follows --------------------------------------------------------------------------------------

    @property
    def held(self) -> str | None:
        """Why nothing is captured by the participant's word, or for want of a grant."""
        gate = self.gate
        if gate is None:
            return self._tr("you have withdrawn")
        now = self._now()
        closed = gate.closed(now.wall_ns)
        whole = self.participant.state.barred(now, tr=self._tr).all
        if closed is None and whole is None and self._capture is not None and self._capture.all_exempt:
            tr = self._tr
            return tr("all that is collected here is exempt")
        return closed or (whole.words if whole is not None else None)

    def may_send(self) -> str | None:
        """Why no data may be sent; None when it may."""
        return self.participant.may_send(self.gate)

    def due_s(self) -> float | None:
        due_ns = self._due_ns
        return None if due_ns is None else max(0.0, (due_ns - self._now().boottime_ns) / 1e9)

    def consider(self) -> None:
        """Carries out what time has changed. Not in a source's thread, which it may stop."""
        if not self._is_due():
            return
        with self._acting:
            before = self._held, self.gate.barred if self.gate is not None else None
            self._carry_out()
            changed = before != (self._held, self.gate.barred if self.gate is not None else None)
        if changed:
            self._tell("due")

    def pulse(self) -> None:
        """From a source's thread, with input: has something changed that no deadline told, such as a stepped clock?"""
        if self._is_due() and not self._looking:
            self._looking = True
            with contextlib.suppress(RuntimeError):  # no more threads: the next pulse
                threading.Thread(target=self._look, name="mcilib-plan", daemon=True).start()
                return
            self._looking = False

    def _look(self) -> None:
        try:
            self.consider()
        finally:
            self._looking = False

    def _is_due(self) -> bool:
        now, due_ns = self._now(), self._due_ns
        stepped = abs(now.wall_ns - now.boottime_ns - self._ahead_ns) > limits.WALL_STEP_NS
        return due_ns is not None and (stepped or now.boottime_ns >= due_ns)

    def _now(self) -> Now:
        return self.participant.now()

    def _carry_out(self) -> None:
        """As the state has it now: nothing is taken any more first, then the sources stop."""
        gate, capture = self.gate, self._capture
        if gate is None:
            return
        with self._acting:
            now, state = self._now(), self.participant.state
            barred = gate.apply(now, state=state)
            closed = gate.closed(now.wall_ns)
            self._held = why = closed or (barred.all.words if barred.all is not None else None)
            # First: who waits for it is woken by what follows.
            waits = [barred.due_s]
            if closed is None and (expires_ns := gate.grant.expires_ns) is not None:
                waits.append(min((expires_ns - now.wall_ns) / 1e9, limits.PLAN_DUE_CAP_S))
            due_s = min((wait for wait in waits if wait is not None), default=None)
            self._due_ns = None if due_s is None else now.boottime_ns + int(due_s * 1e9)
            self._ahead_ns = now.wall_ns - now.boottime_ns
            if capture is not None:
                capture.bar(why, frozenset(s for s in SCOPES if not gate.allows(s)))
            if self._recorder is not None:
                self._recorder.settle()
            if self._uploader is not None:
                self._uploader.hold_s = max(self._own_hold_s, state.hold_s)

    def _decide(self, what: str, step: Callable[[], _T], *, exemption_id: str = "") -> _T:
        before, me = self.participant.state, threading.get_ident()
        with self._decided:
            self._deciding.append(me)
        try:
            return step()
        finally:  # also where the disk refused what is in force now
            with self._decided:
                self._deciding.remove(me)
                self._decided.notify_all()
            if self.participant.state != before or what in ("forget", "regrant"):
                self._tell(what, exemption_id)

    def _tell(self, what: str, exemption_id: str = "") -> None:
        change = ControlChange(what, self.participant.state, self.held, exemption_id)
        _log.info("mcilib: %s%s", what, f": nothing is collected, {change.held}" if change.held else "")
        try:
            self._on_control(change)
        except Exception as error:  # the host's
            _log.error("mcilib: the host's on_control failed (%s)", type(error).__name__)

    # --- what the participant sees -------------------------------------------------------------------------

    def show(self, kind: str) -> bool:
        """Tells the participant that recording begins, or goes on. Without that it does not."""
        gate = self.gate
        if gate is None:
            return False
        grant = gate.grant
        scopes = tuple(scope for scope in grant.scopes if gate.allows(scope))
        notice = Notice(kind, grant.operator, grant.purpose, scopes, str(self._folder), self._tr.language)
        try:
            return self._indicator.show(notice) is True
        except Exception as error:  # the host's
            _log.error("mcilib: the indicator failed (%s)", type(error).__name__)
            return False

    def _note_channel(self, problem: Problem) -> None:
        self._problem = problem


def check_policy(grant: Grant, policy: str | None) -> None:
    """Raises `GrantError` when another text than that of the grant is in force."""
    if policy is not None and grant.policy.strip() != policy.strip():
        raise GrantError(
            "The policy has changed since the grant was given", "`mcilib grant` shows it and asks again."
        )
