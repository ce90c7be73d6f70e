"""Answers and errors as they travel: an error comes out at the other end as the same one, with its words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mcilib import errors
from mcilib.channel import wire
from mcilib.errors import BatchFormatError, ControlError, McilibError

_log = logging.getLogger("mcilib")


def carry_out(handle: Callable[[str, Mapping[str, Any]], Mapping[str, Any]], body: bytes) -> bytes:
    """The answer to a request, both as bytes. Raises nothing that `handle` raises."""
    try:
        name, arguments = wire.read_request(body)
    except wire.Refused as refused:
        return pack_error(
            ControlError(f"The command cannot be read ({refused})", "Is this another version of mcilib?")
        )
    try:
        return wire.encode({"answer": dict(handle(name, arguments))})
    except McilibError as error:
        return pack_error(error)
    except Exception as error:  # its words may hold anything
        why = error.reason if isinstance(error, wire.Refused) else type(error).__name__
        _log.warning("mcilib: a command failed (%s)", why)
        return pack_error(
            ControlError(
                f"The agent could not carry this out ({why})", "This is a fault of the program; report it."
            )
        )


def pack_error(error: McilibError) -> bytes:
    """A type of the host's own goes as the one of mcilib's that it is made from; fields besides the words stay here."""
    kind = next(c.__name__ for c in type(error).__mro__ if vars(errors).get(c.__name__) is c)
    try:
        return wire.encode({"error": {"type": kind, "problem": error.problem, "next_step": error.next_step}})
    except wire.Refused:
        words = {"type": kind, "problem": "An error whose words cannot be told", "next_step": ""}
        return wire.encode({"error": words})


def unpack(body: bytes) -> Mapping[str, Any]:
    """The answer; raises the error that it is, or `ControlError` when it is neither."""
    try:
        value = wire.decode(body)
    except wire.Refused:
        value = {}
    answer, told = value.get("answer"), value.get("error")
    if isinstance(answer, dict):
        return answer
    if isinstance(told, dict):
        kind, problem, next_step = (told.get(name) for name in ("type", "problem", "next_step"))
        if isinstance(kind, str) and isinstance(problem, str) and isinstance(next_step, str):
            raise _kind_of(kind)(problem, next_step)
    raise ControlError("The answer cannot be read", "Is the agent another version of mcilib?")


def _kind_of(name: str) -> type[McilibError]:
    """The root for one that is not known here, or not made of words."""
    found = vars(errors).get(name)
    if isinstance(found, type) and issubclass(found, McilibError) and found is not BatchFormatError:
        return found
    return McilibError
