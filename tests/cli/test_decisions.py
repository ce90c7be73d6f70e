"""What a participant decides on a folder on which no agent runs: each command, and its effect in the folder."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Run, on_terminal, refused
from left_batches import KEYS, MOVES, contents, leave, requests, waiting

from mcilib.cli import exempt
from mcilib.consent import ControlState, ExemptionState, Grant
from mcilib.participant import Participant
from mcilib.testing.fakes import example_grant

EVERY = [
    ["pause"], ["resume"], ["hold", "1h"], ["forget", "10m", "--yes"], ["withdraw", "--yes"], ["inspect"], ["audit"],
    ["exempt", "--everything", "--reason", "other"], ["exempt", "--withdraw", "1f"],
]  # fmt: skip


def state_of(folder: Path) -> ControlState:
    return Participant.read_state(folder)


def answer(mcilib: Run, *args: str | Path) -> Any:
    done = mcilib(*args, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def left_s(folder: Path) -> float:
    state = state_of(folder)
    return state.pause.left_ns(_now(folder)) / 1e9 if state.pause is not None else 0.0


def _now(folder: Path) -> Any:
    from mcilib.cli._control import now_here

    return now_here()


# --- for all ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", EVERY, ids=lambda args: " ".join(args[:2]))
def test_without_a_grant_and_without_an_agent_there_is_nothing_to_decide(
    args: list[str], mcilib: Run, here: Path
) -> None:
    refused(mcilib(*args, "--state", "state"), 3, "There is no grant in state", "`mcilib grant`")
    assert not (here / "state").exists()


@pytest.mark.parametrize(
    "args", [args for args in EVERY if args != ["audit"]], ids=lambda args: " ".join(args[:2])
)
def test_a_folder_that_others_could_write_is_not_trusted(args: list[str], mcilib: Run, granted: Path) -> None:
    granted.chmod(0o777)
    done = mcilib(*args, "--state", granted)
    assert done.returncode in (3, 6), done
    assert "grant" in done.stderr or "folder" in done.stderr
    assert not (granted / "controls.json").exists()


@pytest.mark.parametrize("args", [["pause"], ["exempt", "--everything", "--reason", "other"], ["hold", "1h"]])
def test_a_decision_that_cannot_be_read_is_not_written_over(
    args: list[str], mcilib: Run, granted: Path
) -> None:
    (granted / "controls.json").write_text("{")
    (granted / "controls.json").chmod(0o600)
    refused(mcilib(*args, "--state", granted), 6, "cannot be read", "controls.json")
    assert (granted / "controls.json").read_text() == "{"


# --- pause and resume ----------------------------------------------------------------------------------------


def test_pause_lasts_15_minutes_unless_said(mcilib: Run, granted: Path) -> None:
    done = mcilib("pause", "--state", granted)
    assert done.returncode == 0
    assert done.stdout.startswith("Paused: nothing is captured for 15 min, until ")
    assert "`mcilib resume` ends it sooner.\nNo agent runs on this folder now" in done.stdout
    assert 890 < left_s(granted) <= 900


def test_pause_for_a_time_and_json(mcilib: Run, granted: Path) -> None:
    told = answer(mcilib, "pause", "90s", "--state", granted)
    assert (told["left_s"], told["running"]) == (90.0, False)
    until = datetime.fromisoformat(told["until"])
    assert abs((until - datetime.now(until.tzinfo)).total_seconds() - 90) < 30
    assert 60 < left_s(granted) <= 90


def test_a_pause_is_no_longer_than_the_operator_allows(mcilib: Run, granted: Path, here: Path) -> None:
    refused(
        mcilib("pause", "31m", "--state", granted), 2, "A pause of 1860 s is not allowed", "At most 1800 s"
    )
    assert state_of(granted).pause is None
    (here / "lab.toml").write_text("[consent]\npause_cap_s = 3600\n")
    assert mcilib("pause", "60m", "--state", granted, "--config", "lab.toml").returncode == 0
    assert left_s(granted) > 1_800
    refused(mcilib("pause", "61m", "--state", granted, "--config", "lab.toml"), 2, "At most 3600 s")


@pytest.mark.parametrize("time_", ["0s", "soon", "-5m", "25h", "10"])
def test_what_is_no_time_for_a_pause(time_: str, mcilib: Run, granted: Path) -> None:
    assert mcilib("pause", "--state", granted, "--", time_).returncode == 2
    assert state_of(granted) == ControlState()


def test_resume_ends_a_pause_and_says_what_else_stands_in_the_way(mcilib: Run, granted: Path) -> None:
    mcilib("pause", "--state", granted)
    assert mcilib("resume", "--state", granted).stdout == (
        "There is no pause any more. No agent runs on this folder now.\n"
    )
    assert state_of(granted).pause is None
    mcilib("exempt", "--everything", "--reason", "other", "--state", granted)
    told = answer(mcilib, "resume", "--state", granted)
    assert told["held"].startswith("everything is exempt")


# --- exempt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "scope"),
    [
        (["--scope", "keys, titles"], {"scopes": ["keys", "titles"]}),
        (["--app", "keepass*", "--app", "bank"], {"apps": ["keepass*", "bank"]}),
        (["--hours", "mon-fri 12:00-13:00"], {"hours": ["mon-fri 12:00-13:00"]}),
        (["--everything"], {"everything": True}),
    ],
)
def test_exempt_is_off_at_once_and_asked_for(
    args: list[str], scope: dict[str, Any], mcilib: Run, granted: Path
) -> None:
    extra = ["--reason", "medical", "--note", "my wrist", "--until", "7d"]
    told = answer(mcilib, "exempt", *args, *extra, "--state", granted)["exemption"]
    (kept,) = state_of(granted).exemptions
    assert kept.scope.to_json() == told["scope"] == scope
    assert (kept.reason_class, kept.note, kept.state) == ("medical", "my wrist", ExemptionState.PENDING)
    assert kept.until_ns is not None
    assert abs(kept.until_ns - time.time_ns() - 7 * 86_400e9) < 60e9
    (request,) = requests(granted)
    assert (request["kind"], request["record"]) == ("exemption", kept.exemption_id)
    assert request["exemption"]["note"] == "my wrist"


def test_exempt_says_what_it_does(mcilib: Run, granted: Path) -> None:
    done = mcilib("exempt", "--scope", "keys", "--reason", "personal", "--state", granted)
    (kept,) = state_of(granted).exemptions
    assert done.stdout.startswith("Not captured from now on: keys, until you withdraw it.\n")
    assert f"Asked of the operator, as {kept.exemption_id[:8]}." in done.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "one of the arguments"),
        (["--everything", "--scope", "keys", "--reason", "other"], "not allowed with"),
        (["--everything"], "--reason is missing"),
        (["--everything", "--reason", "lazy"], "'lazy' is no reason"),
        (["--scope", "screen", "--reason", "other"], "'screen' is no kind of events"),
        (["--scope", "", "--reason", "other"], "'' is no kind of events"),
        (["--app", "", "--reason", "other"], "'' is no program"),
        (["--hours", "at night", "--reason", "other"], "'at night' are no weekly hours"),
        (["--everything", "--reason", "other", "--until", "soon"], "--until must be such as 8h"),
        (["--everything", "--reason", "other", "--until", "2020-01-01"], "in the future"),
        (["--everything", "--reason", "other", "--until", "0s"], "in the future"),
        (["--everything", "--reason", "other", "--until", "999999d"], "--until must be"),
        (["--everything", "--reason", "other", "--note", "x" * 2_001], "too long"),
        (["--everything", "--reason", "other", "--note", "a\x1b[8m"], "cannot be shown"),
        (["--list", "--reason", "other"], "--reason belongs to a request"),
        (["--withdraw", "1f", "--until", "7d"], "--until belongs to a request"),
        (["--withdraw", "1f"], "'1f' names 0 exemptions"),
        (["--withdraw", ""], "names no exemptions"),
    ],
)
def test_what_is_no_exemption(args: list[str], words: str, mcilib: Run, granted: Path) -> None:
    refused(mcilib("exempt", *args, "--state", granted), 2, words)
    assert state_of(granted).exemptions == ()


def test_until_a_day_that_day_is_meant_too() -> None:
    tomorrow = (datetime.now().astimezone() + timedelta(days=1)).date()
    after = datetime.combine(tomorrow + timedelta(days=1), datetime.min.time()).astimezone()
    assert exempt._until(tomorrow.isoformat()) == int(after.timestamp()) * 10**9
    evening = f"{tomorrow.isoformat()}T18:00"
    assert exempt._until(evening) == int(datetime.fromisoformat(evening).timestamp()) * 10**9


def test_list_and_withdraw(mcilib: Run, granted: Path) -> None:
    assert mcilib("exempt", "--list", "--state", granted).stdout == "You have not asked for any exemption.\n"
    mcilib("exempt", "--app", "bank", "--reason", "personal", "--note", "mine", "--state", granted)
    (kept,) = state_of(granted).exemptions
    before = contents(granted)
    shown = mcilib("exempt", "--list", "--state", granted).stdout
    assert (
        f"{kept.exemption_id[:8]}  the program bank, until you withdraw it: asked for, not decided yet"
        in shown
    )
    assert "reason: personal" in shown
    assert "you wrote: mine" in shown
    (listed,) = answer(mcilib, "exempt", "--list", "--state", granted)["exemptions"]
    assert (listed["exemption"], listed["state"]) == (kept.exemption_id, "pending")
    assert contents(granted) == before, "looking changes nothing"
    done = mcilib("exempt", "--withdraw", kept.exemption_id[:6], "--state", granted)
    assert done.stdout.startswith("Withdrawn: the program bank.")
    assert state_of(granted).exemptions[0].state is ExemptionState.WITHDRAWN
    assert [request["kind"] for request in requests(granted)] == ["exemption", "exemption_withdrawn"]
    assert "taken back by you" in mcilib("exempt", "--list", "--state", granted).stdout


# --- hold -----------------------------------------------------------------------------------------------------


def test_hold_and_off(mcilib: Run, granted: Path) -> None:
    assert mcilib("hold", "24h", "--state", granted).stdout.startswith(
        "Held: each batch rests here for 1 day"
    )
    assert state_of(granted).hold_s == 86_400
    assert answer(mcilib, "hold", "off", "--state", granted) == {"hold_s": 0.0, "running": False}
    assert state_of(granted).hold_s == 0
    refused(mcilib("hold", "8d", "--state", granted), 2, "must be a duration from 1s to 7d")


def test_what_is_held_is_not_drained(mcilib: Run, granted: Path, endpoint: str) -> None:
    leave(granted)
    mcilib("hold", "24h", "--state", granted)
    refused(mcilib("run", "--state", granted, "--endpoint", endpoint, "--drain"), 5, "held on this device")
    assert len(waiting(granted)) == 1
    mcilib("hold", "off", "--state", granted)
    assert mcilib("run", "--state", granted, "--endpoint", endpoint, "--drain").returncode == 0
    assert waiting(granted) == []


# --- forget ---------------------------------------------------------------------------------------------------


def test_forget_deletes_each_whole_batch_of_that_time_and_no_other(mcilib: Run, granted: Path) -> None:
    old, new = leave(granted, 3_600), leave(granted, 60)
    told = answer(mcilib, "forget", "10m", "--yes", "--state", granted)
    assert (told["done"], told["batches"], told["running"]) == (True, 1, False)
    assert waiting(granted) == [old]
    (request,) = requests(granted)
    assert (request["kind"], request["batches"]) == ("delete", [new])
    assert request["participant"] == Grant.load(granted).participant


def test_forget_asks_the_receiver_for_what_has_gone(mcilib: Run, granted: Path, receiver: Any) -> None:
    store = receiver()
    leave(granted, 60)
    drain = ["run", "--state", granted, "--endpoint", store.url, "--drain"]
    assert mcilib(*drain).returncode == 0
    assert store.batches == 1
    code, seen = on_terminal("forget", "10m", "--state", str(granted), answer="yes")
    assert code == 0
    assert (
        "0 batches on this device and all that is not in a batch yet are deleted. The receiver is asked"
        in seen
    )
    assert mcilib(*drain).returncode == 0
    assert store.batches == 0


def test_forget_says_how_many_and_asks(mcilib: Run, granted: Path) -> None:
    leave(granted)
    before = contents(granted)
    code, seen = on_terminal("forget", "10m", "--state", str(granted), answer="no")
    assert (code, contents(granted)) == (0, before)
    assert (
        "Of the last 10 min, 1 batch on this device and all that is not in a batch yet are deleted." in seen
    )
    assert seen.endswith("Nothing is deleted.\n")
    code, seen = on_terminal("forget", "10m", "--state", str(granted), answer="yes")
    assert code == 0
    assert "Deleted: 1 batch on this device" in seen
    assert waiting(granted) == []


def test_forget_without_a_terminal_wants_a_yes(mcilib: Run, granted: Path) -> None:
    leave(granted)
    refused(mcilib("forget", "10m", "--state", granted), 2, "no terminal to ask on", "--yes")
    assert len(waiting(granted)) == 1
    refused(mcilib("forget", "31d", "--yes", "--state", granted), 2, "must be a duration from 1s to 30d")


# --- withdraw -------------------------------------------------------------------------------------------------


def test_withdraw_deletes_all_and_leaves_the_request(mcilib: Run, granted: Path) -> None:
    grant = Grant.load(granted)
    leave(granted, 9_000)
    leave(granted)
    code, seen = on_terminal("withdraw", "--state", str(granted), answer="yes")
    assert code == 0
    assert "You withdraw from 'tests' of Example Lab. 2 batches on this device" in seen
    assert "Deleted on this device: 2 batches." in seen
    assert "A new grant (`mcilib grant`) gets a new pseudonym." in seen
    assert waiting(granted) == []
    assert not (granted / "grant.json").exists()
    (request,) = requests(granted)
    assert (request["kind"], request["participant"]) == ("delete", grant.participant)
    assert "batches" not in request, "all of it"
    withdrawal = state_of(granted).withdrawal
    assert withdrawal is not None
    assert withdrawal.confirmed_ns is None
    refused(mcilib("withdraw", "--yes", "--state", granted), 3, "You have withdrawn on ", "not yet confirmed")
    for args in EVERY:
        if args[0] != "audit":
            refused(mcilib(*args, "--state", granted), 3, "You have withdrawn on ")
    assert mcilib("audit", "--verify", "--state", granted).returncode == 0, "the log stays"


def test_a_no_withdraws_nothing(mcilib: Run, granted: Path) -> None:
    leave(granted)
    before = contents(granted)
    code, seen = on_terminal("withdraw", "--state", str(granted), answer="")
    assert code == 0
    assert seen.endswith("Nothing has changed: the grant holds, nothing is deleted.\n")
    refused(mcilib("withdraw", "--state", granted), 2, "--yes")
    assert contents(granted) == before


def test_after_a_withdrawal_run_asks_and_captures_nothing(mcilib: Run, granted: Path, receiver: Any) -> None:
    store = receiver()
    leave(granted)
    run = ["run", "--state", granted, "--endpoint", store.url]
    assert mcilib(*run, "--drain").returncode == 0
    assert store.batches == 1
    mcilib("withdraw", "--yes", "--state", granted)
    lost = mcilib("run", "--state", granted, "--endpoint", "http://127.0.0.1:9")
    refused(lost, 3, "The receiver has not confirmed yet that all is deleted (", "run it again later")
    assert len(requests(granted)) == 1, "the request stays"
    done = mcilib(*run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "You have withdrawn: nothing is captured. Asking the receiver to delete all that it has of you.",
        "It has confirmed that all is deleted.",
    ]
    assert (store.batches, requests(granted)) == (0, [])
    refused(mcilib(*run), 3, "There is no grant")


def test_a_new_grant_after_a_withdrawal_is_somebody_elses(mcilib: Run, granted: Path, receiver: Any) -> None:
    terms = ["--operator", "Example Lab", "--purpose", "again", "--scope", "pointer", "--state", granted]
    store, first = receiver(), Grant.load(granted)
    mcilib("withdraw", "--yes", "--state", granted)
    assert mcilib("grant", *terms, "--yes").returncode == 0
    second = Grant.load(granted)
    assert not {second.participant, second.device} & {first.participant, first.device}
    leave(granted, events=MOVES)
    done = mcilib("run", "--state", granted, "--endpoint", store.url, "--drain")
    assert done.returncode == 0, done
    assert (requests(granted), store.batches) == ([], 1)
    state = state_of(granted)
    assert state.withdrawal is not None
    assert state.withdrawal.confirmed_ns is not None
    assert first.participant not in (granted / "controls.json").read_text()
    first.save(granted)  # from a backup
    assert mcilib("grant", *terms, "--yes").returncode == 0
    assert Grant.load(granted).participant not in (first.participant, second.participant)


# --- audit ----------------------------------------------------------------------------------------------------


def test_the_audit_log_tells_what_was_decided_and_no_content(mcilib: Run, granted: Path) -> None:
    mcilib("pause", "--state", granted)
    mcilib(
        "exempt", "--app", "secretbank", "--reason", "personal", "--note", "secretnote", "--state", granted
    )
    done = mcilib("audit", "--state", granted)
    assert done.returncode == 0
    assert [line.split()[1:3] for line in done.stdout.splitlines()] == [
        ["participant", "pause"], ["participant", "exempt"],
    ]  # fmt: skip
    assert "duration_s 900" in done.stdout
    assert "secret" not in (granted / "audit.jsonl").read_text()
    entries = json.loads(mcilib("audit", "--json", "--state", granted).stdout)["entries"]
    assert [(entry["n"], entry["what"], entry["by"]) for entry in entries] == [
        (1, "pause", "participant"), (2, "exempt", "participant"),
    ]  # fmt: skip


def test_a_log_that_was_changed_is_seen(mcilib: Run, granted: Path) -> None:
    for time_ in ("1m", "2m", "3m"):
        mcilib("pause", time_, "--state", granted)
    done = mcilib("audit", "--verify", "--state", granted)
    assert done.returncode == 0
    assert done.stdout.startswith("Whole: 3 lines")
    log = granted / "audit.jsonl"
    log.write_text(log.read_text().replace('"duration_s":120', '"duration_s":12'))
    done = mcilib("audit", "--verify", "--state", granted)
    assert done.returncode == 7
    assert done.stderr == "mcilib: line 3 does not follow from the line before it\n"
    told = json.loads(mcilib("audit", "--verify", "--json", "--state", granted).stdout)
    assert (told["whole"], told["lines"], len(told["problems"])) == (False, 3, 1)


# --- flush ----------------------------------------------------------------------------------------------------


def test_flush_without_an_agent_says_what_uploads(mcilib: Run, granted: Path) -> None:
    refused(mcilib("flush", "--state", granted), 9, "No agent runs on", "`mcilib run --drain` uploads")


# --- a narrower grant -----------------------------------------------------------------------------------------

TERMS = ["--operator", "Example Lab", "--purpose", "tests"]


def test_fewer_scopes_delete_what_is_not_covered_any_more(mcilib: Run, granted: Path) -> None:
    keys, moves = leave(granted, events=KEYS), leave(granted, events=MOVES)
    both = leave(granted)
    first = Grant.load(granted)
    done = mcilib("grant", *TERMS, "--scope", "pointer", "--state", granted, "--yes")
    assert done.returncode == 0
    assert "Deleted, since it is not covered any more: 2 batches on this device." in done.stdout
    assert waiting(granted) == [moves]
    (request,) = requests(granted)
    assert sorted(request["batches"]) == sorted([keys, both])
    second = Grant.load(granted)
    assert (second.scopes, second.participant) == (("pointer",), first.participant)


def test_the_same_or_more_scopes_delete_nothing(mcilib: Run, granted: Path) -> None:
    leave(granted)
    for scopes in ("pointer,keys", "pointer,keys,apps"):
        told = answer_of_grant(mcilib, "--scope", scopes, "--state", granted)
        assert (told["deleted_batches"], told["running"]) == (0, False)
    assert len(waiting(granted)) == 1
    assert requests(granted) == []


def answer_of_grant(mcilib: Run, *args: str | Path) -> Any:
    done = mcilib("grant", *TERMS, *args, "--yes", "--json")
    assert done.returncode == 0, done
    return json.loads(done.stdout)


# --- the policy that is required ------------------------------------------------------------------------------


def test_a_changed_policy_is_refused_until_it_is_agreed_to(
    mcilib: Run, granted: Path, here: Path, endpoint: str
) -> None:
    (here / "lab.toml").write_text('[consent]\npolicy_file = "policy.txt"\n')
    (here / "policy.txt").write_text("The new policy.\n")
    run = ["run", "--state", granted, "--endpoint", endpoint, "--config", "lab.toml"]
    for args in (run, [*run, "--drain"]):
        refused(mcilib(*args), 3, "policy has changed", "`mcilib grant` shows it")
    assert waiting(granted) == []
    grant = ["grant", *TERMS, "--scope", "pointer,keys", "--state", granted, "--config", "lab.toml"]
    (here / "other.txt").write_text("Another.\n")
    refused(mcilib(*grant, "--policy", "other.txt"), 2, "is not the one that is required", "--policy")
    done = mcilib(*grant)
    assert done.returncode == 0
    assert "The new policy." in done.stdout
    assert Grant.load(granted).policy == "The new policy.\n"
    assert mcilib(*run, "--drain").returncode == 0


def test_a_required_policy_that_cannot_be_read(mcilib: Run, granted: Path, here: Path, endpoint: str) -> None:
    (here / "lab.toml").write_text('[consent]\npolicy_file = "policy.txt"\n')
    done = mcilib("run", "--state", granted, "--endpoint", endpoint, "--config", "lab.toml")
    refused(done, 2, "The policy policy.txt cannot be read")


def test_a_question_that_was_left_open_is_answered_by_the_next_grant(mcilib: Run, granted: Path) -> None:
    from mcilib.delivery.spool import DirectorySpool

    with DirectorySpool(granted / "spool") as spool:
        participant = Participant(granted, spool)
        participant.open()
        participant.ask("something")
        participant.close()
    terms = ["grant", "--state", str(granted), *TERMS, "--scope", "pointer,keys"]
    code, _ = on_terminal(*terms, answer="no")
    assert (code, state_of(granted).asked) == (3, ""), "a no is an answer"
    with DirectorySpool(granted / "spool") as spool:
        participant = Participant(granted, spool)
        participant.open()
        participant.ask("something")
        participant.close()
    assert on_terminal(*terms, answer="yes")[0] == 0
    assert state_of(granted).asked == ""


def test_a_grant_of_other_fields_is_a_wider_one() -> None:
    from mcilib.cli._regrant import wider

    old = example_grant("titles", "pointer", expires_in=timedelta(days=1))

    def new(*scopes: str, **fields: Any) -> Grant:
        given = {"policy": old.policy, "expires_in": timedelta(hours=1), "earlier": old, **fields}
        return example_grant(*(scopes or old.scopes), **given)

    assert wider(old, new()) is None
    assert wider(old, new("pointer")) is None
    assert wider(old, new("apps")) is None, "who may have titles may have programs"
    assert wider(old, new("titles", "pointer", "keys")) == "it is to cover keys too"
    assert wider(old, new(policy="Another.")) == "the policy has changed"
    assert wider(old, new(operator="Another")) == "who collects or what for has changed"
    assert wider(old, new(purpose="another")) == "who collects or what for has changed"
    assert wider(old, new(expires_in=timedelta(days=2))) == "it is to last longer"
    assert wider(old, new(expires_in=None)) == "it is to last longer"
    assert wider(old, new(retention_days=old.retention_days + 1)) == "it is to last longer"
    assert wider(example_grant("apps"), new("titles")) is not None
