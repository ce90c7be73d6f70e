"""What a participant decides, made durable: the state folder's side of every control.

A collector has one while it runs; the command line makes one for a folder on which no agent runs. So each control
works before a start, while it runs and after a crash, and does the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import tzinfo
from pathlib import Path

from mcilib import limits
from mcilib.clock import Clock, SystemClock, boot_id
from mcilib.consent.audit import AUDIT_FILE, AuditLog
from mcilib.consent.decisions import CONTROLS_FILE, Decisions, Steps, read_state
from mcilib.consent.exemption import Exemption, ExemptionState, ExemptScope, plain
from mcilib.consent.gate import Gate
from mcilib.consent.grant import GRANT_FILE, Grant
from mcilib.consent.journal import JOURNAL_FILE, BatchJournal
from mcilib.consent.pause import Now, Pause
from mcilib.consent.state import Barred, ControlState, Withdrawal
from mcilib.delivery import control
from mcilib.delivery.spool import DirectorySpool
from mcilib.erasure import Erasure, hashes, pseudonym_forgotten
from mcilib.errors import ConfigError, GrantError, McilibError, SpoolError
from mcilib.files import without_home
from mcilib.statistics import Forgotten

_log = logging.getLogger("mcilib")


class Participant:
    """The decisions of one state folder, whose `spool` is open: one process at a time. Any thread, after `open`.

    A decision holds in memory first, then `on_change` is called (which reads `state`), then it is on the disk and in
    the audit log. Where the disk refuses, it holds as long as this process runs, and `SpoolError` is raised at the end.

    Requests to the receiver are made under the pseudonym of `grant`, by default the one in the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        spool: DirectorySpool,
        *,
        clock: Clock | None = None,
        pause_cap_s: float = limits.PAUSE_CAP_S,
        tz: tzinfo | None = None,
        on_change: Callable[[], object] = lambda: None,
        grant: Grant | None = None,
        boot: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.audit = AuditLog(self.folder / AUDIT_FILE, clock=clock)
        self.journal = BatchJournal(self.folder / JOURNAL_FILE)
        self._decisions = Decisions(self.folder / CONTROLS_FILE)
        self._erasure = Erasure(self.folder, spool, self.journal, self._decisions)
        self._erasure.grant = grant
        self._spool, self._clock = spool, clock or SystemClock()
        self._pause_cap_s, self._tz, self._on_change = pause_cap_s, tz, on_change
        self._boot = boot_here() if boot is None else boot
        self._opened: Now | None = None

    # --- life ----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Reads what was decided and finishes what a crash cut off. Raises `SpoolError` when the audit log or the
        journal cannot be used; what was decided and cannot be read bars everything instead (`ControlState.unreadable`).
        """
        with self._erasure.lock:
            try:
                self._decisions.open()
            except OSError as error:
                raise SpoolError(
                    f"The state folder {self.folder} cannot be used ({error.strerror})",
                    "Make it writable for this user, or choose another one with --state.",
                ) from None
            self.audit.open()
            now = self._opened = self.now()
            self.journal.open(now)
            if self._erasure.grant is None and (self.folder / GRANT_FILE).exists():
                try:
                    self._erasure.grant = Grant.load(self.folder)
                except GrantError as error:
                    _log.warning("mcilib: %s", without_home(error))
            if self.state.unreadable:
                return
            self._decisions.become(lambda state: _of_this_boot(state, now))
            steps = Steps()
            steps.take(self.resume_withdrawal)
            steps.take(self._finish)
            steps.take(lambda: self._request_again(now))
            steps.take(self._decisions.save)
            try:
                steps.end()
            except McilibError as error:  # it holds all the same, and is tried again at the next open
                _log.warning("mcilib: %s", without_home(error))

    def _finish(self) -> None:
        if batches := self._erasure.finish():
            self.audit.append("forget_finished", "agent", batches=batches)

    def _ask_again(self) -> None:
        """Requests to delete that are lost, since the disk has damaged them say, are made again. Waits for nobody."""
        withdrawal, asked = self.state.withdrawal, set(self.journal.awaited)
        if withdrawal is not None and withdrawal.record_id and withdrawal.confirmed_ns is None:
            asked.add(withdrawal.record_id)
        if not asked or not self._erasure.lock.acquire(blocking=False):
            return
        try:
            with contextlib.suppress(McilibError):  # again before the next request
                if not asked <= self._erasure.waiting():
                    self.resume_withdrawal()
                    self._finish()
                    self._decisions.save()
        finally:
            self._erasure.lock.release()

    def _request_again(self, now: Now) -> None:
        """What is not decided and not in the spool: a crash was faster, or there was no grant."""
        sent = {record.record_id for record in self._spool.controls()}
        for exemption in self.state.at(now).exemptions:
            if exemption.state is ExemptionState.PENDING and exemption.exemption_id not in sent:
                self._request(exemption)

    def save_again(self) -> None:
        """What the disk has refused before; nothing when it refuses again, or refused nothing."""
        with contextlib.suppress(McilibError):
            self._decisions.check()
            self._decisions.save()

    def close(self) -> None:
        """Nothing is lost without it."""
        self._decisions.close()

    @staticmethod
    def read_state(folder: str | os.PathLike[str]) -> ControlState:
        """What was decided, as it is on the disk, whoever owns it; changes nothing and raises nothing."""
        return read_state(Path(folder) / CONTROLS_FILE)

    # --- as it is ------------------------------------------------------------------------------------------

    @property
    def state(self) -> ControlState:
        """Never waits."""
        return self._decisions.state

    def now(self) -> Now:
        return Now.by(self._clock, self._boot)

    def may_send(self, gate: Gate | None) -> str | None:
        """Why no data may be sent under `gate`, None being one that was withdrawn; None when it may. Asked before each
        request: what the journal tells of the batches is on the disk before they leave."""
        self._ask_again()
        if gate is None:
            return "you have withdrawn"
        self.journal.sync()
        return gate.closed(self.now().wall_ns)

    def barred(self) -> Barred:
        """What is not captured now."""
        return self.state.barred(self.now(), self._tz)

    def is_withdrawn(self, participant: str) -> bool:
        """Whether this pseudonym was withdrawn: a grant with it is void."""
        return self.state.is_withdrawn(participant)

    # --- decisions -----------------------------------------------------------------------------------------

    def pause(self, duration_s: float | None = None) -> Pause:
        """For so long from now, in place of a pause before; by default `limits.PAUSE_S` or the cap."""
        if duration_s is None:
            duration_s = min(limits.PAUSE_S, self._pause_cap_s)
        if not 0 < duration_s <= self._pause_cap_s:  # nan is not either
            raise ConfigError(
                f"A pause of {duration_s:g} s is not allowed",
                f"At most {self._pause_cap_s:g} s each; for more ask for an exemption, or stop the agent.",
            )
        pause = Pause(self.now(), int(duration_s * 1e9))
        self._change("pause", lambda state: replace(state, pause=pause), duration_s=round(duration_s, 3))
        return pause

    def resume(self) -> None:
        """Ends a pause."""
        self._change("resume", lambda state: replace(state, pause=None))

    def request_exemption(
        self, scope: ExemptScope, reason_class: str, note: str = "", until_ns: int | None = None
    ) -> Exemption:
        """Off from now on; the operator is asked. Raises `ConfigError`."""
        now_ns = self._clock.wall_ns()
        if until_ns is not None and until_ns <= now_ns:
            raise ConfigError("The exemption would be over already", "Give a time to come.")
        exemption = Exemption(uuid.uuid4().hex, scope, reason_class, note, now_ns, until_ns)
        self._change(
            "exempt",
            lambda state: state.with_exemption(exemption),
            also=lambda: self._request(exemption),
            exemption=exemption.exemption_id,
            of=scope.kind,
            reason=reason_class,
        )
        return exemption

    def withdraw_exemption(self, exemption_id: str) -> Exemption:
        """What it covers may be captured again. Raises `ConfigError` when it is none, or over."""
        now = self.now()
        found = self.state.exemption(exemption_id).at(now.wall_ns)
        if not found.state.bars:
            raise ConfigError(
                f"The exemption is {found.state.value} already", "There is nothing to take back."
            )
        exemption = replace(found, state=ExemptionState.WITHDRAWN)
        self._change(
            "unexempt",
            lambda state: state.with_exemption(exemption),
            also=lambda: self._take_back(exemption),
            exemption=exemption.exemption_id,
        )
        return exemption

    def decide(
        self, exemption_id: str, approved: bool, decided_ns: int | None = None, answer: str = ""
    ) -> Exemption | None:
        """The operator has decided. None when there is nothing to decide any more: it is withdrawn, say."""
        self._decisions.check()
        pending = [e for e in self.state.exemptions if e.exemption_id == exemption_id]
        if not pending or pending[0].state is not ExemptionState.PENDING:
            return None
        made = replace(
            pending[0],
            state=ExemptionState.APPROVED if approved else ExemptionState.DENIED,
            decided_ns=self._clock.wall_ns() if decided_ns is None else decided_ns,
            answer=plain(answer),
        )
        self._change(
            "decided",
            lambda state: state.with_exemption(made) if pending[0] in state.exemptions else state,
            by="operator",
            exemption=exemption_id,
            decision=made.state.value,
        )
        return made

    def hold(self, hold_s: float) -> None:
        """Batches rest at least so long on this device. Raises `ConfigError`."""
        if not 0 <= hold_s <= limits.HOLD_CAP_S:
            raise ConfigError(
                f"Batches cannot be held for {hold_s:g} s", f"Use 0 to {limits.HOLD_CAP_S:g} s."
            )
        self._change("hold", lambda state: replace(state, hold_s=float(hold_s)), hold_s=round(hold_s, 3))

    def ask(self, why: str) -> None:
        """Nothing is captured until `answered`, since this is asked of the participant. Raises `ConfigError`."""
        if not why.strip() or not why.isprintable() or len(why.encode()) > limits.ASKED_MAX_BYTES:
            raise ConfigError(
                "The question is empty, too long or not plain text", "Say in a line what is asked."
            )
        self._change("ask", lambda state: replace(state, asked=why), by="agent")

    def answered(self) -> None:
        self._change("answered", lambda state: replace(state, asked=""))

    # --- what was captured goes ----------------------------------------------------------------------------

    def check_forget(self, last_s: float) -> None:
        """Raises `ConfigError` for what `forget` would refuse."""
        if not 0 < last_s <= limits.FORGET_CAP_S:
            raise ConfigError(
                f"The last {last_s:g} s cannot be forgotten",
                f"Give 1 s to {limits.FORGET_CAP_S:g} s; `mcilib withdraw` deletes everything.",
            )

    def forget(self, last_s: float) -> Forgotten:
        """Deletes each whole batch of which something may be of that time: here, and at the receiver by a request. What
        is in memory is for the caller to discard, before. Raises `ConfigError`."""
        self.check_forget(last_s)
        now, opened, last_ns = self.now(), self._opened, int(last_s * 1e9)
        # A clock that was set forward since must not hide what was captured before this boot.
        wall_ns = (
            min(now.wall_ns, opened.wall_ns + now.boottime_ns - opened.boottime_ns) if opened else now.wall_ns
        )
        since = replace(now, monotonic_ns=now.monotonic_ns - last_ns, wall_ns=wall_ns - last_ns)
        return self._delete(
            "forget", lambda present: self.journal.touched(since, now, present), last_s=round(last_s, 3)
        )

    def narrow(self, old: Grant, new: Grant) -> Forgotten:
        """Deletes each whole batch with something that `new` does not cover, if `old` covered more. What waits here for
        another operator goes too: `new` does not say that this one may have it."""
        covered = {scope for scope in ("apps", *old.scopes) if new.covers(scope)}
        is_other = old.operator != new.operator
        if set(old.scopes) <= covered and not is_other:
            return Forgotten()

        def uncovered(present: Collection[str]) -> list[str]:
            outside = self.journal.outside(covered, present) if not set(old.scopes) <= covered else []
            return list(dict.fromkeys([*outside, *(present if is_other else ())]))

        return self._delete("narrow", uncovered)

    def keep_to(self, grant: Grant) -> Forgotten:
        """As `narrow`, when it is not known what the grant before was: deletes the batches of this participant of which
        it is known that they hold something that `grant` does not cover."""
        covered = {scope for scope in ("apps", *grant.scopes) if grant.covers(scope)}
        outside = self.journal.outside(covered, self._spool.waiting(), grant.participant)
        return self._delete("narrow", lambda _: outside) if outside else Forgotten()

    def void(self, participant: str, device: str) -> None:
        """The first step of `withdraw`, which waits for nothing: from now on nothing is captured, in memory alone."""
        self._decisions.check_mine()
        asked = Withdrawal(participant, device, self._clock.wall_ns(), "")

        def withdrawn(state: ControlState) -> ControlState:
            if state.pending_withdrawal == participant:
                return state
            return ControlState(withdrawal=asked, withdrawn=hashes(state))

        self._decisions.become(withdrawn)
        self._on_change()

    def withdraw(self, participant: str, device: str) -> Forgotten:
        """Ends it: deletes all that is here, and asks the receiver to delete all. What is kept until it confirms that:
        the pseudonym, the request, and the audit log. A second time it goes on with what is left."""
        self._decisions.check_mine()
        steps = Steps()
        steps.take(lambda: self.void(participant, device))
        with self._erasure.lock:
            steps.take(self._decisions.save)
            batches = steps.take(self._erase) or 0
            steps.take(lambda: self.audit.append("withdraw", "participant", batches=batches))
        steps.end()
        return Forgotten(batches=batches, asked=1)

    def _erase(self) -> int:
        withdrawal, grant = self.state.withdrawal, self._erasure.grant
        if withdrawal is None or not withdrawal.participant:
            return 0
        if grant is not None and grant.participant == withdrawal.participant:
            self._erasure.grant = None
        return self._erasure.everything(withdrawal)

    def resume_withdrawal(self) -> None:
        """One that a crash has cut off is finished. Part of `open`."""
        with self._erasure.lock:
            withdrawal = self.state.withdrawal
            cut_off = withdrawal is not None and not withdrawal.record_id
            batches = self._erase()
            self._erasure.forget_pseudonym()
            if cut_off:
                self.audit.append("withdraw_finished", "agent", batches=batches)

    def confirm(self, record_id: str) -> None:
        """The receiver has carried a request to delete out."""
        self._decisions.check()
        with self._erasure.lock:  # until what is under way knows the id of its record
            withdrawal = self.state.withdrawal
            self.journal.confirmed(record_id)
        if withdrawal is None or withdrawal.record_id != record_id:
            self.audit.append("deleted", "operator", record=record_id)
        elif withdrawal.confirmed_ns is None:
            done = replace(withdrawal, confirmed_ns=self._clock.wall_ns())
            self._change(
                "confirmed",
                lambda state: pseudonym_forgotten(state, done),
                by="operator",
                record=record_id,
            )

    def _delete(self, what: str, which: Callable[[Collection[str]], list[str]], **facts: float) -> Forgotten:
        self._decisions.check()
        with self._erasure.lock:
            gone, steps = self._erasure.delete(which)
            numbers = {"batches": gone.batches, "asked": gone.asked, **facts}
            steps.take(lambda: self.audit.append(what, "participant", **numbers))
        steps.end()
        return gone

    # --- requests to the operator --------------------------------------------------------------------------

    def _request(self, exemption: Exemption) -> None:
        grant = self._erasure.grant
        if grant is not None:  # else with the next open that knows one
            ask = control.exemption_request(grant.participant, grant.device, exemption)
            self._spool.commit_control(ask)

    def _take_back(self, exemption: Exemption) -> None:
        grant = self._erasure.grant
        if grant is not None:
            tell = control.exemption_withdrawal(grant.participant, grant.device, exemption.exemption_id)
            self._spool.commit_control(tell)

    # --- in memory, then told, then on the disk ------------------------------------------------------------

    def _change(
        self,
        what: str,
        change: Callable[[ControlState], ControlState],
        *,
        by: str = "participant",
        also: Callable[[], object] = lambda: None,
        **facts: int | float | str,
    ) -> None:
        self._decisions.check()
        self._decisions.become(change)
        steps = Steps()
        steps.take(self._on_change)
        with contextlib.suppress(SpoolError):  # before it is asked for
            self._decisions.save()
        steps.take(also)
        steps.take(
            self._decisions.save
        )  # if it was refused: on a full disk data makes room for what is asked
        steps.take(lambda: self.audit.append(what, by, **facts))
        steps.end()


def boot_here() -> str:
    """The name that all who use a state folder give this boot: with another one a pause would go by the wall clock."""
    return boot_id("participant")


def _of_this_boot(state: ControlState, now: Now) -> ControlState:
    """What is left of a pause of another boot counts from now on by the time since this one."""
    pause = state.pause
    if pause is None or pause.began.boot == now.boot:
        return state
    left_ns = pause.left_ns(now)
    return replace(state, pause=Pause(now, left_ns) if left_ns else None)
