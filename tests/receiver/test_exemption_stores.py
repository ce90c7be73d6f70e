"""Requests for exemptions in a store: on a disk, and on a real S3-compatible server."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from dying import DIE_AT
from places import BucketPlace, FolderPlace
from places import place as place

from mcilib.consent import Exemption, ExemptionState, ExemptScope
from mcilib.errors import ConfigError, StoreError
from mcilib.protocols import Receipt, ReceiptStatus
from mcilib.receiver import Asked, Deletion, ExemptionStore

P, Q = "1" * 32, "2" * 32
D = "d" * 32
T = 1_750_000_000_000_000_000
S = 1_000_000_000
APPROVED, DENIED = ExemptionState.APPROVED, ExemptionState.DENIED
KEEPS = ExemptScope(apps=("keepassxc",))


def request(n: int = 1, participant: str = P, received_ns: int = T, **fields: Any) -> Asked:
    given = {"scope": KEEPS, "reason_class": "medical", "note": "a secret note", **fields}
    exemption = Exemption(f"{n:032x}", requested_ns=T - 5, **given)
    return Asked(participant, D, received_ns, exemption)


def delete(store: Any, deletion: Deletion) -> int:
    steps = store.delete(deletion)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value)


def short(receipt: Receipt) -> tuple[str, str]:
    return receipt.reason or receipt.status.value, receipt.decision


def kept(place: Any, *needles: str) -> list[str]:
    return [key for key, data in place.contents() for n in needles if n in key or n.encode() in data]


def test_our_stores_are_stores_of_exemptions(place):
    assert isinstance(place.open(), ExemptionStore)


def test_a_request_is_stored_once_and_waits(place):
    store = place.open()
    asked = request(note="Zeile eins\nund zwei", until_ns=T + S)
    assert short(store.ask(asked)) == ("stored", "pending")
    other = place.open(date(2026, 3, 2))
    later = replace(asked, received_ns=T + 1)
    assert short(other.ask(later)) == ("duplicate", "pending")
    assert list(other.asked()) == [asked], "as it came first"
    assert other.exemption_ids() == [asked.exemption.exemption_id]


def test_a_decision_reaches_the_device_with_its_words(place):
    store, other = place.open(), place.open()
    asked = request()
    store.ask(asked)
    decided = other.decide(f"{1:032x}", DENIED, "Not this one.", T + 7)
    assert (decided.refused, decided.asked) == ("", next(store.asked()))
    assert store.ask(asked) == Receipt(
        f"{1:032x}", ReceiptStatus.DUPLICATE, "", "denied", T + 7, "Not this one."
    )


def test_it_is_decided_once(place):
    store = place.open()
    store.ask(request())
    store.decide(f"{1:032x}", APPROVED, "Yes.", T)
    for note in ("", "Yes."):
        again = place.open().decide(f"{1:032x}", APPROVED, note, T + 9)
        assert again.refused == ""
        assert again.asked is not None
        assert (again.asked.exemption.answer, again.asked.exemption.decided_ns) == ("Yes.", T)
    for decision, note in ((DENIED, ""), (APPROVED, "Yes, but.")):
        refused = store.decide(f"{1:032x}", decision, note, T + 9)
        assert "approved already" in refused.refused
        assert refused.asked == next(store.asked())
    assert short(store.ask(request())) == ("duplicate", "approved")


@pytest.mark.parametrize("n", [2, 3])
def test_of_several_who_decide_at_once_one_does(place, n):
    stores = [place.open() for _ in range(n)]
    for round_ in range(6):
        asked = request(round_)
        stores[0].ask(asked)
        ready = threading.Barrier(n)

        def decide(at: int, asked: Asked = asked, ready: threading.Barrier = ready) -> str:
            ready.wait(20)
            decision = (APPROVED, DENIED)[at % 2]
            return str(stores[at].decide(asked.exemption.exemption_id, decision, f"by {at}", T + at).refused)

        with ThreadPoolExecutor(n) as pool:
            refusals = list(pool.map(decide, range(n)))
        assert sorted(why == "" for why in refusals) == [False] * (n - 1) + [True]
        winner = refusals.index("")
        for store in stores:
            assert store.ask(asked).answer == f"by {winner}"


def test_what_is_not_there_is_not_decided(place):
    store = place.open()
    store.ask(request(1))
    assert store.decide(f"{2:032x}", APPROVED, "", T).asked is None
    with pytest.raises(ConfigError, match="no decision"):
        store.decide(f"{1:032x}", ExemptionState.EXPIRED, "", T)
    with pytest.raises(ConfigError, match="too long"):
        store.decide(f"{1:032x}", APPROVED, "x" * 2_001, T)
    with pytest.raises(ConfigError, match="cannot be shown"):
        store.decide(f"{1:032x}", APPROVED, "\x1b[2J", T)
    assert next(store.asked()).exemption.state is ExemptionState.PENDING


def test_what_was_taken_back_is_not_decided(place):
    store = place.open()
    store.ask(request())
    assert store.take_back(P, f"{1:032x}", T + 3)
    assert not place.open().take_back(P, f"{1:032x}", T + 4)
    assert "taken it back" in store.decide(f"{1:032x}", APPROVED, "", T + 5).refused
    assert short(store.ask(request())) == ("duplicate", "withdrawn")
    (asked,) = store.asked()
    assert (asked.exemption.state, asked.withdrawn_ns) == (ExemptionState.WITHDRAWN, T + 3)


def test_an_approved_one_can_be_taken_back_and_another_participant_cannot_do_it(place):
    store = place.open()
    store.ask(request())
    store.decide(f"{1:032x}", APPROVED, "", T)
    store.take_back(Q, f"{1:032x}", T)
    assert next(store.asked()).exemption.state is APPROVED
    store.take_back(P, f"{1:032x}", T)
    assert next(store.asked()).exemption.state is ExemptionState.WITHDRAWN
    assert len(list(store.asked())) == 1, "what was taken back without a request is none"


def test_taken_back_before_the_request_came(place):
    store = place.open()
    assert store.take_back(P, f"{1:032x}", T)
    assert list(store.asked()) == []
    assert short(store.ask(request())) == ("stored", "withdrawn")


def test_what_has_ended_is_not_decided_and_its_device_asks_no_more(place):
    store = place.open()
    asked = request(until_ns=T + S)
    store.ask(asked)
    assert "ended" in store.decide(f"{1:032x}", APPROVED, "", T + S).refused
    late = replace(asked, received_ns=T + S)
    assert short(store.ask(late)) == ("duplicate", "expired")
    assert next(store.asked()).at(T + S).exemption.state is ExemptionState.EXPIRED
    assert store.decide(f"{1:032x}", APPROVED, "", T).refused == ""
    assert short(store.ask(late)) == ("duplicate", "approved"), (
        "a device that was off hears of it all the same"
    )


def test_the_same_id_with_another_request_is_refused(place):
    store = place.open()
    store.ask(request())
    for other in (request(note="another"), request(scope=ExemptScope(everything=True))):
        assert short(store.ask(other)) == ("this id was received before with another request", "")
    assert next(store.asked()) == request()


def test_an_id_of_two_participants_is_not_decided_for_either(place):
    store = place.open()
    store.ask(request())
    store.ask(request(participant=Q))
    assert "several" in store.decide(f"{1:032x}", APPROVED, "", T).refused
    assert {asked.exemption.state for asked in store.asked()} == {ExemptionState.PENDING}


def test_all_are_listed_in_the_order_of_ids_and_after_any(place):
    store = place.open()
    for n in (3, 70, 1, *range(100, 170)):
        store.ask(request(n))
    ids = [asked.exemption.exemption_id for asked in store.asked()]
    assert ids == sorted(f"{n:032x}" for n in (3, 70, 1, *range(100, 170)))
    assert [a.exemption.exemption_id for a in store.asked(f"{70:032x}")] == ids[3:]
    assert store.exemption_ids() == ids


def test_what_somebody_has_damaged_is_mended_by_who_asks_or_decides_again(place):
    store = place.open()
    store.ask(request())
    store.decide(f"{1:032x}", APPROVED, "", T)
    for damage in (b"", b"{", b"[]", b'{"decision": "maybe"}'):
        place.plant(f"exemptions/{1:032x}-{P}.decision", damage)
        assert short(store.ask(request())) == ("duplicate", "pending")
        assert store.decide(f"{1:032x}", DENIED, "again", T).refused == ""
        assert short(store.ask(request())) == ("duplicate", "denied")
    for damage in (b"", b"{", b'{"exemption": {}}'):
        place.plant(f"exemptions/{1:032x}-{P}.request", damage)
        assert list(store.asked()) == []
        assert store.decide(f"{1:032x}", DENIED, "", T).asked is None
        assert short(store.ask(request())) == ("stored", "denied")
    place.plant(f"exemptions/{1:032x}-{P}.withdrawn", b"?")
    assert short(store.ask(request())) == ("duplicate", "withdrawn")
    place.plant("exemptions/notes.txt", b"of somebody's")
    assert len(list(store.asked())) == 1


# --- deletion -----------------------------------------------------------------------------------------------


def test_deletion_of_a_participant_removes_what_they_asked_for_and_keeps_it_out(place):
    store = place.open()
    for n in range(1, 70):
        store.ask(request(n))
    store.decide(f"{1:032x}", APPROVED, "words for them", T)
    store.take_back(P, f"{2:032x}", T)
    store.ask(request(99, participant=Q))
    assert delete(store, Deletion(P, D)) > 69
    assert kept(place, P, f"{1:032x}", f"{2:032x}", "words for them") == []
    for again in (store, place.open()):
        assert short(again.ask(request(1))) == ("deleted", "")
        assert not again.take_back(P, f"{1:032x}", T)
        assert again.decide(f"{1:032x}", APPROVED, "", T).asked is None
        assert [a.participant for a in again.asked()] == [Q]
    assert kept(place, P) == []


def test_deletion_of_batches_leaves_requests(place):
    store = place.open()
    store.ask(request())
    delete(store, Deletion(P, D, ("b" * 32,)))
    assert list(store.asked()) == [request()]


def test_requests_that_race_a_deletion_are_gone_or_refused(place):
    if isinstance(place, BucketPlace):
        place.lease_s = 5
    stores = [place.open() for _ in range(3)]
    began = threading.Event()

    def ask(at: int) -> list[str]:
        seen = []
        for n in range(at * 1000, at * 1000 + 25):
            seen.append(short(stores[at].ask(request(n)))[0])
            if seen[-1] == "stored":
                stores[at].decide(f"{n:032x}", APPROVED, "", T)
            began.set()
        return seen

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, at) for at in range(2)]
        began.wait(20)
        delete(stores[2], Deletion(P, D))
        left = [
            key for key in kept(place, P) if not key.startswith("pending/")
        ]  # of those that are being refused
        assert left == []
        for future in asking:
            assert set(future.result()) <= {"stored", "deleted"}
    assert kept(place, P) == []
    assert list(stores[0].asked()) == []


def test_what_a_request_that_died_left_goes_too(place):
    if isinstance(place, BucketPlace):
        place.lease_s = 0.5
    store = place.open()
    place.plant_dead_upload(P, f"{1:032x}", b"{" * 100)
    delete(store, Deletion(P, D))
    assert kept(place, P, f"{1:032x}") == []


# --- retention ----------------------------------------------------------------------------------------------


def test_what_is_over_goes_with_its_day_and_what_is_in_force_or_waits_stays(place):
    store = place.open()
    day_ns = 86_400 * S
    for n, until_ns in (
        (1, None),
        (2, None),
        (3, None),
        (4, None),
        (5, T + S),
        (6, T + S),
        (7, T + 400 * day_ns),
    ):
        store.ask(request(n, until_ns=until_ns))
    for n, decision in ((2, DENIED), (3, APPROVED), (4, APPROVED), (6, APPROVED), (7, DENIED)):
        store.decide(f"{n:032x}", decision, "", T)
    store.take_back(P, f"{4:032x}", T)
    on = date(2025, 6, 15)  # the day of T
    for before, left in ((on, [1, 2, 3, 4, 5, 6, 7]), (date(2025, 6, 17), [1, 3])):
        for _ in store.expire(before):
            pass
        assert store.exemption_ids() == [f"{n:032x}" for n in left]
    assert kept(place, f"{2:032x}", f"{4:032x}", f"{6:032x}") == []


# --- trouble ------------------------------------------------------------------------------------------------


@pytest.mark.needs("mount")
def test_a_full_disk_stores_nothing_and_says_so(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount a small file system")
    try:
        store = FolderPlace(disk / "store").open()
        store.ask(request(1))
        subprocess.run(["cp", "/dev/zero", str(disk / "full")], capture_output=True)
        with pytest.raises(StoreError):
            store.ask(request(2))
        with pytest.raises(StoreError):
            store.decide(f"{1:032x}", APPROVED, "", T)
        (disk / "full").unlink()
        assert short(store.ask(request(2))) == ("stored", "pending")
        assert store.decide(f"{1:032x}", DENIED, "", T).refused == ""
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Does one thing in a child that dies just before its n-th call into the file system, then does it again.
CRASH = (
    DIE_AT
    + """
from datetime import date
from pathlib import Path
from mcilib.consent import Exemption, ExemptionState, ExemptScope
from mcilib.receiver import Asked, Deletion, FolderStore

folder, kind = Path(sys.argv[1]), sys.argv[2]
P, D, E = "1" * 32, "d" * 32, "e" * 32
asked = Asked(P, D, 5, Exemption(E, ExemptScope(everything=True), "legal", "a note", 4))

def act(store):
    if kind == "ask":
        assert store.ask(asked).decision == "pending"
    elif kind == "decide":
        assert store.decide(E, ExemptionState.DENIED, "words", 6).refused == ""
    elif kind == "take back":
        store.take_back(P, E, 7)
    else:
        for _ in store.delete(Deletion(P, D)):
            pass

n = 0
while True:
    n += 1
    root = folder / str(n)
    store = FolderStore(root, today=lambda: date(2026, 3, 1))
    if kind != "ask":
        store.ask(asked)
    if kind == "delete":
        store.decide(E, ExemptionState.DENIED, "words", 6)
        store.take_back(P, E, 7)
    pid = os.fork()
    if pid == 0:
        die_at(n)
        act(store)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    # Half a request or half a decision never shows.
    store = FolderStore(root, today=lambda: date(2026, 3, 2))
    for seen in store.asked():
        assert seen.exemption.note == "a note" and seen.exemption.answer in ("", "words"), seen
    act(store)
    states = [seen.exemption.state.value for seen in store.asked()]
    wanted = {"ask": ["pending"], "decide": ["denied"], "take back": ["withdrawn"], "delete": []}[kind]
    assert states == wanted, (n, states)
    for _ in store.delete(Deletion(P, D)):
        pass
    for path in root.rglob("*"):
        assert P not in path.name and E not in path.name, (n, path)
        assert not path.is_file() or b"a note" not in path.read_bytes(), (n, path)
    if code == 0:
        print(n - 1)
        break
"""
)


@pytest.mark.parametrize("kind", ["ask", "decide", "take back", "delete"])
def test_what_dies_before_any_call_is_completed_by_the_next(tmp_path, kind):
    done = subprocess.run([sys.executable, "-P", "-c", CRASH, tmp_path, kind], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 8, "the crash points were not counted"


def test_a_bucket_that_answers_too_late_decides_nothing(object_server):
    """As for batches: who was too slow for the lease gives no word that it is done."""
    place = BucketPlace(object_server)
    place.lease_s = 0.0
    with pytest.raises(StoreError, match="too long"):
        place.open().ask(request())


# --- what is of no request ----------------------------------------------------------------------------------


def test_the_retention_takes_what_is_of_no_request_too(place):
    """A request that was taken back and never came, or whose removal a crash has cut off: its name has the pseudonym."""
    store = place.open()
    store.take_back(P, f"{1:032x}", T)
    store.take_back(Q, f"{2:032x}", T + 2 * 86_400 * S)
    store.ask(request(3))
    store.decide(f"{3:032x}", APPROVED, "", T)
    store._remove([f"exemptions/{3:032x}-{P}.request"])
    for _ in store.expire(date(2025, 6, 15)):
        pass
    assert len(kept(place, P, Q)) == 3, "not before its day is over"
    for _ in store.expire(date(2025, 6, 16)):
        pass
    assert kept(place, P) == []
    assert kept(place, Q) == [f"exemptions/{2:032x}-{Q}.withdrawn"]
