"""The spool in one process: commit, read, settle, limits, errors, what a crash leaves."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from mcilib import limits
from mcilib.delivery.spool import DirectorySpool
from mcilib.errors import ConfigError, SpoolError
from mcilib.protocols import Fate, SealedBatch


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def reopened(spool: DirectorySpool) -> DirectorySpool:
    spool.close()
    again = DirectorySpool(spool.path)
    again.open()
    return again


# --- the way of a batch -------------------------------------------------------------------------------------


def test_a_committed_batch_is_a_file_with_its_sequence_and_id(spool, seal):
    batch = spool.commit(seal(100))
    assert batch.sequence == 1
    assert names(spool.path) == ["bad", "control", "owner.lock", "ready", "reserve", "state.json", "tmp"]
    assert names(spool.path / "ready") == [f"0000000000000001-{batch.batch_id}.mcib"]
    assert names(spool.path / "tmp") == []
    assert spool.waiting() == (batch.batch_id,)
    assert spool.read(batch.batch_id) == batch


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_folders_and_files_are_the_users_own(spool, seal):
    spool.commit(seal())
    for folder in (spool.path, *(spool.path / name for name in ("tmp", "ready", "control", "bad"))):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = [spool.path / name for name in ("state.json", "owner.lock", "reserve")]
    for file in (*kept, *(spool.path / "ready").iterdir()):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_oldest_first_also_after_reopening(spool, seal):
    ids = tuple(spool.commit(seal()).batch_id for _ in range(12))
    assert spool.waiting() == ids
    again = reopened(spool)
    assert again.waiting() == ids
    assert again.commit(seal()).sequence == 13
    again.close()


def test_delivered_is_counted_and_removed(spool, seal, conserves):
    batch = spool.commit(seal())
    spool.settle(batch.batch_id, Fate.DELIVERED)
    spool.settle(batch.batch_id, Fate.DELIVERED)
    spool.settle("f" * 32, Fate.REJECTED)
    assert spool.read(batch.batch_id) is None
    assert spool.statistics().delivered_batches == 1
    assert names(spool.path / "ready") == names(spool.path / "bad") == []
    assert conserves(spool)


def test_rejected_is_counted_and_kept_for_a_look(spool, seal, conserves):
    batches = [spool.commit(seal()) for _ in range(limits.BAD_MAX_FILES + 2)]
    for batch in batches:
        spool.settle(batch.batch_id, Fate.REJECTED)
    assert {cause: n for cause, n in spool.statistics().lost.items() if n} == {"rejected": len(batches)}
    kept = [name[17:49] for name in names(spool.path / "bad")]
    assert kept == [batch.batch_id for batch in batches[2:]]
    assert conserves(spool)


def test_one_reply_is_one_write_of_the_counters(spool, seal, conserves, synced):
    ids = [spool.commit(seal()).batch_id for _ in range(60)]
    fates = dict.fromkeys([*ids[1:40], "f" * 32], Fate.DELIVERED) | {ids[50]: Fate.REJECTED}
    synced.clear()
    spool.settle_all(fates)
    assert synced == [
        "state.json",
        "spool",
        "ready",
    ]  # the last so that the counters need not carry so many names
    assert spool.waiting() == (ids[0], *ids[40:50], *ids[51:])
    assert (spool.statistics().delivered_batches, spool.statistics().lost["rejected"]) == (39, 1)
    assert conserves(spool)
    before = spool.statistics()
    again = reopened(spool)
    assert again.statistics() == before
    assert conserves(again)
    again.close()


def test_a_commit_is_two_fsyncs_and_so_is_a_reply(spool, seal, synced):
    synced.clear()
    batch = spool.commit(seal())
    assert synced == [f"0000000000000001-{batch.batch_id}.mcib", "ready"]
    spool.commit(seal())
    synced.clear()
    spool.settle_all(dict.fromkeys(spool.waiting(), Fate.DELIVERED))
    spool.settle_all({"f" * 32: Fate.DELIVERED})
    assert synced == ["state.json", "spool"]


@pytest.mark.parametrize("harm", ["empty", "cut", "longer", "gone", "folder"])
def test_a_damaged_file_is_counted_and_does_not_block_the_others(spool, seal, conserves, harm):
    first, second = spool.commit(seal()), spool.commit(seal())
    file = spool.path / "ready" / names(spool.path / "ready")[0]
    match harm:
        case "empty" | "cut":
            os.truncate(file, 0 if harm == "empty" else 50)
        case "longer":
            file.write_bytes(first.data + b"x")
        case "gone":
            file.unlink()
        case "folder":
            file.unlink()
            file.mkdir()
    assert spool.read(first.batch_id) is None
    assert spool.read(second.batch_id) == second
    assert spool.waiting() == (second.batch_id,)
    assert spool.statistics().lost["damaged"] == 1
    assert len(names(spool.path / "bad")) == (0 if harm == "gone" else 1)
    assert conserves(spool)


def test_a_file_emptied_while_nobody_ran_is_found_when_it_is_read(spool, seal, conserves):
    batch = spool.commit(seal())
    spool.close()
    os.truncate(next((spool.path / "ready").iterdir()), 0)
    again = reopened(spool)
    assert again.read(batch.batch_id) is None
    assert again.statistics().lost["damaged"] == 1
    assert conserves(again)
    again.close()


def test_no_file_descriptor_left_is_no_damage(spool, seal):
    resource = pytest.importorskip("resource")
    batch = spool.commit(seal())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(SpoolError):
            spool.read(batch.batch_id)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert spool.read(batch.batch_id) == batch


def test_counters_live_as_long_as_the_folder(spool, seal, conserves):
    for fate in (Fate.DELIVERED, Fate.REJECTED):
        spool.settle(spool.commit(seal(70)).batch_id, fate)
    spool.commit(seal(30))
    before = spool.statistics()
    assert (before.committed_batches, before.committed_bytes) == (3, 170)
    assert (before.waiting_batches, before.waiting_bytes) == (1, 30)
    again = reopened(spool)
    assert again.statistics() == before
    assert conserves(again)
    again.close()
    assert again.statistics() == before


# --- limits -------------------------------------------------------------------------------------------------


def test_a_batch_that_can_never_fit_is_refused_and_evicts_nothing(tmp_path, seal):
    with DirectorySpool(tmp_path, max_bytes=1_000) as spool:
        kept = spool.commit(seal(300))
        with pytest.raises(SpoolError, match="1001 bytes are more than the spool may hold"):
            spool.commit(seal(1_001))
        assert spool.waiting() == (kept.batch_id,)
        assert spool.commit(seal()).sequence == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_bytes", 0),
        ("max_files", 0),
        ("max_age_s", 0),
        ("max_age_s", float("nan")),
        ("min_free_bytes", -1),
    ],
)
def test_limits_that_are_none_are_refused(tmp_path, option, value):
    with pytest.raises(ConfigError, match=option):
        DirectorySpool(tmp_path, **{option: value})


# --- commits that fail --------------------------------------------------------------------------------------


def test_what_seal_raises_is_passed_on_and_nothing_was_used(spool, seal):
    def fails(sequence: int) -> SealedBatch:
        raise RuntimeError(sequence)

    with pytest.raises(RuntimeError):
        spool.commit(fails)
    assert spool.commit(seal()).sequence == 1


@pytest.mark.parametrize(
    "wrong",
    [
        SealedBatch("a" * 32, 2, b"x"),
        SealedBatch("../../escape", 1, b"x"),
        SealedBatch("A" * 32, 1, b"x"),
        SealedBatch("a" * 32, 1, b""),
    ],
)
def test_a_batch_that_breaks_the_contract_is_refused(spool, seal, wrong):
    with pytest.raises(SpoolError, match="cannot be stored"):
        spool.commit(lambda _: wrong)
    assert names(spool.path / "ready") == names(spool.path / "tmp") == []
    assert spool.commit(seal()).sequence == 1


def test_the_same_id_twice_is_refused(spool, seal):
    spool.commit(seal(batch_id="a" * 32))
    with pytest.raises(SpoolError, match="of its own"):
        spool.commit(seal(batch_id="a" * 32))
    assert spool.statistics().committed_batches == 1


def test_a_spool_that_is_not_open_refuses_to_commit_and_is_empty(tmp_path, seal):
    spool = DirectorySpool(tmp_path / "spool")
    with pytest.raises(SpoolError, match="does not own"):
        spool.commit(seal())
    assert spool.waiting() == ()
    assert spool.read("a" * 32) is None
    spool.settle("a" * 32, Fate.DELIVERED)
    spool.close()
    assert not (tmp_path / "spool").exists()


def test_close_twice_and_open_twice(spool, seal):
    spool.open()
    batch = spool.commit(seal())
    spool.close()
    spool.close()
    assert spool.waiting() == ()
    with pytest.raises(SpoolError):
        spool.commit(seal())
    spool.settle(batch.batch_id, Fate.DELIVERED)  # another process may own the folder by now
    spool.open()
    assert spool.waiting() == (batch.batch_id,)


def test_a_vanished_folder_is_an_error_and_comes_back(tmp_path, seal):
    with DirectorySpool(tmp_path / "spool") as spool:
        spool.commit(seal())
        (tmp_path / "spool").rename(tmp_path / "away")
        with pytest.raises(SpoolError, match="vanished"):
            spool.commit(seal())
        with pytest.raises(SpoolError, match="vanished"):
            spool.read(spool.waiting()[0])
        assert spool.statistics().lost["damaged"] == 0
        (tmp_path / "away").rename(tmp_path / "spool")
        assert spool.read(spool.waiting()[0]) is not None
        assert spool.commit(seal()).sequence == 2


def test_a_commit_that_fails_at_the_rename_leaves_nothing(spool, seal):
    (spool.path / "ready").rmdir()
    with pytest.raises(SpoolError, match="vanished"):
        spool.commit(seal())
    assert names(spool.path / "tmp") == []
    (spool.path / "ready").mkdir()
    assert spool.commit(seal()).sequence == 1


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="--state"):
        DirectorySpool(tmp_path / place).open()


# --- what a crash leaves ------------------------------------------------------------------------------------


def test_leftovers_in_tmp_are_removed(spool, seal):
    (spool.path / "tmp" / "half").write_bytes(b"x")
    (spool.path / "tmp" / "state.json").write_bytes(b"{")
    again = reopened(spool)
    assert names(again.path / "tmp") == []
    again.close()


def test_a_crash_after_the_rename_counts_the_batch_as_committed(spool, seal, conserves):
    spool.commit(seal())
    before = (spool.path / "state.json").read_bytes()
    batch = spool.commit(seal(77))
    spool.close()
    (spool.path / "state.json").write_bytes(before)
    assert DirectorySpool.read_statistics(spool.path).committed_batches == 2
    again = reopened(spool)
    assert again.statistics().committed_batches == 2
    assert again.statistics().committed_bytes == 177
    assert again.read(batch.batch_id) == batch
    assert again.commit(seal()).sequence == 3
    assert conserves(again)
    again.close()


@pytest.mark.parametrize("fate", list(Fate))
def test_a_crash_between_the_count_and_the_removal_counts_once(spool, seal, conserves, fate):
    batch = spool.commit(seal())
    file = spool.path / "ready" / names(spool.path / "ready")[0]
    spool.settle(batch.batch_id, fate)
    spool.close()
    file.write_bytes(batch.data)
    again = reopened(spool)
    assert again.waiting() == ()
    assert again.statistics() == spool.statistics()
    assert len(names(again.path / "bad")) == (1 if fate is Fate.REJECTED else 0)
    assert conserves(again)
    again.close()


def test_a_crash_between_the_count_and_an_eviction_counts_once(tmp_path, seal, conserves):
    with DirectorySpool(tmp_path, max_files=1) as spool:
        old = spool.commit(seal())
        name = names(tmp_path / "ready")[0]
        spool.commit(seal())
    (tmp_path / "ready" / name).write_bytes(old.data)
    with DirectorySpool(tmp_path) as again:
        assert old.batch_id not in again.waiting()
        assert again.statistics().lost["evicted"] == 1
        assert conserves(again)


def test_files_removed_by_hand_are_counted(spool, seal, conserves):
    for _ in range(3):
        spool.commit(seal())
    spool.close()
    (spool.path / "ready" / names(spool.path / "ready")[1]).unlink()
    again = reopened(spool)
    assert again.statistics().lost["damaged"] == 1
    assert conserves(again)
    again.close()


def test_one_that_came_and_one_that_vanished_do_not_cancel(spool, seal, conserves):
    spool.commit(seal(50))
    before = (spool.path / "state.json").read_bytes()
    spool.commit(seal(70))
    spool.close()
    (spool.path / "state.json").write_bytes(before)
    (spool.path / "ready" / names(spool.path / "ready")[0]).unlink()
    again = reopened(spool)
    now = again.statistics()
    assert (now.committed_batches, now.committed_bytes, now.lost["damaged"]) == (2, 70, 1)
    assert conserves(again)
    again.close()


def test_a_sequence_in_bad_is_not_used_again_even_without_a_state(spool, seal):
    for _ in range(3):
        spool.settle(spool.commit(seal()).batch_id, Fate.REJECTED)
    spool.close()
    (spool.path / "state.json").unlink()
    again = reopened(spool)
    assert again.commit(seal()).sequence == 4
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schema": 1}',
        b"[" * 100_000,
        b"\xff",
        b'{"schema": "x"}',
        b'{"schema": null}',
    ],
)
def test_a_damaged_state_is_kept_and_the_counters_start_from_the_files(
    spool, seal, conserves, content, caplog
):
    batch = spool.commit(seal())
    spool.close()
    (spool.path / "state.json").write_bytes(content)
    again = reopened(spool)
    assert "damaged" in caplog.text
    assert (again.path / "state.json.damaged").read_bytes() == content
    assert again.waiting() == (batch.batch_id,)
    assert again.commit(seal()).sequence == 2
    assert conserves(again)
    again.close()


def test_other_files_are_none_of_our_business(spool, seal, conserves):
    (spool.path / "ready" / "notes.txt").write_text("mine")
    (spool.path / "tmp" / "folder").mkdir()
    again = reopened(spool)
    assert again.waiting() == ()
    assert (again.path / "ready" / "notes.txt").read_text() == "mine"
    again.close()


def test_a_state_that_names_a_path_outside_removes_nothing(spool, tmp_path):
    (tmp_path / "precious").write_text("x")
    spool.close()
    state = json.loads((spool.path / "state.json").read_bytes())
    state = {**state, "schema": 1, "leaving": {"../../precious": "gone"}}
    (spool.path / "state.json").write_text(json.dumps(state))
    reopened(spool).close()
    assert (tmp_path / "precious").exists()


def test_many_settled_in_a_row_keep_the_state_small(spool, seal, conserves):
    batches = [spool.commit(seal()) for _ in range(100)]
    for batch in batches:
        spool.settle(batch.batch_id, Fate.DELIVERED)
        assert len((spool.path / "state.json").read_bytes()) < 4_000
    assert conserves(spool)


def test_opening_a_settled_folder_writes_nothing(spool, seal):
    spool.commit(seal())
    reopened(spool).close()
    before = (spool.path / "state.json").stat().st_ino
    reopened(spool).close()
    assert (spool.path / "state.json").stat().st_ino == before


# --- an onlooker --------------------------------------------------------------------------------------------


def test_statistics_without_the_lock_while_it_is_owned(spool, seal):
    batches = [spool.commit(seal()) for _ in range(5)]
    spool.settle(batches[0].batch_id, Fate.DELIVERED)
    before = {file: file.read_bytes() for file in spool.path.rglob("*") if file.is_file()}
    assert DirectorySpool.read_statistics(spool.path) == spool.statistics()
    assert {file: file.read_bytes() for file in spool.path.rglob("*") if file.is_file()} == before


def test_statistics_of_a_folder_that_is_not_there(tmp_path):
    assert DirectorySpool.read_statistics(tmp_path / "none").committed_batches == 0
    assert DirectorySpool(tmp_path / "none").statistics().committed_batches == 0
    assert DirectorySpool.owned(tmp_path / "none") is False
    assert not (tmp_path / "none").exists()


def test_owned_tells_whether_an_owner_runs(spool):
    assert DirectorySpool.owned(spool.path) is True
    spool.close()
    assert DirectorySpool.owned(spool.path) is False


def test_statistics_add_up_while_others_work(spool, seal):
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            spool.settle(spool.commit(seal()).batch_id, Fate.DELIVERED)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(100):
            now = spool.statistics()
            assert now.committed_batches == now.delivered_batches + now.waiting_batches
    finally:
        stop.set()
        thread.join()


def test_many_threads_never_share_a_sequence(spool, seal, conserves):
    done: list[int] = []

    def work() -> None:
        for _ in range(20):
            batch = spool.commit(seal())
            done.append(batch.sequence)
            spool.settle(batch.batch_id, Fate.DELIVERED)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == list(range(1, 81))
    assert conserves(spool)
