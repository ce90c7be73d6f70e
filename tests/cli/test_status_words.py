"""`mcilib status` in a participant's words: what they have decided, who runs, two folders, another language, bad files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Run

from mcilib.cli._control import now_here as now
from mcilib.consent import ControlState, Exemption, ExemptionState, ExemptScope, Grant, Pause
from mcilib.consent.state import Withdrawal, pseudonym_hash
from mcilib.delivery._files import OwnerLock
from mcilib.delivery.spool import DirectorySpool
from mcilib.language import moment
from mcilib.testing.fakes import example_grant

DAY_NS = 86_400 * 10**9
ASKED_NS = time.time_ns() - DAY_NS


def decide(state: Path, decided: ControlState) -> None:
    path = state / "controls.json"
    path.write_bytes(decided.to_json())
    path.chmod(0o600)


def exemption(number: int, scope: ExemptScope, state: ExemptionState, **more: Any) -> Exemption:
    return Exemption(f"{number:032x}", scope, "personal", "a note", ASKED_NS, state=state, **more)


def shown(done: Done) -> dict[str, list[str]]:
    """Label -> its lines."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in done.stdout.splitlines():
        match = re.match(r"(\S[^:]*):\s+(.*)", line)
        if match:
            label = match[1]
            found.setdefault(label, []).append(match[2])
        elif label and line.startswith(" "):
            found[label].append(line.strip())
    return found


@contextmanager
def owned(state: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the folder, as an agent does."""
    code = "import sys; from mcilib.delivery.spool import DirectorySpool; s = DirectorySpool(sys.argv[1]); s.open(); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(state / "spool")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


@pytest.fixture
def status(mcilib: Run, granted: Path) -> Callable[[], dict[str, list[str]]]:
    def look() -> dict[str, list[str]]:
        done = mcilib("status", "--state", granted)
        assert (done.returncode, done.stderr) == (0, "")
        return shown(done)

    return look


@pytest.fixture
def told(mcilib: Run, granted: Path) -> Callable[[], Any]:
    return lambda: json.loads(mcilib("status", "--state", granted, "--json").stdout)


def test_who_what_since_and_until(status: Callable[[], dict[str, list[str]]], granted: Path) -> None:
    grant = replace(
        example_grant("titles", "keys"), expires_at="2999-01-01T12:00:00+00:00", given_via="terminal"
    )
    grant.save(granted)
    found = status()
    assert (found["Who collects"], found["What for"]) == (["Example Lab"], ["tests"])
    assert found["What"] == [
        "keys: the rhythm of keys, never which letter",
        "titles: the program in use and the titles of its windows",
    ]
    assert found["Given"] == [f"{moment(grant.given_ns)} on a terminal"]
    assert found["Ends"] == [moment(grant.expires_ns or 0)]


def test_a_pause_counts_down(
    status: Callable[[], dict[str, list[str]]], told: Callable[[], Any], granted: Path
) -> None:
    assert told()["controls"]["pause_left_s"] == 0
    decide(granted, ControlState(pause=Pause(now(), 900 * 10**9)))
    found = status()
    assert re.fullmatch(
        r"for 1[45] min( \d+ s)? more, until 20\d\d-\d\d-\d\d \d\d:\d\d; then it goes on by itself\. "
        r"`mcilib resume` ends it sooner",
        found["Paused"][0],
    )
    assert "no agent runs, nothing is collected now; you have paused it, 1" in found["Now"][0]
    first = told()["controls"]["pause_left_s"]
    assert 800 < told()["controls"]["pause_left_s"] < first <= 900
    assert told()["barred"]["all"]["code"] == "paused"
    with owned(granted):
        assert "but nothing is captured now: you have paused it, 1" in status()["Now"][0]
    decide(
        granted,
        ControlState(pause=Pause(replace(now(), monotonic_ns=now().monotonic_ns - 901 * 10**9), 900 * 10**9)),
    )
    assert "Paused" not in status()


def test_exemptions_with_the_operators_answer(
    status: Callable[[], dict[str, list[str]]], told: Callable[[], Any], granted: Path
) -> None:
    until_ns = time.time_ns() + DAY_NS
    decide(
        granted,
        ControlState(
            exemptions=(
                exemption(16**31, ExemptScope(scopes=("keys",)), ExemptionState.PENDING),
                exemption(
                    2 * 16**31, ExemptScope(apps=("keepass*",)), ExemptionState.APPROVED, until_ns=until_ns,
                    decided_ns=ASKED_NS, answer="Of course.\nYours, \u00d6.",
                ),
                exemption(3 * 16**31, ExemptScope(hours=("mon 12:00-13:00",)), ExemptionState.DENIED, decided_ns=ASKED_NS),
                exemption(4 * 16**31, ExemptScope(everything=True), ExemptionState.APPROVED, until_ns=ASKED_NS + 1),
                exemption(5 * 16**31, ExemptScope(apps=("a", "b")), ExemptionState.WITHDRAWN),
            )
        ),
    )  # fmt: skip
    asked = f"asked on {moment(ASKED_NS)}"
    assert status()["Exempt"] == [
        f"keys: asked for, not decided yet: not captured, until you withdraw it (10000000, {asked})",
        f"the program keepass*: approved: not captured, until {moment(until_ns)} (20000000, {asked})",
        "the operator answers: Of course. Yours, Ö.",
        f"mon 12:00-13:00: denied: captured (30000000, {asked})",
        f"everything: over: captured (40000000, {asked})",
        f"the programs a, b: taken back by you: captured (50000000, {asked})",
    ]
    record = told()
    states = ["pending", "approved", "denied", "expired", "withdrawn"]
    assert [one["state"] for one in record["controls"]["exemptions"]] == states
    assert record["controls"]["exemptions"][1]["answer"] == "Of course.\nYours, Ö."
    assert record["barred"]["all"] is None
    assert set(record["barred"]["scopes"]) == {"keys"}
    assert record["barred"]["apps"] == ["keepass*"]


def test_all_is_exempt(status: Callable[[], dict[str, list[str]]], granted: Path) -> None:
    decide(
        granted,
        ControlState(exemptions=(exemption(1, ExemptScope(everything=True), ExemptionState.PENDING),)),
    )
    with owned(granted):
        assert status()["Now"][0].endswith(
            "but nothing is captured now: everything is exempt (asked for, until you withdraw it)"
        )


def test_held_asked_and_withdrawn(
    status: Callable[[], dict[str, list[str]]], told: Callable[[], Any], granted: Path
) -> None:
    nothing = status()
    assert not {"Held", "Asked", "Withdrawn", "Exempt", "Paused", "To be sent"} & set(nothing)
    withdrawal = Withdrawal("1" * 32, "2" * 32, ASKED_NS, "3" * 32)
    decide(granted, ControlState(hold_s=7_200, asked="the policy has changed", withdrawal=withdrawal))
    found = status()
    assert found["Held"] == ["each batch rests here for 2 h before it goes. `mcilib inspect` shows them"]
    assert found["Asked"] == ["the policy has changed. Nothing is captured until you answer: `mcilib grant`"]
    assert found["Withdrawn"] == [
        f"on {moment(ASKED_NS)}. The receiver has not yet confirmed that all is deleted"
    ]
    assert found["Now"] == ["no agent runs, nothing is collected now; you have withdrawn"]
    record = told()["controls"]
    assert (record["hold_s"], record["asked"]) == (7_200, "the policy has changed")
    assert (record["withdrawn"], record["deletion_confirmed"]) == (True, False)
    decide(
        granted, ControlState(withdrawal=replace(withdrawal, participant="", confirmed_ns=ASKED_NS + DAY_NS))
    )
    confirmed = moment(ASKED_NS + DAY_NS)
    assert status()["Withdrawn"] == [
        f"on {moment(ASKED_NS)}. The receiver has confirmed on {confirmed} that all is deleted"
    ]
    assert told()["controls"]["deletion_confirmed"] is True
    assert "1" * 32 not in json.dumps(told()["controls"])


def test_a_grant_that_was_withdrawn_and_put_back_is_void(
    status: Callable[[], dict[str, list[str]]], granted: Path
) -> None:
    decide(granted, ControlState(withdrawn=(pseudonym_hash(Grant.load(granted).participant),)))
    assert status()["Now"] == ["no agent runs, nothing is collected now; you have withdrawn"]


def test_what_is_still_to_be_sent(status: Callable[[], dict[str, list[str]]], granted: Path) -> None:
    from mcilib.delivery.control import delete_request

    with DirectorySpool(granted / "spool") as spool:
        spool.commit_control(delete_request("1" * 32, "2" * 32, ["5" * 32]))
    assert status()["To be sent"] == ["1 message to the receiver: requests to delete, for an exemption"]


def test_who_runs_and_since_when(
    status: Callable[[], dict[str, list[str]]], told: Callable[[], Any], granted: Path
) -> None:
    before_ns = time.time_ns() - 10**9  # a file's date may be a moment old
    with owned(granted) as process:
        since_ns = (granted / "spool" / "owner.lock").stat().st_mtime_ns
        assert status()["Now"][0].startswith(
            f"an agent runs (process {process.pid}) since {moment(since_ns)}"
        )
        record = told()
        assert record["pid"] == process.pid
        assert before_ns < record["running_since_ns"] <= time.time_ns()
        (granted / "spool" / "owner.lock").write_text("")  # of an older version
        assert told()["pid"] is None
        assert status()["Now"][0].startswith("an agent runs since 20")
    record = told()
    assert (record["running"], record["pid"], record["running_since_ns"]) == (False, None, None)


def test_a_lock_that_nobody_holds_has_no_holder(tmp_path: Path) -> None:
    lock, path = OwnerLock(tmp_path / "lock"), tmp_path / "lock"
    assert OwnerLock.holder(path) is None
    assert lock.acquire()
    found = OwnerLock.holder(path)
    assert found is not None
    assert found[0] == os.getpid()
    lock.release()
    assert OwnerLock.holder(path) is None


def test_two_agents_on_one_device(mcilib: Run, here: Path) -> None:
    for name in ("one", "two"):
        replace(example_grant(), operator=f"Lab {name}").save(here / name)
    with owned(here / "one") as one, owned(here / "two") as two:
        seen = [mcilib("status", "--state", here / name).stdout for name in ("one", "two")]
        for text, name, process, other in zip(seen, ("one", "two"), (one, two), (two, one), strict=True):
            assert f"Lab {name}" in text
            assert f"process {process.pid})" in text
            assert str(here / name) in text
            assert f"process {other.pid})" not in text


def test_it_changes_nothing(mcilib: Run, granted: Path) -> None:
    decide(granted, ControlState(pause=Pause(now(), 10**9), hold_s=1))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(granted.rglob("*"))}
    mcilib("status", "--state", granted)
    mcilib("status", "--state", granted, "--json")
    after = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(granted.rglob("*"))}
    assert before == after


# --- bad files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"{", b"", b"[]", b'{"schema": 99}', b"\xff" * 10])
def test_decisions_that_cannot_be_read_are_said_first(mcilib: Run, granted: Path, data: bytes) -> None:
    (granted / "controls.json").write_bytes(data)
    done = mcilib("status", "--state", granted)
    assert done.returncode == 6
    assert done.stdout.startswith("What you have decided (pauses, exemptions, a withdrawal) cannot be read: ")
    assert "Nothing is captured until it can." in done.stdout
    assert str(granted / "controls.json") in done.stdout
    assert "what you have decided cannot be read" in shown(done)["Now"][0]
    assert shown(done)["Who collects"] == ["Example Lab"], "the rest is shown"
    record = mcilib("status", "--state", granted, "--json")
    assert record.returncode == 6
    assert json.loads(record.stdout)["controls"]["unreadable"]
    assert json.loads(record.stdout)["barred"]["all"]["code"] == "unreadable"


@pytest.mark.parametrize(
    "name", ["grant.json", "controls.json", "plan.json", "impact.json", "spool/state.json"]
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(mcilib: Run, granted: Path, name: str) -> None:
    with owned(granted):  # the plan is read while an agent runs
        (granted / name).unlink(missing_ok=True)
        os.mkfifo(granted / name)
        done = mcilib("status", "--state", granted, timeout=20)
        assert done.returncode == {"grant.json": 3, "controls.json": 6, "spool/state.json": 6}.get(name, 0), (
            done
        )
        mcilib("status", "--state", granted, "--json", timeout=20)


def test_a_lock_that_is_a_pipe_is_not_waited_for(mcilib: Run, granted: Path) -> None:
    (granted / "spool").mkdir(exist_ok=True)
    os.mkfifo(granted / "spool" / "owner.lock")
    mcilib("status", "--state", granted, timeout=20)


def test_nothing_that_others_wrote_reaches_the_terminal_as_it_is(mcilib: Run, granted: Path) -> None:
    decide(granted, ControlState(asked="a\x1b[2Jb\nGrant: everything"))
    text = mcilib("status", "--state", granted).stdout
    assert "\x1b" not in text
    assert "a\\x1b[2Jb Grant: everything" in text


# --- another language -------------------------------------------------------------------------------------------


def in_german(**more: str) -> dict[str, str]:
    return {**os.environ, "LANG": "de_DE.UTF-8", "PYTHONUTF8": "1", **more}


def test_in_german(mcilib: Run, granted: Path) -> None:
    decide(granted, ControlState(pause=Pause(now(), 900 * 10**9), hold_s=86_400))
    found = shown(mcilib("status", "--state", granted, env=in_german()))
    assert found["Wer sammelt"] == ["Example Lab"]
    assert found["Behalten"] == ["jedes Paket bleibt 1 Tag hier, bevor es geht. `mcilib inspect` zeigt sie"]
    assert found["Pause"][0].startswith("noch 1")
    assert (
        "kein Agent läuft, jetzt wird nichts gesammelt; Sie haben Pause gemacht, noch 1" in found["Jetzt"][0]
    )


@pytest.mark.parametrize(
    ("environment", "german"),
    [
        ({"LANGUAGE": "de:en", "LANG": "en_GB.UTF-8"}, True),
        ({"LANGUAGE": "fr:de", "LANG": "C"}, True),
        ({"LANGUAGE": "en:de", "LANG": "de_DE"}, False),
        ({"LC_ALL": "de_CH.UTF-8", "LANG": "en"}, True),
        ({"LC_MESSAGES": "de", "LANG": "en"}, True),
        ({"LC_ALL": "C", "LANG": "de"}, False),
        ({"LANG": ""}, False),
        ({"LANG": "../../de"}, False),
    ],
)
def test_the_environment_names_the_language(
    environment: dict[str, str], german: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcilib.cli._language import words_here

    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words_here().language == ("de" if german else "en")


def test_a_grant_in_the_language_of_who_is_asked(mcilib: Run, here: Path) -> None:
    from mcilib.consent import DEFAULT_POLICY, Grant
    from mcilib.language import Words

    terms = ["--operator", "Labor", "--purpose", "Studie", "--scope", "keys"]
    done = mcilib("grant", "--state", "german", *terms, env=in_german())
    grant = Grant.load("german")
    assert (grant.language, grant.policy) == ("de", Words("de")(DEFAULT_POLICY))
    assert done.stdout.startswith(grant.describe())
    assert "Festgehalten in german/grant.json" in done.stdout
    (here / "policy.txt").write_text("A policy of our own.")
    mcilib("grant", "--state", "own", *terms, "--policy", "policy.txt", env=in_german())
    assert Grant.load("own").language == "en", "nobody has said what it is"
    mcilib("grant", "--state", "named", *terms, "--policy", "policy.txt", "--language", "de-AT")
    assert Grant.load("named").language == "de-AT"
    assert Grant.load("named").describe().startswith("Wer sammelt:")
    mcilib("grant", "--state", "english", *terms, "--language", "en", env=in_german())
    assert Grant.load("english").policy == DEFAULT_POLICY
