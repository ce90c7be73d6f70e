"""How things stand in a state folder, whether an agent runs on it or not. Reads only, and waits for nothing."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mcilib.cli._control import controls_of, now_here
from mcilib.cli.exempt import as_json
from mcilib.consent import ControlState, Grant
from mcilib.consent.pause import Now
from mcilib.consent.state import Bar, Barred
from mcilib.delivery._files import OwnerLock
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import GrantError
from mcilib.governor import PLAN_FILE, read_plan
from mcilib.language import ENGLISH, Words
from mcilib.resources.ledger import IMPACT_FILE, ImpactLedger
from mcilib.statistics import ImpactStatistics, PlanStatistics, SpoolStatistics


@dataclass(frozen=True, slots=True)
class Standing:
    """What a state folder says at one moment."""

    folder: Path
    now: Now
    grant: Grant | None
    problem: GrantError | None
    """Why there is no grant."""
    unreadable: bool
    """There is a grant file, and no grant."""
    running: bool
    pid: int | None
    """Of the agent that runs, if it says so."""
    since_ns: int | None
    """Since when it runs (Unix time)."""
    state: ControlState
    """What the participant has decided, as of `now`."""
    spool: SpoolStatistics
    plan: PlanStatistics | None
    impact: ImpactStatistics

    @property
    def has_grant_elsewhere(self) -> bool:
        """Whether an agent runs under a grant that is not in the folder: removed since, damaged, or a host's own."""
        withdrawal = self.state.withdrawal
        if self.grant is not None or not self.running or self.state.pending_withdrawal:
            return False
        return withdrawal is None or (self.since_ns or 0) > withdrawal.asked_ns

    def barred(self, tr: Words = ENGLISH) -> Barred:
        """What is not captured now, by the participant's decisions."""
        barred = self.state.barred(self.now, tr=tr)
        if self.grant is not None and self.state.is_withdrawn(
            self.grant.participant
        ):  # a copy of it was put back
            return replace(barred, all=Bar("withdrawn", tr("you have withdrawn")))
        return barred

    def to_json(self) -> dict[str, Any]:
        grant, state, barred = self.grant, self.state, self.barred()
        pause, withdrawal = state.pause, state.withdrawal
        return {
            "state": str(self.folder),
            "grant": None
            if grant is None
            else {
                **asdict(grant),
                "digest": grant.digest,
                "policy_digest": grant.policy_digest,
                "expired": grant.expired(self.now.wall_ns),
            },
            "problem": str(self.problem) if self.problem is not None else None,
            "running": self.running,
            "pid": self.pid,
            "running_since_ns": self.since_ns,
            "held": barred.all.words if barred.all is not None else None,
            "barred": {
                "all": None if barred.all is None else asdict(barred.all),
                "scopes": {scope: asdict(bar) for scope, bar in barred.scopes.items()},
                "apps": [app for exemption in barred.apps for app in exemption.scope.apps],
            },
            "controls": {
                "pause_left_s": pause.left_ns(self.now) / 1e9 if pause is not None else 0.0,
                "exemptions": [as_json(exemption) for exemption in state.exemptions],
                "hold_s": state.hold_s,
                "asked": state.asked,
                "unreadable": state.unreadable,
                "withdrawn": withdrawal is not None,
                "withdrawn_ns": withdrawal.asked_ns if withdrawal is not None else None,
                "deletion_confirmed": withdrawal is not None and withdrawal.confirmed_ns is not None,
                "deletion_confirmed_ns": withdrawal.confirmed_ns if withdrawal is not None else None,
            },
            "plan": asdict(self.plan) if self.plan is not None else None,
            "spool": asdict(self.spool),
            "impact": asdict(self.impact),
        }


def look(folder: Path) -> Standing:
    """Raises `SpoolError` when the spool cannot be read."""
    spool = folder / "spool"
    grant: Grant | None = None
    problem: GrantError | None = None
    try:
        grant = Grant.load(folder)
    except GrantError as error:
        problem = error
    now = now_here()
    statistics = DirectorySpool.read_statistics(spool)
    running = DirectorySpool.owned(spool)
    pid, since_ns = (OwnerLock.holder(spool / "owner.lock") if running else None) or (None, None)
    return Standing(
        folder=folder,
        now=now,
        grant=grant,
        problem=problem,
        unreadable=problem is not None and os.path.lexists(folder / "grant.json"),
        running=running,
        pid=pid,
        since_ns=since_ns,
        state=controls_of(folder).at(now),
        spool=statistics,
        plan=read_plan(folder / PLAN_FILE) if running else None,
        impact=ImpactLedger.read(folder / IMPACT_FILE, now.wall_ns),
    )
