"""A state folder on which no agent captures, with an agent's controls: for commands, and for `mcilib run --drain`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mcilib.cli._language import words_here
from mcilib.config import Settings
from mcilib.consent import ControlState, Exemption, ExemptScope, Gate, Grant, Pause
from mcilib.delivery.spool import DirectorySpool, intact_frame
from mcilib.errors import GrantError
from mcilib.participant import Participant
from mcilib.statistics import Forgotten


class FolderControls:
    """Implements `mcilib.consent.dispatch.Controllable`. The spool is open; any thread."""

    def __init__(
        self,
        folder: Path,
        spool: DirectorySpool,
        grant: Grant | None,
        *,
        pause_cap_s: float,
        on_change: Callable[[ControlState], object] = lambda state: None,
    ) -> None:
        self.participant = Participant(folder, spool, pause_cap_s=pause_cap_s, on_change=self._changed)
        self._folder, self._spool, self._on_change = folder, spool, on_change
        self._gate = Gate(grant) if grant is not None else None

    def open(self) -> None:
        """Raises `SpoolError` when what was decided cannot be read, `GrantError` for a grant that was withdrawn."""
        self.participant.open()
        if self._gate is not None and self.participant.is_withdrawn(self._gate.grant.participant):
            self._gate = None
        self._changed()

    def close(self) -> None:
        self.participant.close()

    def _changed(self) -> None:
        if self._gate is not None:
            self._gate.apply(self.participant.now(), state=self.participant.state)
        self._on_change(self.participant.state)

    def may_send(self) -> str | None:
        """Why no data may be sent now; None when it may."""
        return self.participant.may_send(self._gate)

    @property
    def held(self) -> str | None:
        whole = self.participant.state.barred(self.participant.now(), tr=words_here()).all
        return whole.words if whole is not None else None

    # --- the controls --------------------------------------------------------------------------------------

    def pause(self, duration_s: float | None = None) -> Pause:
        return self.participant.pause(duration_s)

    def resume(self) -> None:
        self.participant.resume()

    def request_exemption(
        self, scope: ExemptScope, reason_class: str, note: str = "", until_ns: int | None = None
    ) -> Exemption:
        return self.participant.request_exemption(scope, reason_class, note, until_ns)

    def withdraw_exemption(self, exemption_id: str) -> Exemption:
        return self.participant.withdraw_exemption(exemption_id)

    def hold(self, hold_s: float) -> None:
        self.participant.hold(hold_s)

    def ask(self, why: str) -> None:
        self.participant.ask(why)

    def answered(self) -> None:
        self.participant.answered()

    def forget(self, last_s: float) -> Forgotten:
        return self.participant.forget(last_s)

    def withdraw(self) -> Forgotten:
        if self._gate is not None:
            who: tuple[str, str] | None = (self._gate.grant.participant, self._gate.grant.device)
        else:
            who = self.participant.journal.last_of(self.participant.is_withdrawn)
        if who is None:
            raise GrantError("It is withdrawn already", "Nothing is collected.")
        return self.participant.withdraw(*who)

    def regrant(self, grant: Grant | None = None) -> Forgotten:
        new = Grant.load(self._folder) if grant is None else grant
        if self._gate is None:
            raise GrantError("It is withdrawn already", "Nothing is collected.")
        old = self._gate.grant
        self._gate.apply(self.participant.now(), grant=new)
        forgotten = self.participant.narrow(old, new)
        self.participant.answered()
        return forgotten

    def commit(self) -> bool:
        return True

    def control_resume(self) -> dict[str, Any]:
        self.resume()
        return {"held": self.held}

    def control_status(self) -> dict[str, Any]:
        return {
            "held": self.held,
            "pid": os.getpid(),
            "statistics": {"spool": asdict(self._spool.statistics())},
        }

    def control_flush(self, timeout_s: float) -> dict[str, Any]:
        waiting = len(self._spool.waiting())
        return {
            "delivered": not waiting,
            "committed": True,
            "waiting_batches": waiting,
            "detail": "an upload is under way (mcilib run --drain)",
        }


@contextmanager
def folder_controls(settings: Settings, folder: Path, grant: Grant | None) -> Iterator[FolderControls]:
    """The controls of a folder, while this process owns it. Raises `SpoolError` when another does: a host without a
    control channel."""
    with DirectorySpool(folder / "spool", intact=intact_frame) as spool:
        controls = FolderControls(folder, spool, grant, pause_cap_s=settings.consent.pause_cap_s)
        controls.open()
        try:
            yield controls
        finally:
            controls.close()
