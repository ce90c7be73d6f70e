"""The reader: what it finds, in which order, with how much memory, and what it says about damage."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from batches import MS, WALL_NS, batch, sample, with_columns
from hypothesis import given, settings
from hypothesis import strategies as st

import mcilib.reader.events as reader_events
from mcilib.clock import ClockAnchor
from mcilib.errors import BatchFormatError, StoreError
from mcilib.events import Gap, KeyPress, Move
from mcilib.format.batch import decode, encode
from mcilib.reader import Reader


def _frame(
    number: int, *times_ms: int, device: str = "d0", boot: str = "b0", start_ms: int = 0, **fields
) -> bytes:
    """Batch `number` with a move at each time; `start_ms` shifts the wall clock of its anchor."""
    anchor = ClockAnchor(0, WALL_NS + start_ms * MS)
    moves = (Move(t * MS, number, t) for t in times_ms)
    ids = {"batch_id": f"{number:032x}", "device": device * 16, "boot": boot * 8}
    return encode(batch(*moves, **{**ids, "anchor": anchor, "sequence": number, **fields}))


def _store(folder: Path, *frames: bytes, names: str = "{}.mcib") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        (folder / names.format(number)).write_bytes(frame)
    return folder


def _seen(reader: Reader) -> list[tuple[int, int]]:
    """(batch number, ms) of each row."""
    rows = []
    for row in reader.rows():
        assert isinstance(row.event, Move)
        rows.append((int(row.event.x), int(row.event.y)))
    return rows


# --- what is found ------------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_file_of_several_frames(tmp_path):
    one, two = _frame(1, 10), _frame(2, 20)
    folder = _store(tmp_path / "store", one, two)
    several = tmp_path / "all.bin"
    several.write_bytes(one + two)
    assert (
        _seen(Reader(folder)) == _seen(Reader(several)) == _seen(Reader(str(several))) == [(1, 10), (2, 20)]
    )
    assert _seen(Reader(folder / "0.mcib")) == [(1, 10)]


def test_any_depth_but_nothing_hidden_temporary_or_foreign(tmp_path):
    _store(tmp_path / "2025/06/15", _frame(1, 10))
    _store(tmp_path / "ready", _frame(2, 20))
    for skipped in ("tmp", "bad", ".trash", "ready/tmp"):
        _store(tmp_path / skipped, _frame(3, 30))
    _store(tmp_path, _frame(4, 40), names=".hidden{}.mcib")
    _store(tmp_path, _frame(5, 50), names="x{}.mcib.tmp")
    (tmp_path / "owner.lock").write_text("1")
    (tmp_path / "state.json").write_text("{}")
    reader = Reader(tmp_path)
    assert _seen(reader) == [(1, 10), (2, 20)]
    assert reader.damaged == []


def test_a_folder_that_is_asked_for_is_read_whatever_its_name(tmp_path):
    assert _seen(Reader(_store(tmp_path / "bad", _frame(1, 10)))) == [(1, 10)]


def test_an_empty_store_is_read_as_nothing(tmp_path):
    assert list(Reader(tmp_path).rows()) == []


def test_nothing_there(tmp_path):
    with pytest.raises(StoreError, match="There is nothing at"):
        Reader(tmp_path / "missing")
    with pytest.raises(StoreError, match="cannot be read"):
        Reader(_store(tmp_path, _frame(1, 1)) / "0.mcib" / "below")


def test_unreadable(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuse)  # tests may run as root, whom no mode keeps out
    with pytest.raises(StoreError, match="Permission denied"):
        Reader(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mcib")
    with pytest.raises(StoreError, match="neither a file nor a folder"):
        Reader(tmp_path / "pipe.mcib")
    reader = Reader(tmp_path)
    assert list(reader.rows()) == []
    assert [error.reason for _, error in reader.damaged] == ["not an ordinary file"]


def test_a_batch_in_two_places_is_read_once(tmp_path):
    _store(tmp_path / "a", _frame(1, 10), _frame(1, 10))
    _store(tmp_path / "b", _frame(1, 10) + _frame(2, 20) + _frame(2, 20))
    reader = Reader(tmp_path)
    assert _seen(reader) == [(1, 10), (2, 20)]
    assert [h.sequence for h in reader.headers()] == [1, 2]
    assert reader.batch_ids() == [f"{1:032x}", f"{2:032x}"]


def test_rows_know_where_they_come_from(tmp_path):
    folder = _store(tmp_path, _frame(7, 10, 20, start_ms=3))
    first, second = Reader(folder).rows()
    assert (first.index, second.index) == (0, 1)
    assert first.header == next(Reader(folder).headers())
    assert second.wall_ns == WALL_NS + 23 * MS
    assert list(Reader(folder).events()) == [first.event, second.event]
    assert [b.events for b in Reader(folder).batches()] == [(first.event, second.event)]


# --- order --------------------------------------------------------------------------------------------------


def test_overlapping_batches_are_merged(tmp_path):
    _store(tmp_path, _frame(3, 15, 60), _frame(1, 0, 30, 50), _frame(2, 10, 20, 55), _frame(4, 70))
    assert [ms for _, ms in _seen(Reader(tmp_path))] == [0, 10, 15, 20, 30, 50, 55, 60, 70]


def test_the_same_tick_is_ordered_by_sequence_then_place(tmp_path):
    _store(tmp_path, _frame(2, 10, 20, 20), _frame(1, 20, 20), _frame(3, 20))
    assert [(number, ms) for number, ms in _seen(Reader(tmp_path)) if ms == 20] == [
        (1, 20), (1, 20), (2, 20), (2, 20), (3, 20),
    ]  # fmt: skip
    assert [(r.header.sequence, r.index) for r in Reader(tmp_path).rows()][1:] == [
        (1, 0), (1, 1), (2, 1), (2, 2), (3, 0),
    ]  # fmt: skip


def test_devices_then_boots_by_the_wall_time_of_their_first_batch(tmp_path):
    _store(
        tmp_path,
        _frame(1, 500, device="d1", boot="aa", start_ms=1_000),  # began later on the wall clock
        _frame(2, 900, device="d1", boot="ff", start_ms=0),
        _frame(3, 100, device="d1", boot="aa", start_ms=9_000_000),  # first of its boot, after a step
        _frame(4, 800, device="d0", boot="cc", start_ms=99_000_000),
    )
    assert _seen(Reader(tmp_path)) == [(4, 800), (2, 900), (3, 100), (1, 500)]


def test_a_wall_step_does_not_change_the_order(tmp_path):
    _store(tmp_path, _frame(2, 20, start_ms=-3_600_000), _frame(1, 10), _frame(3, 30, start_ms=86_400_000))
    assert _seen(Reader(tmp_path)) == [(1, 10), (2, 20), (3, 30)]


def test_foreign_batches_out_of_order_are_put_in_order(tmp_path):
    _store(tmp_path, _frame(1, 30, 10, 20), _frame(2, 25, 15))
    assert [ms for _, ms in _seen(Reader(tmp_path))] == [10, 15, 20, 25, 30]
    assert [row.index for row in Reader(tmp_path).rows()] == [1, 1, 2, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["d0", "d1"]),
            st.sampled_from(["aa", "bb"]),
            st.lists(st.integers(-50, 200), max_size=8),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_is_that_of_sorting_everything(tmp_path_factory, batches, shuffle):
    wall = {"aa": 60, "bb": 0}
    numbered = list(enumerate(batches, 1))
    begins: dict[tuple[str, str], int] = {}
    for _, (device, boot, times) in numbered:
        place = device, boot
        begins[place] = min([*times, *([] if times else [0]), begins.get(place, 10**9)])
    expected = sorted(
        ((device, begins[device, boot] + wall[boot], boot, ms, number, index), (number, ms))
        for number, (device, boot, times) in numbered
        for index, ms in enumerate(times)
    )
    frames = [
        _frame(number, *times, device=device, boot=boot, start_ms=wall[boot])
        for number, (device, boot, times) in numbered
    ]
    shuffle.shuffle(frames)
    folder = _store(tmp_path_factory.mktemp("store"), *frames)
    assert _seen(Reader(folder)) == [row for _, row in expected]


# --- memory -------------------------------------------------------------------------------------------------


def _most_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most batches that were decoded and not yet read to their end, while rows were taken one by one."""
    rows_left: dict[str, int] = {}
    most = 0

    def counting(data: bytes):
        nonlocal most
        read = decode(data)
        rows_left[read.header.batch_id] = read.header.rows
        most = max(most, sum(left > 0 for left in rows_left.values()))
        return read

    monkeypatch.setattr(reader_events, "decode", counting)
    for row in Reader(folder).rows():
        rows_left[row.header.batch_id] -= 1
    assert not any(rows_left.values())
    return most


def test_batches_that_follow_each_other_are_held_one_at_a_time(tmp_path, monkeypatch):
    _store(tmp_path, *(_frame(n, n * 100, n * 100 + 50) for n in range(1, 40)))
    assert _most_held(tmp_path, monkeypatch) == 1


def test_only_batches_that_overlap_are_held(tmp_path, monkeypatch):
    _store(tmp_path, *(_frame(n, n * 100, n * 100 + 250) for n in range(1, 40)))
    assert _most_held(tmp_path, monkeypatch) == 3


def test_boots_and_devices_are_not_held_together(tmp_path, monkeypatch):
    _store(tmp_path, *(_frame(n, 0, 1_000, device=f"d{n % 5}", boot=f"b{n % 3}") for n in range(15)))
    assert _most_held(tmp_path, monkeypatch) == 1


def test_batches_are_decoded_as_they_are_asked_for(tmp_path, monkeypatch):
    _store(tmp_path, *(_frame(n, n) for n in range(1, 10)))
    decoded = []

    def counting(data: bytes):
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(reader_events, "decode", counting)
    next(Reader(tmp_path).batches())
    assert decoded == [(tmp_path / "0.mcib").read_bytes()]


# --- damage -------------------------------------------------------------------------------------------------

FOREIGN = {
    "empty": (b"", "ends after 0 bytes"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "does not begin with MCIB"),
    "cut": (sample()[:-9], "ends after"),
    "flipped": (sample()[:80] + bytes([sample()[80] ^ 4]) + sample()[81:], "checksum"),
    "newer": (sample()[:4] + b"\2" + sample()[5:], "format version 2; this mcilib reads 0: upgrade"),
    "sound but for its columns": (with_columns(sample(), count=[0, 0]), "'count'"),
}


@pytest.mark.parametrize(("data", "reason"), FOREIGN.values(), ids=FOREIGN.keys())
def test_damage_is_reported_once_and_the_rest_is_read(tmp_path, data, reason):
    _store(tmp_path, _frame(1, 10), data, _frame(2, 20))
    told: list[tuple[Path, BatchFormatError]] = []
    reader = Reader(tmp_path, on_damaged=lambda path, error: told.append((path, error)))
    assert [h.sequence for h in reader.headers() if h.sequence > 0 and h.batch_id != "0b" * 16] == [1, 2]
    for _ in range(2):
        assert _seen(reader) == [(1, 10), (2, 20)]
    assert len(list(reader.batches())) == 2
    assert reader.batch_ids() == [f"{1:032x}", f"{2:032x}"]
    assert [path for path, _ in told] == [tmp_path / "1.mcib"]
    assert reason in told[0][1].reason
    assert reader.damaged == told


def test_damage_within_a_file_of_several_frames(tmp_path):
    one, bad, two = _frame(1, 10), bytearray(_frame(9, 90)), _frame(2, 20)
    bad[-1] ^= 1
    path = tmp_path / "all.mcib"
    path.write_bytes(one + bad + two + b"tail")
    reader = Reader(path)
    assert _seen(reader) == [(1, 10), (2, 20)]
    assert [(error.reason[:12], error.offset) for _, error in reader.damaged] == [
        ("the checksum", len(one) + len(bad) - 4),
        ("it ends afte", len(one) + len(bad) + len(two)),
    ]


def test_a_sound_copy_stands_in_for_a_damaged_one(tmp_path):
    torn = _frame(1, 10)[:-1]
    _store(tmp_path, torn, _frame(1, 10))
    reader = Reader(tmp_path)
    assert _seen(reader) == [(1, 10)]
    assert len(reader.damaged) == 1


def test_a_batch_that_goes_away_is_reported(tmp_path):
    _store(tmp_path, _frame(1, 10), _frame(2, 20), _frame(3, 30))
    reader = Reader(tmp_path)
    assert len(list(reader.headers())) == 3
    (tmp_path / "0.mcib").unlink()
    (tmp_path / "1.mcib").write_bytes(b"")
    assert _seen(reader) == [(3, 30)]
    assert [path.name for path, _ in reader.damaged] == ["0.mcib", "1.mcib"]
    assert "can no longer be read" in reader.damaged[0][1].reason


def test_a_file_that_cannot_be_opened_is_reported(tmp_path, monkeypatch):
    _store(tmp_path, _frame(1, 10), _frame(2, 20))
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
    _store(tmp_path, _frame(1, 10), names="sound{}.mcib")
    assert _seen(Reader(tmp_path)) == [(1, 10)]


def test_a_gap_that_began_long_before_its_batch_is_in_its_place(tmp_path):
    gap = Gap(5 * MS, 600 * 10**9, "keyboard")
    where = {"device": "d0" * 16, "boot": "b0" * 8, "anchor": ClockAnchor(0, WALL_NS)}
    late = encode(batch(gap, KeyPress(900 * MS, "tab"), batch_id="99" * 16, sequence=9, **where))
    _store(tmp_path, _frame(1, 0, 10), _frame(2, 500), late)
    assert [event.kind for event in Reader(tmp_path).events()] == ["move", "gap", "move", "move", "key_press"]
