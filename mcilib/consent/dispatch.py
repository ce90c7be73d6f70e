"""A control as JSON, carried out by whatever has the methods: a running collector, or a folder without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from mcilib.consent.commands import COMMANDS
from mcilib.consent.exemption import Exemption, ExemptScope
from mcilib.consent.grant import Grant
from mcilib.consent.pause import Pause
from mcilib.errors import ConfigError
from mcilib.statistics import Forgotten


class Controllable(Protocol):
    """What a participant can do. All raise `McilibError`."""

    def pause(self, duration_s: float | None = None) -> Pause: ...

    def request_exemption(
        self, scope: ExemptScope, reason_class: str, note: str = "", until_ns: int | None = None
    ) -> Exemption: ...

    def withdraw_exemption(self, exemption_id: str) -> Exemption: ...

    def hold(self, hold_s: float) -> None: ...

    def ask(self, why: str) -> None: ...

    def answered(self) -> None: ...

    def forget(self, last_s: float) -> Forgotten: ...

    def withdraw(self) -> Forgotten: ...

    def regrant(self, grant: Grant | None = None) -> Forgotten: ...

    def commit(self) -> bool: ...

    def control_resume(self) -> Mapping[str, Any]: ...

    def control_status(self) -> Mapping[str, Any]: ...

    def control_flush(self, timeout_s: float) -> Mapping[str, Any]: ...


def carry_out(target: Controllable, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """One of `COMMANDS`. Arguments come from outside: `ConfigError` for one that is missing, unknown or of the wrong
    kind."""
    command = COMMANDS.get(name)
    if command is None:
        raise ConfigError(f"There is no control {name!r}", f"Controls: {', '.join(COMMANDS)}.")
    if unknown := set(arguments) - set(command.arguments):
        raise ConfigError(
            f"{name} has no {', '.join(map(str, unknown))}", "Use the same version on both sides."
        )
    return _STEPS[name](target, arguments)


def _pause(target: Controllable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    given = arguments.get("duration_s")
    pause = target.pause(None if given is None else _number(arguments, "duration_s"))
    return {"left_s": pause.duration_ns / 1e9}


def _exempt(target: Controllable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        scope = ExemptScope.from_json(arguments.get("scope"))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The scope is none ({error})", "Use the same version on both sides.") from None
    until_ns = arguments.get("until_ns")
    if until_ns is not None and type(until_ns) is not int:
        raise ConfigError("until_ns is no time", "Give Unix time in ns.")
    exemption = target.request_exemption(
        scope, _text(arguments, "reason_class"), _text(arguments, "note", ""), until_ns
    )
    return {"exemption": exemption.to_json()}


def _unexempt(target: Controllable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"exemption": target.withdraw_exemption(_text(arguments, "exemption")).to_json()}


def _hold(target: Controllable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    hold_s = _number(arguments, "hold_s")
    target.hold(hold_s)
    return {"hold_s": hold_s}


def _ask(target: Controllable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    target.ask(_text(arguments, "why"))
    return {}


def _answered(target: Controllable, _: Mapping[str, Any]) -> dict[str, Any]:
    target.answered()
    return {}


def _regrant(target: Controllable, _: Mapping[str, Any]) -> dict[str, Any]:
    return _forgotten(target.regrant())


def _forgotten(forgotten: Forgotten) -> dict[str, Any]:
    return {"batches": forgotten.batches, "events": forgotten.events, "asked": forgotten.asked}


_STEPS: Mapping[str, Callable[[Controllable, Mapping[str, Any]], dict[str, Any]]] = {
    "pause": _pause,
    "resume": lambda target, _: dict(target.control_resume()),
    "exempt": _exempt,
    "unexempt": _unexempt,
    "hold": _hold,
    "ask": _ask,
    "answered": _answered,
    "regrant": _regrant,
    "forget": lambda target, arguments: _forgotten(target.forget(_number(arguments, "last_s"))),
    "withdraw": lambda target, _: _forgotten(target.withdraw()),
    "inspect": lambda target, _: {"committed": target.commit()},
    "status": lambda target, _: dict(target.control_status()),
    "flush": lambda target, arguments: dict(target.control_flush(_number(arguments, "timeout_s"))),
}


def _number(arguments: Mapping[str, Any], name: str) -> float:
    value = arguments.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # not a number
        raise ConfigError(f"{name} is no number", "Give seconds.")
    return float(value)


def _text(arguments: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = arguments.get(name, default)
    if not isinstance(value, str):
        raise ConfigError(f"{name} is no text", "Use the same version on both sides.")
    return value
