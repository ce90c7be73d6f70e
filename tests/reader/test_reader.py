"""The reader: what it finds, in which order, with how much memory, and what it says of what it cannot read."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from batches import MS, WALL_NS, sample, with_columns, with_header
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import frame, frame_v0, holding, key_pair, moves, store

import mcilib.reader.events as reader_events
from mcilib.errors import BatchFormatError, StoreError
from mcilib.events import Gap, KeyPress, Move
from mcilib.format.batch import decode, encode
from mcilib.reader import Reader


def _seen(reader: Reader) -> list[tuple[int, int]]:
    """(batch number, ms) of each row, all of them moves."""
    events = (row.event for row in reader.rows())
    return [(int(event.x), int(event.y)) for event in events if isinstance(event, Move)]


# --- what is found ------------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_file_of_several_frames(tmp_path):
    one, two = frame(1, 10), frame(2, 20)
    folder = store(tmp_path / "store", one, two)
    several = tmp_path / "all.bin"
    several.write_bytes(one + two)
    assert (
        _seen(Reader(folder)) == _seen(Reader(several)) == _seen(Reader(str(several))) == [(1, 10), (2, 20)]
    )
    assert _seen(Reader(folder / "0.mcib")) == [(1, 10)]


def test_any_depth_but_nothing_hidden_temporary_or_foreign(tmp_path):
    store(tmp_path / "2025/06/15", frame(1, 10))
    store(tmp_path / "ready", frame(2, 20))
    for skipped in ("tmp", "bad", ".trash", "ready/tmp"):
        store(tmp_path / skipped, frame(3, 30))
    store(tmp_path, frame(4, 40), names=".hidden{}.mcib")
    store(tmp_path, frame(5, 50), names="x{}.mcib.tmp")
    (tmp_path / "owner.lock").write_text("1")
    (tmp_path / "state.json").write_text("{}")
    reader = Reader(tmp_path)
    assert _seen(reader) == [(1, 10), (2, 20)]
    assert reader.damaged == []


def test_a_folder_that_is_asked_for_is_read_whatever_its_name(tmp_path):
    assert _seen(Reader(store(tmp_path / "bad", frame(1, 10)))) == [(1, 10)]


def test_an_empty_store_is_read_as_nothing(tmp_path):
    assert list(Reader(tmp_path).rows()) == []


def test_nothing_there(tmp_path):
    with pytest.raises(StoreError, match="There is nothing at"):
        Reader(tmp_path / "missing")
    with pytest.raises(StoreError, match="cannot be read"):
        Reader(store(tmp_path, frame(1, 1)) / "0.mcib" / "below")


def test_unreadable(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)  # tests may run as root, whom no mode keeps out
    with pytest.raises(StoreError, match="Permission denied"):
        Reader(tmp_path)


def test_a_folder_below_that_cannot_be_read_is_reported(tmp_path, monkeypatch):
    store(tmp_path / "a", frame(1, 10))
    store(tmp_path / "b", frame(2, 20))
    real = os.scandir

    def refuse(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    reader = Reader(tmp_path)
    assert _seen(reader) == [(2, 20)]
    assert [(path.name, error.reason) for path, error in reader.damaged] == [
        ("a", "the folder cannot be read (Permission denied)")
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mcib")
    with pytest.raises(StoreError, match="neither a file nor a folder"):
        Reader(tmp_path / "pipe.mcib")
    reader = Reader(tmp_path)
    assert list(reader.rows()) == []
    assert [error.reason for _, error in reader.damaged] == ["not an ordinary file"]


def test_a_batch_in_two_places_is_read_once(tmp_path):
    store(tmp_path / "a", frame(1, 10), frame(1, 10))
    store(tmp_path / "b", frame(1, 10) + frame(2, 20) + frame(2, 20))
    reader = Reader(tmp_path)
    assert _seen(reader) == [(1, 10), (2, 20)]
    assert [h.sequence for h in reader.headers()] == [1, 2]
    assert reader.batch_ids() == [f"{1:030x}d0", f"{2:030x}d0"]


def test_rows_know_where_they_come_from(tmp_path):
    folder = store(tmp_path, frame(7, 10, 20, start_ms=3))
    first, second = Reader(folder).rows()
    assert (first.index, second.index) == (0, 1)
    assert first.header == next(Reader(folder).headers())
    assert first.metadata == first.batch.metadata == decode(frame(7, 10, 20, start_ms=3)).metadata
    assert second.wall_ns == WALL_NS + 23 * MS
    assert list(Reader(folder).events()) == [first.event, second.event]
    assert [b.events for b in Reader(folder).batches()] == [(first.event, second.event)]


def test_the_index_says_where_each_batch_lies(tmp_path):
    one, two = frame(1, 10), frame(2, 20, recipients=[key_pair()[1]])
    (tmp_path / "all.mcib").write_bytes(one + two)
    first, second = Reader(tmp_path).index()
    assert (first.path, first.at, first.size, first.sealed) == (tmp_path / "all.mcib", 0, len(one), False)
    assert (second.at, second.size, second.sealed) == (len(one), len(two), True)
    assert (second.device, second.sequence, second.participant) == ("d0" * 16, 2, "aa" * 16)


def test_batches_of_version_0_are_read_beside_others(tmp_path):
    store(tmp_path, frame_v0(2), frame(1, 10), frame(3, 30))
    rows = list(Reader(tmp_path).rows())
    assert [(row.header.sequence, row.index, row.event) for row in rows[1:4]] == [
        (2, 0, Move(0, 7, 8)),
        (2, 1, KeyPress(2 * MS, "letter")),
        (2, 2, Move(5 * MS, 8, 6)),
    ]
    assert (rows[0].header.sequence, rows[4].header.sequence) == (1, 3)
    assert rows[1].wall_ns == WALL_NS
    assert rows[1].metadata.coverage.dropped == {"buffer_full": 2}


# --- order --------------------------------------------------------------------------------------------------


def test_device_then_sequence_whatever_the_clocks_and_files_say(tmp_path):
    store(
        tmp_path,
        frame(3, 15, 60, device="d1", start_ms=-3_600_000),
        frame(1, 500, device="d1", boot="ff", start_ms=86_400_000),
        frame(2, 10, 20, device="d1"),
        frame(10, 1, device="d1", boot="aa"),
        frame(4, 800, device="d0", start_ms=99_000_000),
    )
    assert _seen(Reader(tmp_path)) == [(4, 800), (1, 500), (2, 10), (2, 20), (3, 15), (3, 60), (10, 1)]


def test_batches_that_overlap_are_not_merged(tmp_path):
    store(tmp_path, frame(2, 10, 20, 55), frame(1, 0, 30, 50))
    assert [ms for _, ms in _seen(Reader(tmp_path))] == [0, 30, 50, 10, 20, 55]


def test_two_batches_of_the_same_number_are_read_in_order_of_their_ids(tmp_path):
    ids = ["c" * 32, "a" * 32, "b" * 32]
    store(tmp_path, *(encode(moves(1, n, batch_id=id_)) for n, id_ in enumerate(ids)))
    assert [row.header.batch_id[0] for row in Reader(tmp_path).rows()] == ["a", "b", "c"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["d0", "d1"]),
            st.sampled_from(["aa", "bb"]),
            st.lists(st.integers(-50, 200), max_size=8).map(sorted),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_is_that_of_sorting_everything(tmp_path_factory, batches, shuffle):
    frames, expected = [], []
    for number, (device, boot, times) in enumerate(batches, 1):
        frames.append(frame(number, *times, device=device, boot=boot))
        expected += [((device, number, index), (number, ms)) for index, ms in enumerate(times)]
    shuffle.shuffle(frames)
    folder = store(tmp_path_factory.mktemp("store"), *frames)
    assert _seen(Reader(folder)) == [row for _, row in sorted(expected)]


# --- what cannot be read ------------------------------------------------------------------------------------

FOREIGN = {
    "empty": (b"", "ends after 0 bytes", 0),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "does not begin with MCIB", 0),
    "cut": (sample()[:-9], "ends after", len(sample()) - 9),
    "flipped": (sample()[:80] + bytes([sample()[80] ^ 4]) + sample()[81:], "checksum", len(sample()) - 4),
    "newer": (sample()[:4] + b"\2" + sample()[5:], "format version 2; this mcilib reads up to 1: upgrade", 4),
    "sound but for its header": (with_header(sample(), sequence=-1), "sequence", 14),
    "sound but for its columns": (with_columns(sample(), k=b"\x00"), "payload: ", None),
}


@pytest.mark.parametrize(("data", "reason", "offset"), FOREIGN.values(), ids=FOREIGN.keys())
def test_damage_is_reported_once_and_the_rest_is_read(tmp_path, data, reason, offset):
    store(tmp_path, frame(1, 10), data, frame(2, 20))
    told: list[tuple[Path, BatchFormatError]] = []
    reader = Reader(tmp_path, on_damaged=lambda path, error: told.append((path, error)))
    assert [h.sequence for h in reader.headers() if h.batch_id != "0b" * 16] == [1, 2]
    for _ in range(2):
        assert _seen(reader) == [(1, 10), (2, 20)]
    assert len(list(reader.batches())) == 2
    assert reader.batch_ids() == [f"{1:030x}d0", f"{2:030x}d0"]
    assert [path for path, _ in told] == [tmp_path / "1.mcib"]
    assert reason in told[0][1].reason
    assert offset is None or told[0][1].offset == offset
    assert reader.damaged == told
    assert reader.sealed == []


def test_offsets_count_from_the_start_of_the_file(tmp_path):
    one, bad, two = frame(1, 10), bytearray(frame(9, 90)), frame(2, 20)
    bad[-1] ^= 1
    wrong = with_columns(sample(), k=b"\x00")
    path = tmp_path / "all.mcib"
    path.write_bytes(one + bad + two + wrong + b"tail")
    reader = Reader(path)
    assert _seen(reader) == [(1, 10), (2, 20)]
    until = len(one) + len(bad) + len(two)
    assert [(error.reason[:9], error.offset) for _, error in reader.damaged] == [
        ("the check", len(one) + len(bad) - 4),
        ("it ends a", until + len(wrong)),
        ("payload: ", until + len(wrong) - 4 - len(_payload(wrong))),
    ]


def _payload(data: bytes) -> bytes:
    return data[14 + int.from_bytes(data[6:10], "big") : -4]


def test_a_sound_copy_stands_in_for_a_damaged_one(tmp_path):
    torn = frame(1, 10)[:-1]
    store(tmp_path, torn, frame(1, 10))
    reader = Reader(tmp_path)
    assert _seen(reader) == [(1, 10)]
    assert len(reader.damaged) == 1


def test_and_for_one_that_is_damaged_inside_or_sealed_to_others(tmp_path):
    wrong = with_columns(frame(1, 10), k=b"\0")
    sealed = frame(2, 20, recipients=[key_pair()[1]])
    store(tmp_path, wrong, frame(1, 10), frame(1, 10)[:-1], sealed, frame(2, 20), frame(2, 20))
    reader = Reader(tmp_path)
    for _ in range(2):
        assert _seen(reader) == [(1, 10), (2, 20)]
        assert [header.sequence for header in reader.headers()] == [1, 2]
    assert [path.name for path, _ in reader.damaged] == ["2.mcib", "0.mcib"]
    assert reader.sealed == [], "it was read from another place"


def test_copies_of_which_none_can_be_read(tmp_path):
    wrong = with_columns(frame(1, 10), k=b"\0")
    sealed = frame(2, 20, recipients=[key_pair()[1]])
    another = frame(4, 40, recipients=[key_pair()[1]])
    store(tmp_path, wrong, wrong, sealed, sealed, frame(3, 30), another)
    reader = Reader(tmp_path)
    for _ in range(2):
        assert _seen(reader) == [(3, 30)]
    assert [path.name for path, _ in reader.damaged] == ["0.mcib", "1.mcib"]
    assert [path.name for path, _ in reader.sealed] == ["2.mcib", "3.mcib", "5.mcib"]
    assert reader.batch_ids() == [f"{3:030x}d0"]


def test_a_frame_that_borrows_an_id_is_no_copy(tmp_path):
    id_ = f"{1:030x}d0"
    wrong = with_columns(frame(1, 10), k=b"\0")
    store(tmp_path, wrong, frame(7, 70, batch_id=id_), frame(1, 11, device="d1", batch_id=id_))
    assert _seen(Reader(tmp_path)) == []


def test_a_batch_that_goes_away_is_reported(tmp_path):
    store(tmp_path, frame(1, 10), frame(2, 20), frame(3, 30))
    reader = Reader(tmp_path)
    assert len(list(reader.headers())) == 3
    (tmp_path / "0.mcib").unlink()
    (tmp_path / "1.mcib").write_bytes(b"")
    assert _seen(reader) == [(3, 30)]
    assert [path.name for path, _ in reader.damaged] == ["0.mcib", "1.mcib"]
    assert "can no longer be read" in reader.damaged[0][1].reason
    assert [header.sequence for header in reader.headers()] == [3]
    assert len(reader.damaged) == 2


def test_a_file_that_cannot_be_opened_is_reported(tmp_path, monkeypatch):
    store(tmp_path, frame(1, 10), frame(2, 20))
    real = Path.open

    def refuse(path: Path, *args, **options):
        if path.name == "0.mcib":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    reader = Reader(tmp_path)
    assert _seen(reader) == [(2, 20)]
    assert [error.reason for _, error in reader.damaged] == ["it cannot be read (Permission denied)"]


def test_random_damage_never_stops_the_reader(tmp_path):
    rng, sound = random.Random(5), sample()
    for n in range(300):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / f"{n}.mcib").write_bytes(bytes(damaged[: rng.randint(0, len(damaged))]))
    store(tmp_path, frame(1, 10), names="sound{}.mcib")
    assert _seen(Reader(tmp_path)) == [(1, 10)]


# --- sealed -------------------------------------------------------------------------------------------------


def test_sealed_batches_are_opened_by_any_fitting_identity(tmp_path):
    (operator, to_operator), (participant, to_participant) = key_pair(1), key_pair(2)
    store(tmp_path, frame(1, 10, recipients=[to_operator, to_participant]), frame(2, 20))
    for identities in ([operator], [key_pair(3)[0], participant]):
        reader = Reader(tmp_path, identities=identities)
        assert _seen(reader) == [(1, 10), (2, 20)]
        assert reader.sealed == []


@pytest.mark.parametrize("identities", [[], [key_pair(3)[0]]], ids=["no key", "another key"])
def test_what_nobody_opens_is_said_once_and_the_rest_is_read(tmp_path, identities):
    told: list[object] = []
    store(tmp_path, frame(1, 10), frame(2, 20, recipients=[key_pair(1)[1]]), frame(3, 30))
    reader = Reader(tmp_path, identities=identities, on_damaged=lambda *about: told.append(about))
    for _ in range(2):
        assert _seen(reader) == [(1, 10), (3, 30)]
    ((path, error),) = reader.sealed
    assert path == tmp_path / "1.mcib"
    assert "sealed" in error.problem
    assert (told, reader.damaged) == ([], [])
    assert [h.sequence for h in reader.headers()] == [1, 2, 3], "headers need no key"
    assert reader.batch_ids() == [f"{1:030x}d0", f"{3:030x}d0"]


def test_a_sealed_batch_that_was_tampered_with_is_damaged(tmp_path):
    secret, public = key_pair(1)
    data = frame(1, 10, recipients=[public])
    store(tmp_path, with_header(data, sequence=7), frame(2, 20))
    reader = Reader(tmp_path, identities=[secret])
    assert _seen(reader) == [(2, 20)]
    assert "belongs to another header" in reader.damaged[0][1].reason
    assert reader.sealed == []


# --- one batch at a time ------------------------------------------------------------------------------------


def test_batches_are_decoded_as_they_are_asked_for(tmp_path, monkeypatch):
    store(tmp_path, *(frame(n, n) for n in range(1, 10)))
    decoded = []

    def counting(data: bytes, identities=()):
        decoded.append(data)
        return decode(data, identities)

    monkeypatch.setattr(reader_events, "decode", counting)
    rows = Reader(tmp_path).rows()
    for n in range(3):
        next(rows)
        assert decoded == [(tmp_path / f"{k}.mcib").read_bytes() for k in range(n + 1)]


def test_a_gap_that_began_long_before_is_first_in_its_batch(tmp_path):
    late = holding(3, [KeyPress(900 * MS, "tab"), Gap(5 * MS, 600 * 10**9, "keyboard")])
    store(tmp_path, frame(1, 0, 10), frame(2, 500), encode(late))
    assert [event.kind for event in Reader(tmp_path).events()] == ["move", "move", "move", "gap", "key_press"]
