"""What an agent says when the participant, the operator's answer or time has changed something."""

from __future__ import annotations

from mcilib.cli._output import one_line
from mcilib.cli.exempt import STATE_WORDS
from mcilib.consent.state import ControlState
from mcilib.controls import ControlChange
from mcilib.language import Words, lasting, marked

_WHAT = {
    "pause": marked("You have paused."),
    "resume": marked("You have ended the pause."),
    "unexempt": marked("You have taken an exemption back."),
    "forget": marked("You have deleted what was captured last."),
    "regrant": marked("Your grant has changed."),
    "ask": marked("You are asked something."),
    "answered": marked("You have answered; your grant stays as it is."),
    "withdraw": marked("You have withdrawn: all data on this device is deleted."),
    "confirmed": marked("The receiver has deleted what it was asked to."),
}
_BY_ITSELF = marked("A time is over.")


def change_line(change: ControlChange, tr: Words) -> str:
    """One line: what has changed, and whether anything is captured now."""
    held = change.held
    if held is None:
        after = tr("What may be captured is.")
    else:
        after = tr("Nothing is captured now: {why}.").format(why=one_line(held))
    return f"{_what(change, tr)} {after}"


def _what(change: ControlChange, tr: Words) -> str:
    state = change.state
    match change.what:
        case "exempt":
            return tr("You have asked for an exemption: {scope}.").format(scope=_last(state, tr))
        case "decided":
            return _decided(change, tr)
        case "hold" if state.hold_s:
            return tr("Batches rest here for {time}.").format(time=lasting(state.hold_s, tr))
        case "hold":
            return tr("Batches are not held.")
    return tr(_WHAT.get(change.what, _BY_ITSELF))


def _last(state: ControlState, tr: Words) -> str:
    return one_line(state.exemptions[-1].scope.words_in(tr)) if state.exemptions else tr("none")


def _decided(change: ControlChange, tr: Words) -> str:
    decided = [one for one in change.state.exemptions if one.exemption_id == change.exemption_id]
    if not decided:  # taken out since, by another
        return tr("The operator has decided.")
    [last] = decided
    answer = f' ("{one_line(last.answer)}")' if last.answer else ""
    scope, became = one_line(last.scope.words_in(tr)), tr(STATE_WORDS[last.state.value])
    return tr("The operator has decided. {scope}: {state}{answer}.").format(
        scope=scope, state=became, answer=answer
    )
