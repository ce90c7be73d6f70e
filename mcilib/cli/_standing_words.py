"""How things stand, in a participant's words: rows of a label and a text. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from mcilib.cli._output import one_line
from mcilib.cli._standing import Standing
from mcilib.cli.exempt import STATE_WORDS
from mcilib.consent import SCOPES, Exemption
from mcilib.consent.exemption import ends_words
from mcilib.consent.grant import VIA_WORDS
from mcilib.consent.state import left_words
from mcilib.language import Words, lasting, moment

Rows = list[list[str]]

_ID_SHOWN = 8
"""Digits of an id: enough for `mcilib exempt --withdraw`."""


def warnings(standing: Standing, tr: Words) -> Iterator[str]:
    """What comes first in every status."""
    if standing.grant is not None and standing.grant.given_via == "unattended":
        yield tr("Unattended: nobody was asked on this device. `mcilib grant` on a terminal asks.")
    if standing.state.unreadable:
        damaged = tr("What you have decided (pauses, exemptions, a withdrawal) cannot be read: {why}.")
        todo = tr(
            "Nothing is captured until it can. To begin anew, remove {file}, then pause or exempt again."
        )
        yield damaged.format(why=one_line(standing.state.unreadable))
        yield todo.format(file=one_line(str(standing.folder / "controls.json")))


def rows(standing: Standing, tr: Words) -> Rows:
    """Who collects what, whether it is captured now and why not, and what the participant has decided."""
    return [
        *_grant_rows(standing, tr),
        [tr("Now:"), _now(standing, tr)],
        *_asked_rows(standing, tr),
        *_pause_rows(standing, tr),
        *_exemption_rows(standing, tr),
        *_hold_rows(standing, tr),
        *_withdrawal_rows(standing, tr),
    ]


def _grant_rows(standing: Standing, tr: Words) -> Rows:
    grant = standing.grant
    if grant is None:
        if standing.unreadable:
            return [[tr("Grant:"), tr("unreadable. {why}").format(why=one_line(str(standing.problem)))]]
        if standing.has_grant_elsewhere:
            elsewhere = tr(
                "not in this folder. The agent keeps to its own until `mcilib withdraw`, or its end."
            )
            return [[tr("Grant:"), elsewhere]]
        return [[tr("Grant:"), tr("none. Nothing is collected without one: `mcilib grant`.")]]
    ends = tr("when you withdraw")
    if grant.expires_ns is not None:
        ends = moment(grant.expires_ns)
    if grant.expired(standing.now.wall_ns):
        ends = tr("{moment} (over: nothing is collected or sent)").format(moment=ends)
    given = f"{moment(grant.given_ns)} {tr(VIA_WORDS[grant.given_via])}"
    kinds = [f"{scope}: {tr(SCOPES[scope].short)}" for scope in grant.scopes]
    return [
        [tr("Who collects:"), grant.operator],
        [tr("What for:"), grant.purpose],
        *([tr("What:") if number == 0 else "", kind] for number, kind in enumerate(kinds)),
        [tr("Given:"), given],
        [tr("Ends:"), ends],
    ]


def _now(standing: Standing, tr: Words) -> str:
    """One sentence: whether anything is captured."""
    whole = standing.barred(tr).all
    why = one_line(whole.words) if whole is not None else ""
    grant = standing.grant
    if not why and grant is not None and grant.expired(standing.now.wall_ns):
        why = tr("the grant is over")
    if not standing.running:
        idle = tr("no agent runs, nothing is collected now")
        return tr("{idle}; {why}").format(idle=idle, why=why) if why else idle
    agent = tr("an agent runs")
    if standing.pid is not None:
        agent = tr("an agent runs (process {pid})").format(pid=standing.pid)
    if standing.since_ns is not None:
        agent = tr("{agent} since {moment}").format(agent=agent, moment=moment(standing.since_ns))
    if why:
        return tr("{agent}, but nothing is captured now: {why}").format(agent=agent, why=why)
    return tr("{agent} and records into this folder").format(agent=agent)


def _asked_rows(standing: Standing, tr: Words) -> Rows:
    if not standing.state.asked:
        return []
    text = tr("{question}. Nothing is captured until you answer: `mcilib grant`")
    return [[tr("Asked:"), text.format(question=one_line(tr(standing.state.asked)))]]


def _pause_rows(standing: Standing, tr: Words) -> Rows:
    pause = standing.state.pause
    if pause is None:
        return []
    left_ns = pause.left_ns(standing.now)
    text = tr("for {left} more, until {moment}; then it goes on by itself. `mcilib resume` ends it sooner")
    until = moment(standing.now.wall_ns + left_ns)
    return [[tr("Paused:"), text.format(left=left_words(left_ns, tr), moment=until)]]


def _exemption_rows(standing: Standing, tr: Words) -> Rows:
    found: Rows = []
    for exemption in standing.state.exemptions:
        label = tr("Exempt:") if not found else ""
        found += [[label, _exemption(exemption, tr)]]
        if exemption.answer:
            answer = tr("the operator answers: {answer}").format(answer=one_line(exemption.answer))
            found += [["", f"  {answer}"]]
    return found


def _exemption(exemption: Exemption, tr: Words) -> str:
    state = tr(STATE_WORDS[exemption.state.value])
    if exemption.state.bars:
        state = f"{state}, {ends_words(exemption, tr)}"
    told = f"{exemption.scope.words_in(tr)}: {state}"
    number, asked = exemption.exemption_id[:_ID_SHOWN], moment(exemption.requested_ns)
    return tr("{told} ({id}, asked on {moment})").format(told=one_line(told), id=number, moment=asked)


def _hold_rows(standing: Standing, tr: Words) -> Rows:
    hold_s = standing.state.hold_s
    if not hold_s:
        return []
    text = tr("each batch rests here for {time} before it goes. `mcilib inspect` shows them")
    return [[tr("Held:"), text.format(time=lasting(hold_s, tr))]]


def _withdrawal_rows(standing: Standing, tr: Words) -> Rows:
    withdrawal = standing.state.withdrawal
    if withdrawal is None:
        return []
    asked = moment(withdrawal.asked_ns)
    if withdrawal.confirmed_ns is None:
        text = tr("on {moment}. The receiver has not yet confirmed that all is deleted").format(moment=asked)
    else:
        text = tr("on {moment}. The receiver has confirmed on {confirmed} that all is deleted").format(
            moment=asked, confirmed=moment(withdrawal.confirmed_ns)
        )
    return [[tr("Withdrawn:"), text]]
