"""May it be collected at all: what a participant agreed to, what they decide while it runs, and the gate that holds
everything to both.

    grant       who collects what, for what, until when: nothing without one
    pause       nothing is captured for a while
    exemption   a part that is never captured, or not at some hours, asked for and decided
    state       all that the participant has decided, as one value: what is captured now
    gate        each event held to the grant and to the state, by the event's own time
    commands    the one table of controls: what each does, in the API and on the command line
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing's; type checkers know the name

if TYPE_CHECKING:
    from mcilib.consent.commands import COMMANDS as COMMANDS
    from mcilib.consent.exemption import Exemption as Exemption
    from mcilib.consent.exemption import ExemptionState as ExemptionState
    from mcilib.consent.exemption import ExemptScope as ExemptScope
    from mcilib.consent.gate import Gate as Gate
    from mcilib.consent.grant import DEFAULT_POLICY as DEFAULT_POLICY
    from mcilib.consent.grant import SCOPES as SCOPES
    from mcilib.consent.grant import Grant as Grant
    from mcilib.consent.grant import Scope as Scope
    from mcilib.consent.pause import Pause as Pause
    from mcilib.consent.state import ControlState as ControlState

_MODULE_OF = {
    "Grant": "grant",
    "Scope": "grant",
    "SCOPES": "grant",
    "DEFAULT_POLICY": "grant",
    "Pause": "pause",
    "Exemption": "exemption",
    "ExemptionState": "exemption",
    "ExemptScope": "exemption",
    "ControlState": "state",
    "Gate": "gate",
    "COMMANDS": "commands",
}

__all__ = [*_MODULE_OF]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
