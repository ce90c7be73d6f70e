"""Each control, on the agent that runs on the state folder or, when none runs, on the folder itself. The one place."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcilib.cli._parser import state_dir
from mcilib.config import Settings
from mcilib.errors import ConfigError, GrantError, SpoolError
from mcilib.language import Words, is_yes, marked, moment

if TYPE_CHECKING:
    from mcilib.consent import ControlState, Grant
    from mcilib.consent.pause import Now

ANSWER_S = 15.0
"""For an answer of the agent: it stops sources and deletes up to 20,000 files meanwhile."""

STARTING_S = 2.0
"""An agent that starts or ends owns the folder while nobody listens there: so long it is asked again."""

_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What a control came to, as `mcilib.consent.commands` lists it."""

    values: Mapping[str, Any]
    running: bool
    """Whether an agent has carried it out."""


def control(
    settings: Settings, name: str, arguments: Mapping[str, Any], *, needs_grant: bool = True
) -> Answer:
    """Carries a control out. Raises `GrantError` when there is neither an agent nor, if it `needs_grant`, a grant, and
    what the control raises, whoever carries it out: `ConfigError`, `SpoolError`."""
    folder = state_dir(settings)
    answer = ask_agent(folder, name, arguments)
    if answer is not None:
        return Answer(answer, True)
    try:
        grant = grant_of(folder)
    except GrantError:
        if needs_grant:
            raise
        grant = None
    from mcilib.cli._folder import folder_controls
    from mcilib.consent.dispatch import carry_out
    from mcilib.delivery.spool import DirectorySpool

    if DirectorySpool.owned(folder / "spool"):
        raise SpoolError(
            f"The program that uses {folder} takes no commands, and goes on as before",
            "Use its own controls, or end it: `mcilib status` says which process it is.",
        )
    with folder_controls(settings, folder, grant) as controls:
        return Answer(carry_out(controls, name, arguments), False)


def ask_agent(
    folder: Path, name: str, arguments: Mapping[str, Any], *, timeout_s: float = ANSWER_S
) -> Mapping[str, Any] | None:
    """The agent's answer; None when none runs. One that is just starting is waited for."""
    from mcilib.channel.client import ask
    from mcilib.delivery.spool import DirectorySpool
    from mcilib.errors import NoAgent

    ends_s = time.monotonic() + STARTING_S
    while True:
        try:
            return ask(folder, name, arguments, timeout_s=timeout_s)
        except NoAgent:
            if not DirectorySpool.owned(folder / "spool") or time.monotonic() >= ends_s:
                return None
        time.sleep(_AGAIN_S)


def grant_of(folder: Path) -> Grant:
    """The grant in the folder. Raises `GrantError`, which says so when the participant has withdrawn."""
    from mcilib.consent import Grant

    if not (folder / "grant.json").exists():
        withdrawal = controls_of(folder).withdrawal
        if withdrawal is not None:
            done = "has confirmed" if withdrawal.confirmed_ns is not None else "has not yet confirmed"
            raise GrantError(
                f"You have withdrawn on {moment(withdrawal.asked_ns)}: nothing is collected. The receiver {done} "
                "that all is deleted",
                "A new grant, under a new pseudonym: `mcilib grant`.",
            )
    return Grant.load(folder)


def no_grant_left(folder: Path) -> bool:
    """The participant has withdrawn, has given no grant since, and the receiver has not confirmed the deletion."""
    withdrawal = controls_of(folder).withdrawal
    pending = withdrawal is not None and withdrawal.confirmed_ns is None
    return pending and not (folder / "grant.json").exists()


def withdrawn(folder: Path, grant: Grant) -> bool:
    """Whether a grant of this pseudonym was withdrawn here: it is void, wherever it came from."""
    return controls_of(folder).is_withdrawn(grant.participant)


def controls_of(folder: Path) -> ControlState:
    """What the participant has decided, as it is on disk: see `ControlState.unreadable`. Changes nothing."""
    from mcilib.participant import Participant

    return Participant.read_state(folder)


def now_here() -> Now:
    """Now, as what is in the folder has it."""
    from mcilib.clock import SystemClock
    from mcilib.consent.pause import Now
    from mcilib.participant import boot_here

    return Now.by(SystemClock(), boot_here())


def touched(folder: Path, last_s: float) -> tuple[int, int]:
    """How many batches hold something of the last `last_s` seconds: here, and with the receiver for all that is known.
    What an agent has in memory is in neither. Changes nothing."""
    from mcilib.consent.journal import JOURNAL_FILE, BatchJournal

    now = now_here()
    last_ns = int(last_s * 1e9)
    since = replace(now, monotonic_ns=now.monotonic_ns - last_ns, wall_ns=now.wall_ns - last_ns)
    ready = folder / "spool" / "ready"
    here = [path.stem.partition("-")[2] for path in ready.glob("*.mcib")]
    found = BatchJournal(folder / JOURNAL_FILE).touched(since, now, here)
    gone = len(set(found) - set(here))
    return len(found) - gone, gone


# --- words ---------------------------------------------------------------------------------------------------

NO_AGENT = marked("No agent runs on this folder now; the next one keeps to it.")


def agreed(question: str, yes: bool, tr: Words) -> bool:
    """Whether the person at the terminal types yes; without asking when `yes`. Raises `ConfigError` when there is
    nobody to ask."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("There is no terminal to ask on", "Say --yes if it is to be done without asking.")
    print(question, tr("Do you want that? Type yes: "), end="", file=sys.stderr, flush=True)
    return is_yes(sys.stdin.readline(), tr)


def iso_time(wall_ns: int) -> str:
    """The same for programs: ISO 8601 with the offset of this place."""
    return datetime.fromtimestamp(wall_ns // 10**9).astimezone().isoformat()


def clock_in(seconds: float) -> str:
    """What a clock on the wall shows in so long: `14:32`, with its day when that is another."""
    now = datetime.now()  # noqa: DTZ005
    then = datetime.fromtimestamp(time.time() + seconds)  # noqa: DTZ006
    return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M")
