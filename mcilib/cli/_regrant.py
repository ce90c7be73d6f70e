"""A grant in the place of an earlier one: what changes, and how it takes effect, beside a running agent too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcilib.cli._control import ask_agent, control, controls_of
from mcilib.cli._folder import folder_controls
from mcilib.cli._output import say
from mcilib.config import Settings
from mcilib.consent import Grant
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import GrantError, SpoolError


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the new grant came to."""

    grant: Grant
    path: Path
    running: bool = False
    """Whether an agent goes on with it."""
    batches: int = 0
    """Deleted here, since they hold something that it does not cover."""
    asked: int = 0
    """Requests to the receiver to delete such ones."""


def wider(old: Grant, new: Grant) -> str | None:
    """What of `new` the participant has not agreed to with `old`, in words; None: it only takes something away."""
    more = [scope for scope in new.scopes if not old.covers(scope)]
    ends = [grant.expires_ns if grant.expires_ns is not None else float("inf") for grant in (old, new)]
    if new.policy.strip() != old.policy.strip():
        return "the policy has changed"
    if (new.operator, new.purpose) != (old.operator, old.purpose):
        return "who collects or what for has changed"
    if more:
        return f"it is to cover {', '.join(more)} too"
    if ends[1] > ends[0] or new.retention_days > old.retention_days:
        return "it is to last longer"
    return None


def exchange(
    settings: Settings,
    folder: Path,
    old: Grant,
    terms: Grant,
    agree: Callable[[], Grant],
    required: str | None,
) -> Recorded:
    """Has the participant asked (`agree` shows and asks, and raises `GrantError` on a no), and puts the new grant in
    the place of `old`. `terms` is what is asked for.

    An agent that runs captures nothing from before the question until after the answer, if more is asked for than
    before; a question that nobody answers leaves it so. Otherwise it goes on meanwhile, and what the new grant does
    not cover ends with the answer.
    """
    why = wider(old, terms)
    name, arguments = ("ask", {"why": f"you are asked anew: {why}"}) if why is not None else ("status", {})
    running = ask_agent(folder, name, arguments) is not None
    if not running and DirectorySpool.owned(folder / "spool"):
        raise SpoolError(
            f"A program that takes no commands uses {folder}", "Stop it, then give the grant again."
        )
    try:
        grant = agree()
    except GrantError:
        if controls_of(folder).asked:
            _go_on(settings, old, required)
        raise
    except KeyboardInterrupt:
        if controls_of(folder).asked:
            say("\nmcilib: Nothing is captured until you have answered: `mcilib grant` asks again.")
        raise
    if running:
        # Capture stops before the file changes: whoever is cut off in between has stopped it, not widened it.
        if why is None:
            ask_agent(folder, "ask", {"why": "your grant is being changed"})
        path = grant.save(folder)
        answer = ask_agent(folder, "regrant", {})
        if answer is not None:
            return Recorded(grant, path, True, int(answer["batches"]), int(answer["asked"]))
        # It has ended meanwhile: the folder's own side.
    with folder_controls(settings, folder, old) as controls:
        # First what goes, then the grant: cut off in between, nothing is there that should not be.
        forgotten = controls.regrant(grant)
        path = grant.save(folder)
    return Recorded(grant, path, False, forgotten.batches, forgotten.asked)


def _go_on(settings: Settings, old: Grant, required: str | None) -> None:
    """The answer was no: as before, if that is still allowed."""
    if required is not None and old.policy.strip() != required.strip():
        say(
            "mcilib: Your earlier grant is for another policy than the one now required: nothing is captured."
        )
    else:
        control(settings, "answered", {})
