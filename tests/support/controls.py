"""The controls as a proof plays them: how each is done, and what of the marks may be read afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scenes import FULL, NOTHING, Scene

POINTER = frozenset({"pointer"})


@dataclass(frozen=True)
class Control:
    """One row. `before` is what can be read of what was done before it, `during` of what is done after it."""

    command: str
    """Of `mcilib.consent.COMMANDS`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    line: Callable[[Scene], object] = lambda scene: None
    """The same on the command line."""
    first: tuple[str, Mapping[str, Any]] | None = None
    """Another control that is in force at the beginning."""
    before: frozenset[str] = FULL
    during: frozenset[str] = FULL
    lasts: bool = True
    """It goes on to hold, so that time may pass after it; else it does something once."""
    prepare: Callable[[Scene], None] = lambda scene: None
    """Immediately before it."""


def _line(*words: str) -> Callable[[Scene], object]:
    return lambda scene: scene.command(*words)


CONTROLS: dict[str, Control] = {
    "pause": Control("pause", {"duration_s": 900}, _line("pause", "15m"), during=NOTHING),
    "resume": Control(
        "resume", {}, _line("resume"), ("pause", {"duration_s": 900}), NOTHING, FULL, lasts=False
    ),
    "exempt a kind": Control(
        "exempt", {"scope": {"scopes": ["keys"]}, "reason_class": "personal", "note": "no keys"},
        _line("exempt", "--scope", "keys", "--reason", "personal", "--note", "no keys"), during=POINTER,
    ),
    "exempt everything": Control(
        "exempt", {"scope": {"everything": True}, "reason_class": "other", "note": ""},
        _line("exempt", "--everything", "--reason", "other"), during=NOTHING,
    ),
    "exempt a program": Control(
        "exempt", {"scope": {"apps": ["Vault"]}, "reason_class": "confidential", "note": ""},
        _line("exempt", "--app", "Vault", "--reason", "confidential"), during=NOTHING,
        prepare=lambda scene: scene.use("Vault"),
    ),
    "unexempt": Control(
        "unexempt", {}, lambda scene: scene.command("exempt", "--withdraw", scene.exemption),
        ("exempt", {"scope": {"scopes": ["keys"]}, "reason_class": "personal"}), POINTER, FULL, lasts=False,
    ),
    "forget": Control("forget", {"last_s": 3600}, _line("forget", "1h", "--yes"), before=NOTHING, lasts=False),
    "hold": Control("hold", {"hold_s": 3600}, _line("hold", "1h")),
    "withdraw": Control("withdraw", {}, _line("withdraw", "--yes"), before=NOTHING, during=NOTHING),
    "regrant": Control(
        "regrant", {}, lambda scene: scene.narrow_by_command("pointer"), before=NOTHING, during=POINTER, lasts=False,
        prepare=lambda scene: scene.narrow("pointer"),
    ),
    "ask": Control("ask", {"why": "a wider grant"}, lambda scene: scene.is_asked(), during=NOTHING),
    "answered": Control(
        "answered", {}, lambda scene: scene.is_asked("no"), ("ask", {"why": "a wider grant"}), NOTHING, FULL, lasts=False
    ),
    "flush": Control("flush", {"timeout_s": 5}, _line("flush"), lasts=False),
    "inspect": Control("inspect", {}, _line("inspect"), lasts=False),
}  # fmt: skip
