"""The plan in a participant's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mcilib.cli._output import one_line, size
from mcilib.config import as_duration
from mcilib.statistics import PlanChange, PlanStatistics

_MOTION = {
    "thinned": "",
    "endpoints": "of the pointer only where it rests",
    "none": "no motion of the pointer",
}
_UPLOAD = {
    "now": "batches are sent at once", "scheduled": "", "control": "no data is sent, only control records",
    "none": "nothing is sent",
}  # fmt: skip

_WORDS: dict[str, Callable[[Any], str]] = {
    "capture": lambda _: "nothing is captured",
    "motion": lambda value: _MOTION[value],
    "tolerance_px": lambda px: f"the pointer's path within {px:g} px",
    "read_interval_s": lambda seconds: f"input read every {seconds:g} s",
    "tick_ns": lambda ns: f"times to {ns / 1e6:g} ms",
    "batch_age_s": lambda seconds: f"a batch every {as_duration(seconds)}",
    "cpu_effort": lambda _: "quick compression",
    "byte_effort": lambda _: "strong compression",
    "upload": lambda value: _UPLOAD[value],
    "bytes_per_hour": lambda count: f"at most {size(count)} an hour",
}
_MEANT_BY_MOTION = "tolerance_px"


def lever_words(levers: Mapping[str, Any]) -> str:
    """What is lowered; one that this version does not know, as it stands."""
    told = []
    for lever, value in levers.items():
        if lever == _MEANT_BY_MOTION and levers.get("motion") != "thinned":
            continue
        try:
            words = _WORDS[lever](value)
        except (KeyError, TypeError, ValueError):
            words = f"{lever} {value}"
        if words:
            told.append(words)
    return ", ".join(told) or "everything as configured"


def plan_rows(plan: PlanStatistics) -> list[list[str]]:
    """The plan, why, and what came before it."""
    rows = [["Plan:", one_line(lever_words(plan.levers))]]
    if plan.reasons:
        rows.append(["Because:", one_line("; ".join(plan.reasons))])
    before = plan.history[-_SHOWN - 1 : -1]
    rows += [
        ["Before:" if number == 0 else "", one_line(_change(change))]
        for number, change in enumerate(reversed(before))
    ]
    return rows


_SHOWN = 3


def _change(change: PlanChange) -> str:
    since = datetime.fromtimestamp(change.wall_ns / 1e9).astimezone().strftime("%d %b %H:%M")
    because = f" ({'; '.join(change.reasons)})" if change.reasons else ""
    return f"from {since} {lever_words(change.levers)}{because}"
