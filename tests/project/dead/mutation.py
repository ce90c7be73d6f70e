"""One option or control that is read and does nothing: the library with that change, and all the changes there are.

upload.hold_s            an option of the table, as the command line reads it: it always has its default
Collector(hold_s)        a parameter of a class: as if it had not been given
pause@api                a method of `Collector`: answers as usual, and does nothing
pause@running            the same, asked of a running collector by name, as the command line does it
pause@folder             the same, of a state folder on which no collector runs
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import time
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from typing import Any

#: Classes whose parameters are options: those with a default, but for what only serves tests and composition.
CLASSES = {
    "Collector": "mcilib.collector",
    "PointerSource": "mcilib.sources.pointer",
    "KeyboardSource": "mcilib.sources.keyboard",
    "WindowSource": "mcilib.sources.window",
    "DisplaySource": "mcilib.sources.display",
    "ReplaySource": "mcilib.sources.replay",
    "DirectorySpool": "mcilib.delivery.spool",
    "Uploader": "mcilib.delivery.uploader",
    "HttpTransport": "mcilib.delivery.http",
    "ObjectStoreTransport": "mcilib.delivery.objectstore",
}
WAYS = ("api", "running", "folder")

#: Controls that nobody asks of a folder.
NOT_OF_A_FOLDER = ("flush", "inspect", "status", "regrant", "ask")


def mutants() -> list[str]:
    """All of them. Imports the library."""
    from mcilib.config import OPTIONS
    from mcilib.consent import COMMANDS

    names = list(OPTIONS)
    for cls, module in CLASSES.items():
        signature = inspect.signature(getattr(importlib.import_module(module), cls))
        names += [
            f"{cls}({parameter.name})"
            for parameter in signature.parameters.values()
            if parameter.default is not inspect.Parameter.empty
        ]
    for control in COMMANDS:
        names += [f"{control}@{way}" for way in WAYS if way != "folder" or control not in NOT_OF_A_FOLDER]
    return names


def install(name: str) -> None:
    """The change is made when the module it is of is imported."""
    if "@" in name:
        control, way = name.split("@")
        if way == "api":
            _when_imported("mcilib.collector", lambda module: _no_method(module.Collector, control))
        else:
            _when_imported("mcilib.consent.dispatch", lambda module: _no_dispatch(module, control, way))
    elif "(" in name:
        cls, parameter = name.removesuffix(")").split("(")
        _when_imported(CLASSES[cls], lambda module: _no_parameter(getattr(module, cls), parameter))
    else:
        section, key = name.split(".")
        _when_imported("mcilib.config.table", lambda module: _no_option(module, section, key))


def _no_option(table: Any, section: str, key: str) -> None:
    defaults = getattr(table.Settings(), section)
    default = getattr(defaults, key)
    setattr(type(defaults), key, property(lambda self: default, lambda self, value: None))


def _no_parameter(cls: type, parameter: str) -> None:
    init = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(init)

    @functools.wraps(init)
    def without(*args: Any, **more: Any) -> None:
        bound = signature.bind(*args, **more)
        bound.arguments.pop(parameter, None)
        init(*bound.args, **bound.kwargs)

    cls.__init__ = without  # type: ignore[misc]


def _no_method(cls: type, control: str) -> None:
    from mcilib.consent.commands import COMMANDS

    name = COMMANDS[control].api

    def nothing(self: Any, *args: Any, **more: Any) -> Any:
        return _answer(control, *args, **more)

    setattr(cls, name, nothing)


def _no_dispatch(dispatch: Any, control: str, way: str) -> None:
    carry_out = dispatch.carry_out

    def without(target: Any, name: str, arguments: Any) -> dict[str, Any]:
        runs = type(target).__name__ == "Collector"
        if name == control and runs == (way == "running"):
            return _ANSWERS[name](arguments)
        return dict(carry_out(target, name, arguments))

    dispatch.carry_out = without


def _exemption(arguments: Any, state: str) -> dict[str, Any]:
    return {
        "exemption": arguments.get("exemption", "0" * 32), "state": state,
        "scope": arguments.get("scope", {"everything": True}), "reason_class": arguments.get("reason_class", "other"),
        "note": arguments.get("note", ""), "requested_ns": time.time_ns(), "until_ns": arguments.get("until_ns"),
        "decided_ns": None, "answer": "",
    }  # fmt: skip


_GONE = {"batches": 1, "events": 1, "asked": 1}

#: control -> what it would answer if it had been carried out.
_ANSWERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "pause": lambda a: {"left_s": a.get("duration_s") or 900.0},
    "resume": lambda a: {"held": None},
    "exempt": lambda a: {"exemption": _exemption(a, "pending")},
    "unexempt": lambda a: {"exemption": _exemption(a, "withdrawn")},
    "forget": lambda a: dict(_GONE),
    "hold": lambda a: {"hold_s": a["hold_s"]},
    "inspect": lambda a: {"committed": True},
    "withdraw": lambda a: dict(_GONE),
    "status": lambda a: {"held": None, "pid": 1, "statistics": {}},
    "flush": lambda a: {"delivered": True, "committed": True, "waiting_batches": 0, "detail": ""},
    "regrant": lambda a: dict(_GONE),
    "ask": lambda a: {},
    "answered": lambda a: {},
}


def _answer(control: str, *args: Any, **more: Any) -> Any:
    """The same, as the method of `Collector` gives it."""
    from mcilib.collector import FlushResult
    from mcilib.consent.exemption import Exemption, ExemptScope
    from mcilib.consent.pause import Now, Pause
    from mcilib.statistics import Forgotten

    given = [*args, *more.values()]
    if control == "pause":
        seconds = given[0] if given and given[0] is not None else 900.0
        return Pause(Now(time.monotonic_ns(), 0, time.time_ns(), ""), int(seconds * 1e9))
    if control in ("exempt", "unexempt"):
        scopes = [one for one in given if isinstance(one, ExemptScope)]
        record = _exemption({}, "pending" if control == "exempt" else "withdrawn")
        return Exemption.from_json(
            {**record, "scope": (scopes or [ExemptScope(everything=True)])[0].to_json()}
        )
    if control in ("forget", "withdraw", "regrant"):
        return Forgotten(1, 1, 1)
    if control == "flush":
        return FlushResult(True, True, 0)
    if control == "status":
        return _ANSWERS[control]({})
    return True if control == "inspect" else None


class _When(MetaPathFinder):
    """Looks for one module, once, and changes it when it has been executed."""

    def __init__(self, module: str, change: Callable[[Any], None]) -> None:
        self._module, self._change = module, change

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def changed(module: Any) -> None:
            execute(module)
            self._change(module)

        spec.loader.exec_module = changed  # type: ignore[method-assign]
        return spec


def _when_imported(module: str, change: Callable[[Any], None]) -> None:
    sys.meta_path.insert(0, _When(module, change))
