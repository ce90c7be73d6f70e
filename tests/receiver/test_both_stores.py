"""What every store promises: on a disk, and on a real S3-compatible server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import Any

import pytest
from places import BucketPlace, FolderPlace, Place
from places import place as place
from waiting import until

from mcilib.format.batch import read_header
from mcilib.protocols import Receipt
from mcilib.receiver import Deletion

P, Q = "1" * 32, "2" * 32
D, E = "d" * 32, "5" * 32


def put(store: Any, *frames: bytes) -> list[str]:
    """Statuses; a reason in their place where there is one."""
    return [short(receipt) for receipt in store.put([(read_header(frame), frame) for frame in frames])]


def short(receipt: Receipt) -> str:
    return receipt.reason or receipt.status.value


def delete(store: Any, deletion: Deletion) -> int:
    steps = store.delete(deletion)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value)


def expire(store: Any, before: date) -> int:
    steps = store.expire(before)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value)


def found(place: Place, *needles: str | bytes) -> list[str]:
    """Keys in whose name or contents one of these is."""
    return [
        key
        for key, data in place.contents()
        for needle in needles
        if (needle in key or needle.encode() in data if isinstance(needle, str) else needle in data)
    ]


def batches(place: Place) -> dict[str, bytes]:
    return {key[-37:-5]: data for key, data in place.contents() if key.endswith(".mcib")}


def test_one_pass_with_everything_in_it(place, frame):
    store = place.open()
    old, other, same = frame(1, size=50), frame(1, size=50), frame(2)
    assert put(store, old) == ["stored"]
    frames = [frame(n, device=f"{n % 3:032x}", participant=f"{n % 2:032x}", sequence=n) for n in range(3, 40)]
    assert put(store, *frames[:20], other, same, old, same, *frames[20:]) == (
        ["stored"] * 20
        + ["this id was received before with other bytes", "stored", "duplicate", "duplicate"]
        + ["stored"] * 17
    )
    assert put(place.open(date(2026, 3, 2)), *frames) == ["duplicate"] * 37
    assert batches(place) == {f"{n:032x}": data for n, data in enumerate([old, same, *frames], 1)}
    keys = {key for key, _ in place.contents()}
    assert f"batches/2026-03-01/{3 % 3:032x}/{3:016}-{3:032x}.mcib" in keys
    assert f"participants/2026-03-01/{3 % 2:032x}/{3 % 3:032x}" in keys


def test_the_same_ids_at_once_through_two_receivers(place, frame):
    stores = [place.open(), place.open(date(2026, 3, 2))]  # one of them is past midnight
    frames = [frame(n, size=300) for n in range(24)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: put(stores[n % 2], *frames[n // 8 * 8 :][:8]), range(24)))
    statuses = [status for receipts in got for status in receipts]
    assert sorted(statuses) == ["duplicate"] * (24 * 8 - 24) + ["stored"] * 24
    assert len([key for key, _ in place.contents() if key.endswith(".mcib")]) == 24
    assert batches(place) == {f"{n:032x}": data for n, data in enumerate(frames)}


def test_a_damaged_claim_is_mended_without_a_second_copy(place, frame):
    data = frame(1)
    put(place.open(), data)
    place.plant(f"ids/00/{1:032x}", b"x")
    later = place.open(date(2026, 3, 2))
    assert put(later, data) == ["duplicate"]
    assert len(batches(place)) == 1
    assert put(later, frame(1, size=9)) == ["this id was received before with other bytes"]


# --- deletion -----------------------------------------------------------------------------------------------


def test_deletion_by_batch_id(place, frame):
    store = place.open()
    frames = [frame(n, participant=P, size=100) for n in range(4)]
    put(store, *frames)
    gone = Deletion(P, D, tuple(f"{n:032x}" for n in (1, 2, 77)))
    assert delete(store, gone) > 0
    assert sorted(batches(place)) == [f"{n:032x}" for n in (0, 3)]
    assert found(place, *gone.batches or (), frames[1][40:], frames[2][40:]) == []
    for again in (store, place.open(date(2026, 3, 2))):
        assert put(again, *frames, frame(77, participant=P)) == [
            "duplicate",
            "deleted",
            "deleted",
            "duplicate",
            "deleted",
        ]
        assert delete(again, gone) == 0
    assert found(place, *gone.batches or ()) == []


def test_deletion_by_pseudonym(place, frame):
    """Two days, three devices, one of which somebody else uses too."""
    mine = [frame(n, participant=P, device=(D, E)[n % 2], size=100) for n in range(6)]
    shared = [frame(10, participant=P, device="a" * 32), frame(11, participant=Q, device="a" * 32)]
    other = frame(12, participant=Q, device="b" * 32)
    put(place.open(), *mine[:3], *shared, other)
    store = place.open(date(2026, 3, 2))
    put(store, *mine[3:])
    gone = Deletion(P, D)
    assert delete(store, gone) > 0
    assert (
        found(place, P, D, E, f"{10:032x}", *(f"{n:032x}" for n in range(6)), *(m[40:] for m in mine)) == []
    )
    assert batches(place) == {f"{11:032x}": shared[1], f"{12:032x}": other}
    assert put(store, *mine, *shared, other) == ["deleted"] * 7 + ["duplicate"] * 2
    assert delete(place.open(), gone) == 0
    assert found(place, P, D, E) == []


def test_what_is_not_of_that_participant_stays_whatever_ids_are_named(place, frame):
    store = place.open()
    theirs = frame(1, participant=Q)
    put(store, theirs)
    delete(store, Deletion(P, D, (f"{1:032x}",)))
    delete(store, Deletion(P, D))
    assert put(store, theirs) == ["duplicate"]
    assert batches(place) == {f"{1:032x}": theirs}


def test_batches_of_which_the_store_has_no_note_are_found_by_the_device(place, frame):
    """As stores have them that were begun before there were notes."""
    store = place.open()
    data = frame(1, participant=P)
    put(store, data)
    if isinstance(place, FolderPlace):
        (place.path / f"participants/2026-03-01/{P}/{D}").unlink()
    else:
        import obstore

        obstore.delete(place.bucket, f"participants/2026-03-01/{P}/{D}")
    delete(store, Deletion(P, D))
    assert found(place, P, D, f"{1:032x}", data[40:]) == []


@pytest.mark.parametrize("by_id", [True, False])
def test_what_an_upload_that_died_left_goes_too(place, frame, by_id):
    store = place.open()
    put(store, frame(9, participant=Q))
    data = frame(1, participant=P, size=200)
    place.plant(f"ids/00/{1:032x}", f"batches/2026-03-01/{D}/{1:016}-{1:032x}.mcib\n".encode())
    place.plant_dead_upload(P, f"{1:032x}", data)
    if isinstance(place, BucketPlace):
        place.lease_s = 0.5
        store = place.open()
    assert delete(store, Deletion(P, D, (f"{1:032x}",) if by_id else None)) > 0
    assert found(place, P, D, f"{1:032x}", data[40:90]) == [
        key for key in found(place, D) if Q in key or f"{9:032x}" in key or key.endswith(D)
    ]
    assert sorted(batches(place)) == [f"{9:032x}"]


def test_a_damaged_file_goes_with_its_device(place, frame):
    store = place.open()
    put(store, frame(1, participant=P))
    place.plant(f"batches/2026-03-01/{D}/{1:016}-{1:032x}.mcib", b"rotten")
    delete(store, Deletion(P, D))
    assert found(place, P, D, "rotten", f"{1:032x}") == []


def test_a_deletion_that_was_cut_off_goes_on(place, frame):
    store = place.open()
    frames = [frame(n, participant=P, device=f"{n:032x}") for n in range(4)]
    put(store, *frames)
    steps_taken = 0
    while True:
        steps = store.delete(Deletion(P, D))
        try:
            for _ in range(steps_taken):
                next(steps)
        except StopIteration:
            break
        steps.close()
        if steps_taken:
            assert put(store, *frames) == ["deleted"] * 4
        steps_taken += 1
    assert steps_taken > 3
    assert found(place, P, *(f"{n:032x}" for n in range(4))) == []


@pytest.mark.parametrize("by_id", [True, False])
def test_uploads_that_race_a_deletion(place, frame, by_id):
    """Whatever was told before, after the deletion nothing is there; another participant is not held up."""
    for round_ in range(2):
        stores = [place.open(), place.open()]
        frames = [
            frame(round_ * 100 + n, participant=P if by_id else f"{round_ + 16:032x}", size=100)
            for n in range(40)
        ]
        theirs = [frame(round_ * 100 + 50 + n, participant=Q) for n in range(40)]
        participant = read_header(frames[0]).participant
        told: list[str] = []
        end = threading.Event()

        def upload(store: Any, mine: list[bytes], told: list[str], end: threading.Event = end) -> None:
            for data in mine:
                told += put(store, data)
            while not end.is_set():
                told += put(store, mine[0])

        others: list[str] = []
        threads = [
            threading.Thread(target=upload, args=(stores[n % 2], frames[n * 10 :][:10], told))
            for n in range(4)
        ]
        threads.append(threading.Thread(target=upload, args=(stores[0], theirs, others)))
        for thread in threads:
            thread.start()
        try:
            until(partial(told.__getitem__, slice(None)))  # the first receipts have come
            ids = tuple(read_header(data).batch_id for data in frames)
            delete(stores[1], Deletion(participant, D, ids if by_id else None))
            left = found(place, *ids, *(data[40:] for data in frames))
            assert [key for key in left if not key.startswith("pending/")] == [], "but of those being refused"
        finally:
            end.set()
            for thread in threads:
                thread.join(20)
        assert found(place, *ids) == []
        assert set(told) <= {"stored", "duplicate", "deleted"}
        assert put(stores[0], *frames) == ["deleted"] * 40
        assert others[:40] == ["stored"] * 40


# --- retention ----------------------------------------------------------------------------------------------


def test_days_that_are_over_go_whole(place, frame):
    frames = [frame(n, participant=P, device=(D, E)[n % 2]) for n in range(6)]
    for day, data in enumerate(frames, 1):
        put(place.open(date(2026, 3, day)), data)
    store = place.open(date(2026, 3, 10))
    assert expire(store, date(2026, 3, 4)) == 3
    assert sorted(batches(place)) == [f"{n:032x}" for n in (3, 4, 5)]
    assert found(place, "2026-03-01", "2026-03-02", "2026-03-03", *(f"{n:032x}" for n in range(3))) == []
    assert put(store, frames[0], frames[3]) == ["stored", "duplicate"]
    assert expire(store, date(2026, 3, 4)) == 0
    assert expire(store, date(2026, 4, 1)) == 4
    assert found(place, P, D, E, "2026") == []
