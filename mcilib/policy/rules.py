"""Rules as people write them: `battery < 30 %: motion none, upload none`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from typing import Any

from mcilib import limits
from mcilib.policy.battery import latched
from mcilib.policy.hours import Window, change_s, week_ns
from mcilib.policy.plan import ByteEffort, CpuEffort, Motion, Plan, Upload
from mcilib.policy.policy import CpuMeansNothing, Latches, Moment
from mcilib.policy.state import ResourceState, Thermal

_WORDS: dict[str, Callable[[ResourceState], bool]] = {
    "battery": lambda state: state.on_battery,
    "saver": lambda state: state.power_saver is True,
    "metered": lambda state: state.metered.counts,
    "constrained": lambda state: state.constrained is True,
    "offline": lambda state: state.online is False,
    "portal": lambda state: state.portal is True,
    "hot": lambda state: (state.thermal or Thermal.NOMINAL) >= Thermal.HOT,
    "locked": lambda state: state.session_away is True,
}
_CONDITIONS = (*_WORDS, "battery < N %", "[DAYS] HH:MM-HH:MM")
_NAMES: dict[str, tuple[str, type[Motion] | type[Upload]]] = {
    "motion": ("thinned, endpoints or none", Motion),
    "upload": ("scheduled, control or none", Upload),
}
_LEVERS = ("motion", "tolerance", "read", "age", "tick", "cpu", "upload", "bytes", "capture")


@dataclass(frozen=True, slots=True)
class _Condition:
    """One of `word`, `below` and `window`."""

    negated: bool
    word: str = ""
    below: float | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Rule(CpuMeansNothing):
    """A policy of one rule; its text is the reason it gives. Its latches: for each condition whether the
    battery was low, with a band of 5 points. `battery < N %` holds of a machine that runs on its battery.
    `tz` is for windows of time; the system's unless given."""

    text: str
    conditions: tuple[_Condition, ...]
    plan: Plan
    tz: tzinfo | None = None

    @classmethod
    def parse(cls, text: str, tz: tzinfo | None = None) -> Rule:
        """Raises `ValueError` that says what is wrong, at which character, and what may stand there."""
        whole = text.strip()
        if not whole.isprintable() or len(whole) > limits.RULE_MAX_CHARACTERS:
            raise ValueError(f"a rule is one line of at most {limits.RULE_MAX_CHARACTERS} characters")
        when, colon, levers = whole.rpartition(":")
        if not colon or re.fullmatch(r"\d\d.*", levers):  # the colon of a time of the day
            raise ValueError("a rule is CONDITION: LEVER VALUE, such as 'battery < 30 %: motion none'")
        conditions = tuple(_parsed(_condition, part, at) for at, part in _parts(when, r"\band\b", 0))
        plan = Plan()
        for at, part in _parts(levers, ",", len(when) + 1):
            plan &= _parsed(_lever, part, at)
        return cls(whole, conditions, replace(plan, reasons=(whole,), upload_reasons=None), tz)

    @property
    def name(self) -> str:
        return f"'{self.text}'"

    def __call__(
        self, state: ResourceState, latches: Latches, moment: Moment
    ) -> tuple[Plan, tuple[bool, ...]]:
        count = len(self.conditions)
        was = latches if isinstance(latches, tuple) and len(latches) == count else (False,) * count
        low = tuple(
            each.below is not None
            and latched(before, state.battery_ratio, each.below, limits.BATTERY_BAND_RATIO)
            for each, before in zip(self.conditions, was, strict=True)
        )
        holds = all(
            self._holds(each, is_low, state, moment) is not each.negated
            for each, is_low in zip(self.conditions, low, strict=True)
        )
        return (self.plan if holds else Plan()), low

    def due_s(self, moment: Moment) -> float | None:
        windows = [each.window for each in self.conditions if each.window is not None]
        return change_s(windows, moment.wall_ns, self.tz)

    def _holds(self, condition: _Condition, low: bool, state: ResourceState, moment: Moment) -> bool:
        if condition.window is not None:
            return condition.window.holds(week_ns(moment.wall_ns, self.tz))
        if condition.below is not None:
            return low and state.on_battery
        return _WORDS[condition.word](state)


def _parts(text: str, separator: str, start: int) -> Iterator[tuple[int, str]]:
    """Each part between separators, and at which character of the rule it begins, from 1."""
    begin = 0
    for match in [*re.finditer(separator, text), None]:
        part = text[begin : match.start() if match else len(text)]
        yield start + begin + len(part) - len(part.lstrip()) + 1, part.strip()
        begin = match.end() if match else 0


def _parsed(parse: Callable[[str], Any], part: str, at: int) -> Any:
    try:
        return parse(part)
    except ValueError as error:
        raise ValueError(f"{part!r} at character {at}: {error}") from None


def _condition(part: str) -> _Condition:
    text = " ".join(part.lower().split())
    negated = text.startswith("not ")
    text = text.removeprefix("not ")
    if text in _WORDS:
        return _Condition(negated, word=text)
    if match := re.fullmatch(r"battery ?< ?([0-9]{1,3}(?:\.[0-9]+)?) ?%", text):
        if not 0 < float(match[1]) <= 100:
            raise ValueError("a battery has more than 0 and at most 100 %")
        return _Condition(negated, below=float(match[1]) / 100)
    if re.search(r"\d:\d", text):
        return _Condition(negated, window=Window.parse(text))
    raise ValueError(_unknown("condition", text, _CONDITIONS))


def _lever(part: str) -> Plan:
    word, _, value = " ".join(part.lower().split()).partition(" ")
    if word in _NAMES:
        words, kind = _NAMES[word]
        if value.upper() not in kind.__members__ or not kind[value.upper()]:
            raise ValueError(f"{word} is {words}")
        lever: dict[str, Any] = {word: kind[value.upper()]}
        return Plan(**lever)
    if word == "tolerance":
        return Plan(motion=Motion.THINNED, tolerance_px=_number(value, {"": 1, "px": 1}, "pixels, such as 8"))
    if word in ("read", "age", "tick"):
        seconds = _number(value, {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}, "a time, such as 500ms, 2s or 5m")
        if word == "tick":
            return Plan(tick_ns=round(seconds * 1e9))
        return Plan(read_interval_s=seconds) if word == "read" else Plan(batch_age_s=seconds)
    if word == "bytes":
        units = {"": 1, "kib": 1024, "mib": 1024**2}
        hourly = int(_number(value, units, "bytes an hour, such as 300 KiB"))
        return Plan(byte_effort=ByteEffort.HIGH, upload=Upload.SCHEDULED, bytes_per_hour=hourly)
    if word in ("cpu", "capture"):
        only = {"cpu": "low", "capture": "off"}[word]
        if value != only:
            raise ValueError(f"{word} is {only}")
        return Plan(cpu_effort=CpuEffort.LOW) if word == "cpu" else Plan(capture=False)
    raise ValueError(_unknown("lever", word, _LEVERS))


def _number(text: str, units: Mapping[str, float], words: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([a-z]*)", text)
    if match is None or match[2] not in units:
        raise ValueError(f"it takes {words}")
    return float(match[1]) * units[match[2]]


def _unknown(what: str, word: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # for a mistake only

    close = get_close_matches(word, known, n=1)
    meant = f"did you mean {close[0]!r}? There are" if close else "there are"
    return f"there is no such {what}; {meant} {', '.join(known)}"
