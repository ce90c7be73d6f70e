"""`mcilib exemptions`, the real command on real stores, and the operator's token of `mcilib receive`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import commands
import pytest
import urllib3
from commands import Receiver, Run, refused
from object_server import ObjectServer
from object_server import object_server as object_server

from mcilib.consent import Exemption, ExemptionState, ExemptScope
from mcilib.receiver import Asked, FolderStore, ObjectStore

P, D = "1" * 32, "d" * 32
T = 1_900_000_000_000_000_000  # in 2030
SECOND = 1_000_000_000
APPROVED = ExemptionState.APPROVED


def request(n: int, **fields: Any) -> Asked:
    given = {"scope": ExemptScope(apps=("keepassxc",)), "reason_class": "medical", "note": "mine", **fields}
    exemption = Exemption(f"{n:08x}{0:024x}", requested_ns=T - n * SECOND, **given)
    return Asked(P, D, T + n * SECOND, exemption)


@pytest.fixture
def store(here: Path) -> FolderStore:
    """`store/`, with five requests, one in each state: 1 to 5, received in this order."""
    made = FolderStore("store", today=lambda: date(2026, 3, 1))
    made.ask(request(1, scope=ExemptScope(scopes=("keys", "titles")), until_ns=T + 86_400 * SECOND))
    made.ask(request(2, note="first line\nsecond line"))
    made.ask(request(3, scope=ExemptScope(hours=("mon-fri 12:00-13:00",))))
    made.ask(request(4, scope=ExemptScope(everything=True), until_ns=1))
    made.ask(request(5))
    made.decide(ids(2), APPROVED, "Agreed.\nSee you.", T + 60 * SECOND)
    made.decide(ids(3), ExemptionState.DENIED, "", T + 60 * SECOND)
    made.take_back(P, ids(5), T + 90 * SECOND)
    return made


def ids(n: int) -> str:
    return f"{n:08x}{0:024x}"


def stored(store: FolderStore, n: int) -> Asked:
    return next(asked for asked in store.asked() if asked.exemption.exemption_id == ids(n))


def test_list_shows_all_that_is_needed_to_decide(mcilib: Run, store: FolderStore) -> None:
    done = mcilib("exemptions", "store", "list")
    assert (done.returncode, done.stderr) == (0, "5 requests.\n")
    blocks = done.stdout.split("\n\n")
    at = datetime.fromtimestamp(T // SECOND, UTC).strftime("%Y-%m-%d %H:%M UTC")
    assert blocks[0].splitlines() == [
        f"{ids(1)}  pending",
        f"  participant  {P} on device {D}",
        "  what         keys, titles",
        "  why          medical",
        "  note         mine",
        f"  asked        {datetime.fromtimestamp(T // SECOND - 1, UTC):%Y-%m-%d %H:%M UTC}, received {at}",
        f"  until        {datetime.fromtimestamp(T // SECOND + 86_400, UTC):%Y-%m-%d %H:%M UTC}",
    ]
    assert "  note         first line\n               second line" in blocks[1]
    assert "  your note    Agreed.\n               See you." in blocks[1]
    assert "  until        the participant takes it back" in blocks[1]
    assert "  what         mon-fri 12:00-13:00" in blocks[2]
    assert "denied" in blocks[2]
    assert "expired" in blocks[3]
    assert "  what         everything" in blocks[3]
    assert "  taken back   " in blocks[4]


def test_list_as_json(mcilib: Run, store: FolderStore) -> None:
    done = mcilib("exemptions", "store", "list", "--json")
    seen = json.loads(done.stdout)["exemptions"]
    assert [one["exemption"] for one in seen] == [ids(n) for n in range(1, 6)]
    assert [one["state"] for one in seen] == ["pending", "approved", "denied", "expired", "withdrawn"]
    assert seen[1]["note"] == "first line\nsecond line"
    assert done.stderr == ""


@pytest.mark.parametrize("number", range(5))
def test_only_those_in_one_state(mcilib: Run, store: FolderStore, number: int) -> None:
    state = ["pending", "approved", "denied", "expired", "withdrawn"][number]
    done = mcilib("exemptions", "store", "list", "--only", state, "--json")
    assert [one["exemption"] for one in json.loads(done.stdout)["exemptions"]] == [ids(number + 1)]
    assert mcilib("exemptions", "store", "list", "--only", state).stderr == f"1 {state} request.\n"


def test_a_store_without_requests(mcilib: Run, here: Path) -> None:
    FolderStore("store", today=lambda: date(2026, 3, 1))
    done = mcilib("exemptions", "store", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No requests for exemptions.\n")
    assert json.loads(mcilib("exemptions", "store", "list", "--json").stdout) == {"exemptions": []}


@pytest.mark.parametrize(("action", "state"), [("approve", "approved"), ("deny", "denied")])
def test_one_is_decided_by_the_beginning_of_its_id(
    mcilib: Run, store: FolderStore, action: str, state: str
) -> None:
    done = mcilib("exemptions", "store", action, "00000001", "--note", "Because.")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ids(1)} is {state}. Its device hears of it at its next upload.\n"
    receipt = store.ask(stored(store, 1))
    assert (receipt.decision, receipt.answer) == (state, "Because.")
    assert receipt.decided_ns is not None


def test_a_decision_as_json(mcilib: Run, store: FolderStore) -> None:
    seen = json.loads(mcilib("exemptions", "store", "approve", ids(1), "--json").stdout)
    assert (seen["exemption"], seen["state"], seen["answer"]) == (ids(1), "approved", "")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("approve",), 2, "needs the ID"),
        (("deny", ""), 2, "needs the ID"),
        (("list", "00000001"), 2, "ID is not for list"),
        (("list", "--note", "x"), 2, "--note is not for list"),
        (("approve", "00000001", "--only", "pending"), 2, "--only is not for approve"),
        (("approve", "0000000"), 2, "5 requests begin with"),
        (("approve", "ffff"), 2, "There is no request 'ffff'"),
        (("deny", "00000002"), 2, "approved already"),
        (("approve", "00000004"), 2, "has ended"),
        (("approve", "00000005"), 2, "taken it back"),
        (("approve", "00000001", "--note", "x" * 2_001), 2, "too long"),
        (("approve", "00000001", "--note", "\x1b[2J"), 2, "cannot be shown"),
        (("forget", "00000001"), 2, "invalid choice"),
    ],
)
def test_what_is_refused(
    mcilib: Run, store: FolderStore, args: tuple[str, ...], code: int, words: str
) -> None:
    refused(mcilib("exemptions", "store", *args), code, words)
    assert store.ask(stored(store, 1)).decision == "pending"


@pytest.mark.parametrize("name", ["nowhere", ".", "file"])
def test_what_is_no_store_is_not_made_one(mcilib: Run, here: Path, name: str) -> None:
    (here / "file").touch()
    before = sorted(here.rglob("*"))
    refused(mcilib("exemptions", name, "list"), 6, "no store of a receiver")
    assert sorted(here.rglob("*")) == before


def test_who_does_not_own_the_store_leaves_it_alone(mcilib: Run, store: FolderStore) -> None:
    """What root would write, the receiver's user could not read."""
    if os.geteuid() != 0:
        pytest.skip("gives a folder to another user: root only")
    os.chown("store", 12345, 12345)
    refused(
        mcilib("exemptions", "store", "approve", "00000001"), 6, "belongs to another user", "number 12345"
    )
    os.chown("store", 0, 0)
    assert store.ask(stored(store, 1)).decision == "pending"


def test_a_bucket(mcilib: Run, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_server.environ.items():
        monkeypatch.setenv(name, value)
    bucket = f"s3://{object_server.bucket()}/x"
    store = ObjectStore(bucket, today=lambda: date(2026, 3, 1))
    store.ask(request(1))
    assert ids(1) in mcilib("exemptions", bucket, "list").stdout
    assert mcilib("exemptions", bucket, "deny", "0", "--note", "No.").returncode == 0
    assert store.ask(request(1)).answer == "No."
    refused(mcilib("exemptions", "ftp://x/y", "list"), 2, "cannot be opened")


def test_it_works_beside_a_receiver(mcilib: Run, here: Path, receiver: Callable[..., Receiver]) -> None:
    receiver()
    FolderStore("store", today=lambda: date(2026, 3, 1)).ask(request(1))
    assert mcilib("exemptions", "store", "approve", "0").returncode == 0


def test_nobody_who_reads_the_output_any_more_is_no_error(store: FolderStore) -> None:
    line = " ".join([*commands.COMMAND, "exemptions", "store", "list", "|", "true"])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=40)
    assert "Traceback" not in done.stderr


# --- mcilib receive -----------------------------------------------------------------------------------------


def get(url: str, token: str) -> int:
    return urllib3.request(
        "GET", f"{url}/v1/exemptions", headers={"Authorization": f"Bearer {token}"}, retries=False
    ).status


def test_the_operators_token(here: Path, receiver: Callable[..., Receiver]) -> None:
    (here / "operator").write_text("mine\n")
    (here / "token").write_text("theirs\n")
    url = receiver("--operator-token-file", "operator", "--token-file", "token").url
    assert [get(url, token) for token in ("mine", "theirs", "")] == [200, 401, 401]


def test_without_it_there_is_no_such_path(here: Path, receiver: Callable[..., Receiver]) -> None:
    (here / "token").write_text("theirs\n")
    assert get(receiver("--token-file", "token").url, "theirs") == 404


def test_operators_tokens_that_cannot_be(here: Path, mcilib: Run) -> None:
    (here / "token").write_text("same\n")
    (here / "empty").write_text("\n")
    command = ("receive", "store", "--port", "0", "--token-file", "token", "--operator-token-file")
    refused(mcilib(*command, "token"), 2, "is the token of the devices")
    refused(mcilib(*command, "empty"), 2, "no token in its first line")
    refused(mcilib(*command, "missing"), 2, "cannot be read")
