"""The error tree: few errors, one root, each message ends with what to do next.

Errors are raised by constructors, by `start()` and by the tools. Once a collector runs, nothing is raised
into the host: trouble becomes a counted drop, a health state and one log line.
"""

from __future__ import annotations

from typing import Any, ClassVar


class McilibError(Exception):
    """Root of all errors. `problem` names the cause, `next_step` what to do; both end up in the message.

    Errors pickle and compare by their fields. `exit_code` is what the command line ends with.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem, next_step)
        self.problem = problem.rstrip(".")
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.problem}. {self.next_step}"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), self.args))


class ConfigError(McilibError):
    """An option or a line of the configuration file is wrong (`line` counts from 1, 0 = not from a file)."""

    exit_code = 2

    def __init__(self, problem: str, next_step: str, line: int = 0) -> None:
        super().__init__(problem, next_step)
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.next_step, self.line)


class GrantError(McilibError):
    """There is no grant, it cannot be read, it has expired, or it does not cover what was asked for."""

    exit_code = 3


class SourceError(McilibError):
    """A source cannot capture."""

    exit_code = 4


class DisplayError(SourceError):
    """No display, a display that does not answer, or one on which input cannot be heard (Wayland)."""


class IndicatorError(SourceError):
    """The participant cannot be told that recording begins: it does not begin."""


class TraceError(SourceError):
    """A trace file cannot be replayed (`line` counts from 1; 0 = the file as a whole)."""

    def __init__(self, problem: str, next_step: str, line: int = 0) -> None:
        super().__init__(problem, next_step)
        self.line = line

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.next_step, self.line)


class DeliveryError(McilibError):
    """The endpoint cannot be used: refused, wrong certificate, not our server, not allowed."""

    exit_code = 5


class SpoolError(McilibError):
    """The spool on this device cannot be used: not writable, full, owned by another process, too new."""

    exit_code = 6


class ControlError(McilibError):
    """The control channel does not work: the agent does not answer, or who answers is not this user's agent."""

    exit_code = 9


class NoAgent(ControlError):
    """No agent runs on this state folder."""


class StoreError(McilibError):
    """The receiver's store cannot be used: not there, not readable, not writable."""

    exit_code = 6


class BatchFormatError(McilibError):
    """Bytes that are not a batch this version can read (`offset` in bytes from the start of the frame)."""

    exit_code = 7

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(
            f"Not a readable batch: {reason} (at byte {offset})",
            "Other batches are not affected; keep the file if you want to report it.",
        )
        self.reason = reason
        self.offset = offset

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.offset)


class SealError(McilibError):
    """A batch cannot be sealed or opened: a key is wrong or does not fit, or pyrage is not installed.

    `damaged`: no key can open it, since it is no age file or not the one that was written.
    """

    exit_code = 8

    def __init__(self, problem: str, next_step: str, damaged: bool = False) -> None:
        super().__init__(problem, next_step)
        self.damaged = damaged

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problem, self.next_step, self.damaged)
