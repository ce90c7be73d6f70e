"""The table of controls: what a participant can do, in the host's API, through the control channel and on the command
line. A test drives each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Command:
    """One control. Arguments and answers are JSON: `control(name, arguments)` of a collector, or of a state folder on
    which no agent runs (`mcilib.participant`), gives the answer."""

    words: str
    api: str
    """The method of `Collector`."""
    arguments: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


#: name in the control channel -> what it is. The command line has a command of the same name, or as in `cli`.
COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "pause": Command(
            "nothing is captured for a while, then it goes on by itself", "pause", ("duration_s",), ("left_s",)
        ),
        "resume": Command("ends a pause", "resume", (), ("held",)),
        "exempt": Command(
            "asks that a part is never captured; it is off from now on",
            "request_exemption",
            ("scope", "reason_class", "note", "until_ns"),
            ("exemption",),
        ),
        "unexempt": Command(
            "takes a request or an exemption back", "withdraw_exemption", ("exemption",), ("exemption",)
        ),
        "forget": Command(
            "deletes every whole batch that touches the last minutes, here and at the receiver",
            "forget",
            ("last_s",),
            ("batches", "events", "asked"),
        ),
        "hold": Command("batches rest so long on this device before they go", "hold", ("hold_s",), ("hold_s",)),
        "inspect": Command(
            "what was captured so far is committed, so that it can be looked at", "commit", (), ("committed",)
        ),
        "withdraw": Command(
            "ends it: deletes all data here, and asks the receiver to delete all", "withdraw", (), ("batches", "asked")
        ),
        "status": Command("who collects, what, since when, what waits, what was sent", "control_status"),
        "flush": Command("uploads now what waits", "flush", ("timeout_s",), ("delivered", "waiting_batches", "detail")),
        "regrant": Command("the grant in the state folder has changed", "regrant", (), ("scopes", "batches")),
        "ask": Command("something is asked of the participant: nothing is captured until the answer", "ask", ("why",)),
        "answered": Command("the question is answered, and changes nothing", "answered", ()),
    }
)  # fmt: skip
