"""`mcilib grant` and `mcilib status`, on a real terminal and without one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Background, Run, on_terminal, record, refused

from mcilib.cli._plan import plan_rows
from mcilib.consent import DEFAULT_POLICY, Grant
from mcilib.delivery.spool import DirectorySpool
from mcilib.governor import PLAN_FILE, read_plan
from mcilib.protocols import Fate
from mcilib.testing.fakes import example_grant

TERMS = ["--operator", "Example Lab", "--purpose", "a study", "--scope", "pointer,keys"]


# --- grant --------------------------------------------------------------------------------------------------


def test_a_yes_on_the_terminal_is_recorded(here: Path) -> None:
    code, seen = on_terminal("grant", "--state", "state", *TERMS, answer="yes")
    grant = Grant.load("state")
    assert code == 0
    assert grant.given_via == "terminal"
    assert grant.describe() in seen
    assert (
        seen.index(grant.describe()) < seen.index("Type yes: ") < seen.index("Recorded in state/grant.json")
    )
    assert "unattended" not in seen


@pytest.mark.parametrize("answer", ["no", "", "yess"])
def test_anything_else_records_nothing(answer: str, here: Path) -> None:
    code, seen = on_terminal("grant", "--state", "state", *TERMS, answer=answer)
    assert code == 3
    assert seen.rstrip().endswith(
        "mcilib: No grant was given. Nothing is collected. Ask again when you have decided."
    )
    assert not (here / "state").exists()


def test_yes_on_a_terminal_asks_nobody_and_says_so(here: Path) -> None:
    code, seen = on_terminal("grant", "--state", "state", *TERMS, "--yes", answer="")
    assert code == 0
    assert "Type yes" not in seen
    assert Grant.load("state").given_via == "unattended"
    assert "Nobody was asked on this device" in seen


def test_without_a_terminal_it_is_unattended_and_shown_in_full(mcilib: Run) -> None:
    done = mcilib("grant", "--state", "state", *TERMS)
    grant = Grant.load("state")
    assert done.returncode == 0
    assert grant.given_via == "unattended"
    assert done.stdout.startswith(grant.describe())
    assert done.stderr == "Nobody was asked on this device: the grant is recorded as unattended.\n"


def test_each_flag_ends_up_in_the_grant(mcilib: Run, here: Path) -> None:
    (here / "policy.txt").write_text("A policy of our own: zażółć.\n", encoding="utf-8")
    extra = [
        "--policy",
        "policy.txt",
        "--expires",
        "30d",
        "--scope",
        "keys",
        "--operator",
        "Ö",
        "--purpose",
        "P",
    ]
    assert mcilib("grant", "--state", "elsewhere", *extra).returncode == 0
    grant = Grant.load("elsewhere")
    assert (grant.operator, grant.purpose, grant.scopes) == ("Ö", "P", ("keys",))
    assert grant.policy == "A policy of our own: zażółć.\n"
    assert not grant.expired(time.time_ns() + int(29.9 * 86_400e9))
    assert grant.expired(time.time_ns() + int(30.1 * 86_400e9))


def test_without_the_optional_flags(mcilib: Run) -> None:
    mcilib("grant", "--state", "state", *TERMS)
    grant = Grant.load("state")
    assert (grant.policy, grant.expires_at) == (DEFAULT_POLICY, None)


def test_the_file_gives_what_flags_leave_open(mcilib: Run, here: Path) -> None:
    folder = here / "conf"
    folder.mkdir()
    (folder / "policy.txt").write_text("Of the file.")
    (folder / "lab.toml").write_text(
        '[agent]\nstate = "st"\n[grant]\noperator = "File Lab"\npurpose = "of the file"\n'
        'scope = ["pointer"]\npolicy = "policy.txt"\nexpires = "1h"\n'
    )
    assert mcilib("grant", "--config", "conf/lab.toml", "--purpose", "of the flag").returncode == 0
    grant = Grant.load(folder / "st")
    assert (grant.operator, grant.purpose, grant.scopes) == ("File Lab", "of the flag", ("pointer",))
    assert grant.policy == "Of the file."
    assert grant.expires_at is not None


def test_a_new_grant_keeps_pseudonym_and_device(mcilib: Run) -> None:
    mcilib("grant", "--state", "state", *TERMS)
    first = Grant.load("state")
    mcilib("grant", "--state", "state", *TERMS, "--purpose", "another")
    second = Grant.load("state")
    assert (second.participant, second.device) == (first.participant, first.device)
    assert second.purpose == "another"


def test_an_earlier_grant_that_cannot_be_read_is_replaced_and_named(mcilib: Run, granted: Path) -> None:
    first = Grant.load(granted)
    (granted / "grant.json").write_text("{")
    done = mcilib("grant", "--state", granted, *TERMS)
    assert done.returncode == 0
    assert "cannot be read" in done.stderr
    assert "with a new pseudonym" in done.stderr
    assert Grant.load(granted).participant != first.participant


def test_json(mcilib: Run) -> None:
    done = mcilib("grant", "--state", "state", *TERMS, "--json")
    grant = Grant.load("state")
    record_ = json.loads(done.stdout)
    assert record_["participant"] == grant.participant
    assert (record_["digest"], record_["file"]) == (grant.digest, "state/grant.json")
    assert grant.describe() in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--operator", "", *TERMS[2:]], 2, ["--operator must be a text, not ''"]),
        (TERMS[2:], 2, ["--operator is missing. Who collects. Give --operator, or operator in [grant]"]),
        (TERMS[:2] + TERMS[4:], 2, ["--purpose is missing"]),
        (TERMS[:4], 2, ["--scope is missing"]),
        (
            [*TERMS[:4], "--scope", "screen"],
            2,
            ["--scope must be some of pointer, keys, apps, titles, not 'screen'"],
        ),
        ([*TERMS, "--expires", "soon"], 2, ["--expires must be a duration"]),
        ([*TERMS, "--expires", "0s"], 2, ["--expires must be a duration from 1s"]),
        ([*TERMS, "--policy", "none.txt"], 2, ["The policy none.txt cannot be read", "--policy"]),
        ([*TERMS, "--policy", "."], 2, ["The policy . cannot be read (Is a directory)"]),
        (
            [*TERMS, "--operator", "Lab\x1b[8m\nWhat: nothing"],
            3,
            ["The operator", "cannot be shown", "plain text"],
        ),
        ([*TERMS, "--purpose", "a\x9bstudy"], 3, ["The purpose", "cannot be shown"]),
    ],
)
def test_bad_terms(args: list[str], code: int, words: list[str], mcilib: Run, here: Path) -> None:
    refused(mcilib("grant", "--state", "state", *args), code, *words)
    assert not (here / "state").exists()


def test_a_policy_that_hides_something_or_has_nothing(mcilib: Run, here: Path) -> None:
    for text, code, words in (("\x1b[8mhidden", 3, "cannot be shown"), (" \n", 2, "is empty")):
        (here / "policy.txt").write_text(text)
        refused(mcilib("grant", "--state", "state", *TERMS, "--policy", "policy.txt"), code, words)
    assert not (here / "state").exists()


def test_a_state_folder_that_cannot_be_made(mcilib: Run, here: Path) -> None:
    (here / "file").write_text("")
    done = mcilib("grant", "--state", "file/state", *TERMS)
    assert done.returncode == 3
    assert done.stderr.startswith("mcilib: The grant cannot be written to file/state (Not a directory). ")


# --- status -------------------------------------------------------------------------------------------------


def status(mcilib: Run, state: str | Path) -> Any:
    done = mcilib("status", "--state", state, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def test_status_without_a_grant(mcilib: Run, here: Path) -> None:
    done = mcilib("status", "--state", "state")
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(done.stdout)["Grant"].strip() == "none. Nothing is collected without one: `mcilib grant`."
    assert status(mcilib, "state")["grant"] is None
    assert not (here / "state").exists(), "status changes nothing"


def test_status_with_an_unreadable_grant(mcilib: Run, granted: Path) -> None:
    (granted / "grant.json").write_text("{")
    done = mcilib("status", "--state", granted)
    assert done.returncode == 3
    assert "unreadable. The grant" in done.stdout
    assert json.loads(mcilib("status", "--state", granted, "--json").stdout)["problem"]


def test_status_in_a_persons_words(mcilib: Run, granted: Path) -> None:
    record(granted, 3)
    found = rows(mcilib("status", "--state", granted).stdout)
    assert found["Who collects"].strip() == "Example Lab"
    assert found["What for"].strip() == "tests"
    assert found["What"].strip() == "keys: the rhythm of keys, never which letter"
    assert found["Ends"].strip() == "when you withdraw"
    assert found["Now"].strip() == "no agent runs, nothing is collected now"
    assert found["Waiting"].strip().startswith("3 batches (")
    assert found["Delivered"].strip() == "0 batches"
    assert found["Lost"].strip() == "none"
    assert found["State folder"].strip() == str(granted)


def test_unattended_comes_first_in_every_status(mcilib: Run) -> None:
    mcilib("grant", "--state", "state", *TERMS)
    assert mcilib("status", "--state", "state").stdout.startswith(
        "Unattended: nobody was asked on this device."
    )
    assert status(mcilib, "state")["grant"]["given_via"] == "unattended"


def test_an_expired_grant_is_named(mcilib: Run, here: Path) -> None:
    from datetime import timedelta

    example_grant(expires_in=timedelta(seconds=-5)).save("state")
    shown = mcilib("status", "--state", "state").stdout
    assert "(over: nothing is collected or sent)" in shown
    assert "no agent runs, nothing is collected now; the grant is over" in shown
    assert status(mcilib, "state")["grant"]["expired"]


def test_losses_by_cause(mcilib: Run, granted: Path) -> None:
    record(granted, 4, spool_max_files=2)
    with DirectorySpool(granted / "spool") as spool:
        first, second = spool.waiting()
        spool.settle(first, Fate.REJECTED)
        spool.settle(second, Fate.DELIVERED)
    done = mcilib("status", "--state", granted)
    words = "2 batches evicted, the spool was full; 1 batch refused by the receiver for good"
    assert rows(done.stdout)["Lost"].strip() == words
    found = status(mcilib, granted)["spool"]
    assert (found["committed_batches"], found["delivered_batches"], found["waiting_batches"]) == (4, 1, 0)
    assert {cause: n for cause, n in found["lost"].items() if n} == {"evicted": 2, "rejected": 1}


@pytest.mark.x11
def test_status_beside_a_running_agent(
    mcilib: Run, here: Path, granted: Path, xserver: Any, endpoint: str,
    background: Callable[..., Background],
) -> None:  # fmt: skip
    agent = background("run", "--state", granted, "--endpoint", endpoint)
    agent.line("Collecting")
    shown = mcilib("status", "--state", granted).stdout
    assert f"an agent runs (process {agent.process.pid}) since 20" in shown
    assert "and records into this folder" in shown
    assert status(mcilib, granted)["running"]
    assert agent.end().returncode == 0
    assert not status(mcilib, granted)["running"]


def used(state: Path, days: dict[str, dict[str, int]]) -> None:
    (state / "impact.json").write_text(json.dumps({"schema": 1, "earlier": {}, "days": days}))


def test_what_was_used_in_a_persons_words(mcilib: Run, granted: Path) -> None:
    day = {
        "running_ns": 7_200 * 10**9,
        "cpu_ns": 3_600 * 10**6,
        "wakeups": 1_500,
        "written_bytes": 2_048,
        "fsyncs": 4,
        "sent_bytes": 1_024,
        "requests.data": 2,
        "requests.retry": 1,
        "undelivered_requests": 1,
    }
    used(
        granted, {"2026-01-05": {**day, "machine_uj.battery": 9 * 10**9, "machine_ns.battery": 3_600 * 10**9}}
    )
    found = rows(mcilib("status", "--state", granted).stdout)
    assert found["Used since 2026-01-05"].strip() == (
        "3.6 s of CPU in 2 h (0.05 % of a core); 1,500 wake-ups; 2.0 KiB written, 4 fsyncs; "
        "1.0 KiB sent, 3 requests, 1 in vain"
    )
    energy = found["Energy since 2026-01-05"].strip()
    assert energy == "about 32 J (3.7 J to 120 J), 0.018 % of a 50 Wh battery"
    assert found["The machine since 2026-01-05"].strip() == (
        "all programs together, measured: 9 kJ from its battery in 1.0 h"
    )
    assert found["Used today"].strip().startswith("CPU unknown in 0 s; wake-ups unknown; 0 bytes written")
    impact = status(mcilib, granted)["impact"]
    assert impact["kept"] == impact["total"] == impact["days"]["2026-01-05"]
    assert impact["kept"]["requests"] == {"data": 2, "retry": 1}
    assert impact["kept"]["energy"]["joules"] > impact["kept"]["energy"]["low_joules"] > 0
    assert impact["kept"]["machine"] == {"battery": [9_000.0, 3_600.0]}


def test_what_was_used_today(mcilib: Run, granted: Path) -> None:
    from mcilib.resources.ledger import ImpactLedger
    from mcilib.statistics import DiskStatistics

    ledger = ImpactLedger(granted / "impact.json")
    ledger.begin()
    ledger.note(disk=[DiskStatistics(1, 77)])
    ledger.save()
    found = rows(mcilib("status", "--state", granted).stdout)
    assert "77 fsyncs" in found["Used today"]
    assert found["Energy today"].strip().endswith(", without CPU, without wake-ups")
    assert not [name for name in found if name.startswith("The machine")], "nobody measured it"
    assert status(mcilib, granted)["impact"]["today"]["fsyncs"] == 77


@pytest.mark.parametrize("text", [None, "{", '{"schema":99}'])
def test_without_a_record_of_what_was_used(mcilib: Run, granted: Path, text: str | None) -> None:
    if text is not None:
        (granted / "impact.json").write_text(text)
    done = mcilib("status", "--state", granted)
    assert done.returncode == 0
    assert not [name for name in rows(done.stdout) if name.startswith(("Used", "Energy"))]
    assert status(mcilib, granted)["impact"]["days"] == {}


def test_a_spool_of_a_newer_version_is_named(mcilib: Run, granted: Path) -> None:
    record(granted)
    path = granted / "spool" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "check": None}))
    before = path.read_bytes()
    refused(mcilib("status", "--state", granted), 6, "newer")
    assert path.read_bytes() == before


def test_a_plan_file_that_somebody_has_changed_says_nothing_to_the_terminal(tmp_path: Path) -> None:
    """It names letters that move the cursor and halves of characters; the words say so."""
    bad = "on \x1b[2Jbattery\ud800\r\nGrant: everything"
    change: dict[str, Any] = {
        "wall_ns": 1,
        "levers": {bad: bad, "motion": [], "tolerance_px": None},
        "reasons": [bad],
    }
    told = {"schema": 1, "levers": {**change["levers"], "bytes_per_hour": bad}, "reasons": [bad], "changes": 2,
            "history": [change, change], "resources": {}}  # fmt: skip
    (tmp_path / PLAN_FILE).write_text(json.dumps(told))
    plan = read_plan(tmp_path / PLAN_FILE)
    assert plan is not None
    cells = [cell for row in plan_rows(plan) for cell in row]
    assert all(cell.isprintable() for cell in cells), cells
    assert "on \\x1b[2Jbattery\\ud800 Grant: everything" in cells
