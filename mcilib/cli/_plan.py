"""The plan in a participant's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mcilib.cli._output import one_line, size
from mcilib.config import as_duration
from mcilib.language import ENGLISH, Words, marked, moment
from mcilib.statistics import PlanChange, PlanStatistics

_MOTION = {
    "thinned": "",
    "endpoints": marked("of the pointer only where it rests"),
    "none": marked("no motion of the pointer"),
}
_UPLOAD = {
    "now": marked("batches are sent at once"), "scheduled": "",
    "control": marked("no data is sent, only control records"), "none": marked("nothing is sent"),
}  # fmt: skip

_WORDS: dict[str, Callable[[Any, Words], str]] = {
    "capture": lambda _, tr: tr("nothing is captured"),
    "motion": lambda value, tr: tr(_MOTION[value]),
    "tolerance_px": lambda px, tr: tr("the pointer's path within {n} px").format(n=tr.number(px, "g")),
    "read_interval_s": lambda seconds, tr: tr("input read every {n} s").format(n=tr.number(seconds, "g")),
    "tick_ns": lambda ns, tr: tr("times to {n} ms").format(n=tr.number(ns / 1e6, "g")),
    "batch_age_s": lambda seconds, tr: tr("a batch every {time}").format(time=as_duration(seconds)),
    "cpu_effort": lambda _, tr: tr("quick compression"),
    "byte_effort": lambda _, tr: tr("strong compression"),
    "upload": lambda value, tr: tr(_UPLOAD[value]),
    "bytes_per_hour": lambda count, tr: tr("at most {size} an hour").format(size=size(count, tr)),
}
_MEANT_BY_MOTION = "tolerance_px"


def lever_words(levers: Mapping[str, Any], tr: Words = ENGLISH) -> str:
    """What is lowered; one that this version does not know, as it stands."""
    told = []
    for lever, value in levers.items():
        if lever == _MEANT_BY_MOTION and levers.get("motion") != "thinned":
            continue
        try:
            words = _WORDS[lever](value, tr)
        except (KeyError, TypeError, ValueError):
            words = f"{lever} {value}"
        if words:
            told.append(words)
    return ", ".join(told) or tr("everything as configured")


def plan_rows(plan: PlanStatistics, tr: Words = ENGLISH) -> list[list[str]]:
    """The plan, why, and what came before it. Reasons are as the policies write them: in English."""
    rows = [[tr("Plan:"), one_line(lever_words(plan.levers, tr))]]
    if plan.reasons:
        rows.append([tr("Because:"), one_line("; ".join(plan.reasons))])
    before = plan.history[-_SHOWN - 1 : -1]
    rows += [
        [tr("Before:") if number == 0 else "", one_line(_change(change, tr))]
        for number, change in enumerate(reversed(before))
    ]
    return rows


_SHOWN = 3


def _change(change: PlanChange, tr: Words) -> str:
    because = f" ({'; '.join(change.reasons)})" if change.reasons else ""
    levers = lever_words(change.levers, tr)
    return tr("from {moment} {levers}{because}").format(
        moment=moment(change.wall_ns), levers=levers, because=because
    )
