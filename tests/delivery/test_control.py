"""Control records: what one looks like, how the spool keeps them; and the purge that comes with a withdrawal."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess

import pytest

from mcilib import limits
from mcilib.delivery.control import delete_request, parse
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import SpoolError
from mcilib.protocols import ControlRecord, Fate

PARTICIPANT, DEVICE = "a" * 32, "d" * 32


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def ask(batches=None):
    return delete_request(PARTICIPANT, DEVICE, batches)


# --- the record ---------------------------------------------------------------------------------------------


def test_a_request_to_delete_batches_and_one_to_delete_all():
    one, other = ask(["b" * 32])(7), ask()(8)
    assert (one.sequence, other.sequence) == (7, 8)
    assert json.loads(one.data) == {
        "record": one.record_id, "kind": "delete", "participant": PARTICIPANT, "device": DEVICE, "batches": ["b" * 32],
    }  # fmt: skip
    assert "batches" not in json.loads(other.data)
    assert parse(other.data)["record"] == other.record_id != one.record_id


def test_the_same_request_is_the_same_bytes_whatever_its_sequence():
    make = ask()
    assert make(1).data == make(2).data


def test_four_hundred_ids_fit_and_more_than_fit_are_refused():
    assert len(ask([f"{n:032x}" for n in range(400)])(1).data) <= limits.CONTROL_MAX_BYTES
    with pytest.raises(ValueError, match="more than 16384"):
        ask([f"{n:032x}" for n in range(500)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A" * 32, DEVICE), "participant is not an id"),
        ((PARTICIPANT, "d"), "device is not an id"),
        ((PARTICIPANT, DEVICE, []), "not a list"),
        ((PARTICIPANT, DEVICE, ["b" * 31]), "one of the batches"),
    ],
)
def test_a_request_that_would_be_refused_is_not_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        delete_request(*arguments)


GOOD = {"record": "1" * 32, "kind": "delete", "participant": PARTICIPANT, "device": DEVICE}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not an object"),
        (b"{}", "record is not an id"),
        (json.dumps({**GOOD, "record": 5}).encode(), "record is not an id"),
        (json.dumps({**GOOD, "kind": ""}).encode(), "no kind"),
        (json.dumps({**GOOD, "kind": None}).encode(), "no kind"),
        (json.dumps({**GOOD, "device": None}).encode(), "device is not an id"),
        (json.dumps({**GOOD, "batches": {}}).encode(), "not a list"),
        (json.dumps({**GOOD, "batches": [None]}).encode(), "one of the batches"),
        (json.dumps({**GOOD, "x": "y" * limits.CONTROL_MAX_BYTES}).encode(), "more than 16384"),
    ],
)
def test_what_is_no_record(data, message):
    with pytest.raises(ValueError, match=message):
        parse(data)


def test_a_kind_of_a_later_version_is_a_record():
    assert parse(json.dumps({"record": "1" * 32, "kind": "later"}).encode())["kind"] == "later"


# --- in the spool -------------------------------------------------------------------------------------------


def test_a_control_record_is_a_file_and_comes_back_byte_for_byte(spool, seal, conserves):
    spool.commit(seal())
    first, second = spool.commit_control(ask()), spool.commit_control(ask())
    assert (first.sequence, second.sequence) == (1, 2)
    assert names(spool.path / "control") == [
        f"{n:016d}-{r.record_id}.json" for n, r in ((1, first), (2, second))
    ]
    assert spool.controls() == (first, second)
    assert len(spool.waiting()) == 1
    assert spool.statistics().control_records == 2
    assert DirectorySpool.read_statistics(spool.path) == spool.statistics()
    assert conserves(spool)
    spool.close()
    assert spool.controls() == ()
    with DirectorySpool(spool.path) as again:
        assert again.controls() == (first, second)
        again.settle_control(first.record_id)
        again.settle_control("f" * 32)
        assert again.controls() == (second,)
        assert again.commit_control(ask()).sequence == 3


def test_its_sequence_is_not_used_again_after_a_crash(spool):
    spool.settle_control(spool.commit_control(ask()).record_id)
    spool.close()
    with DirectorySpool(spool.path) as again:
        assert again.commit_control(ask()).sequence == 2


def test_it_is_durable_on_return_and_gone_on_return(spool, synced):
    synced.clear()
    record = spool.commit_control(ask())
    assert synced == [f"0000000000000001-{record.record_id}.json", "control"]
    synced.clear()
    spool.settle_control(record.record_id)
    assert synced == ["state.json", "spool", "control"]


def test_no_limit_evicts_it(tmp_path, seal):
    with DirectorySpool(tmp_path, max_files=1, max_bytes=100, max_age_s=0.001) as spool:
        record = spool.commit_control(ask())
        for _ in range(5):
            spool.commit(seal())
        assert spool.controls() == (record,)
        assert len(spool.waiting()) == 1


def test_on_a_full_disk_data_makes_room_for_it(small_disk, seal, conserves):
    disk = small_disk()
    with DirectorySpool(disk / "spool", min_free_bytes=0) as spool:
        kept = spool.commit_control(ask())
        for _ in range(10):
            spool.commit(seal(4_000))
        with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"x" * 4096)
        record = spool.commit_control(ask())
        assert spool.controls() == (kept, record)
        assert spool.statistics().lost["evicted"] == 1
        assert conserves(spool)
        subprocess.run(["cp", "/dev/zero", str(disk / "more")], capture_output=True)
        spool.settle_control(record.record_id)
        assert spool.controls() == (kept,)


@pytest.mark.parametrize(
    "wrong",
    [
        ControlRecord("1" * 32, 2, json.dumps(GOOD).encode()),
        ControlRecord("2" * 32, 1, json.dumps(GOOD).encode()),
        ControlRecord("../../escape", 1, json.dumps(GOOD).encode()),
        ControlRecord("1" * 32, 1, b""),
        ControlRecord("1" * 32, 1, b"{}"),
        ControlRecord("1" * 32, 1, json.dumps({**GOOD, "x": "y" * limits.CONTROL_MAX_BYTES}).encode()),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused(spool, wrong):
    with pytest.raises(SpoolError, match="control record cannot be stored"):
        spool.commit_control(lambda _: wrong)
    assert names(spool.path / "control") == []
    assert spool.commit_control(ask()).sequence == 1


def test_the_same_record_twice_is_refused(spool):
    make = ask()
    spool.commit_control(make)
    with pytest.raises(SpoolError, match="of its own"):
        spool.commit_control(make)


def test_a_damaged_record_is_set_aside_said_and_does_not_block_the_others(spool, seal, caplog):
    first, second, third = (spool.commit_control(ask()) for _ in range(3))
    os.truncate(spool.path / "control" / f"{1:016d}-{first.record_id}.json", 20)
    (spool.path / "control" / f"{3:016d}-{third.record_id}.json").unlink()
    assert spool.controls() == (second,)
    assert names(spool.path / "bad") == [f"{1:016d}-{first.record_id}.json"]
    assert caplog.text.count("was damaged on this disk and is lost") == 2
    assert spool.statistics().control_records == 1
    assert spool.statistics().committed_batches == 0
    spool.close()
    with DirectorySpool(spool.path) as again:
        assert again.controls() == (second,)
        assert again.commit_control(ask()).sequence == 4


def test_records_of_a_vanished_folder_are_not_lost(tmp_path):
    with DirectorySpool(tmp_path / "spool") as spool:
        record = spool.commit_control(ask())
        (tmp_path / "spool").rename(tmp_path / "away")
        with pytest.raises(SpoolError, match="vanished"):
            spool.controls()
        with pytest.raises(SpoolError, match="vanished"):
            spool.settle_control(record.record_id)
        (tmp_path / "away").rename(tmp_path / "spool")
        assert spool.controls() == (record,)


# --- purge --------------------------------------------------------------------------------------------------


def test_a_purge_removes_all_data_durably_and_keeps_the_records(spool, seal, conserves, synced):
    spool.settle(spool.commit(seal()).batch_id, Fate.REJECTED)
    record = spool.commit_control(ask())
    ids = [spool.commit(seal()).batch_id for _ in range(5)]
    assert len(names(spool.path / "bad")) == 1
    synced.clear()
    assert spool.purge() == 5
    assert synced == ["state.json", "spool", "ready", "bad"], "counted, and then gone for good"
    assert spool.waiting() == ()
    assert all(spool.read(batch_id) is None for batch_id in ids)
    assert names(spool.path / "ready") == names(spool.path / "bad") == names(spool.path / "tmp") == []
    assert spool.controls() == (record,)
    assert spool.statistics().lost["purged"] == 5
    assert conserves(spool)
    assert spool.purge() == 0
    assert spool.commit(seal()).sequence == 7


def test_a_purge_of_some_removes_those_also_where_they_are_kept_for_a_look(spool, seal, conserves):
    ids = [spool.commit(seal()).batch_id for _ in range(6)]
    spool.settle_all({ids[0]: Fate.REJECTED, ids[1]: Fate.REJECTED, ids[2]: Fate.DELIVERED})
    assert spool.purge([ids[0], ids[2], ids[3], ids[5], ids[5], "f" * 32]) == 2
    assert spool.waiting() == (ids[4],)
    assert [name[17:49] for name in names(spool.path / "bad")] == [ids[1]]
    assert spool.statistics().lost["purged"] == 2
    assert conserves(spool)
    before = spool.statistics()
    spool.close()
    with DirectorySpool(spool.path) as again:
        assert again.statistics() == before
        assert again.waiting() == (ids[4],)


def test_a_settle_that_comes_after_the_purge_changes_nothing(spool, seal, conserves):
    batch_id = spool.commit(seal()).batch_id
    spool.purge()
    spool.settle(batch_id, Fate.DELIVERED)
    assert spool.statistics().delivered_batches == 0
    assert conserves(spool)


def test_a_purged_file_that_will_not_go_is_said_and_goes_at_the_next_try(spool, seal, conserves):
    _, batch_id = spool.commit(seal()).batch_id, spool.commit(seal()).batch_id
    file = next((spool.path / "ready").glob(f"*-{batch_id}.mcib"))
    file.unlink()
    file.mkdir()  # what no unlink removes
    with pytest.raises(SpoolError, match="cannot be removed"):
        spool.purge([batch_id])
    with pytest.raises(SpoolError, match="cannot be removed"):
        spool.purge()
    file.rmdir()
    file.write_bytes(batch_id.encode())
    assert spool.purge() == 0
    assert names(spool.path / "ready") == []
    assert spool.statistics().lost["purged"] == 2
    assert conserves(spool)


def test_a_purged_file_that_will_not_go_goes_at_the_next_open(spool, seal):
    batch_id = spool.commit(seal()).batch_id
    (file,) = (spool.path / "ready").iterdir()
    file.unlink()
    file.mkdir()  # what no unlink removes
    with pytest.raises(SpoolError, match="cannot be removed"):
        spool.purge()
    assert spool.waiting() == ()
    file.rmdir()
    file.write_bytes(batch_id.encode())
    spool.close()
    with DirectorySpool(spool.path) as again:
        assert again.waiting() == ()
        assert names(spool.path / "ready") == []
        assert again.statistics().lost["purged"] == 1
