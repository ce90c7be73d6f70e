"""`mcilib export` on real stores, sound and damaged."""

from __future__ import annotations

import contextlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from commands import EVENTS, Run, record, refused

from mcilib.events import Scroll
from mcilib.reader.export import appearing


@pytest.fixture
def store(granted: Path) -> Path:
    """Three batches of three events each."""
    record(granted, 3)
    return granted / "spool"


def files(store: Path) -> list[Path]:
    return sorted(store.rglob("*.mcib"))


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def another_version(path: Path) -> None:
    """What a later format will look like: the same prefix, another version, a checksum that fits."""
    data = bytearray(path.read_bytes()[:-4])
    data[4] = 9
    path.write_bytes(bytes(data) + struct.pack(">I", zlib.crc32(data)))


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_jsonl_on_stdout_is_the_default(store: Path, mcilib: Run) -> None:
    done = mcilib("export", store)
    assert done.returncode == 0
    found = lines(done.stdout)
    assert [row["kind"] for row in found] == [event.kind for event in EVENTS] * 3
    assert [row["seq"] for row in found] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert done.stderr == "Exported 9 rows from 3 batches (6 move, 3 key_press).\n"
    assert mcilib("export", store, "--format", "jsonl").stdout == done.stdout


def test_jsonl_into_a_file(store: Path, mcilib: Run, here: Path) -> None:
    done = mcilib("export", store, "-o", "out.jsonl", "--json")
    assert done.returncode == 0
    assert (here / "out.jsonl").read_text() == mcilib("export", store).stdout
    summary = json.loads(done.stdout)
    assert summary == {
        "rows": 9,
        "counts": {"move": 6, "key_press": 3},
        "batches": 3,
        "damaged": [],
        "sealed": [],
    }


def test_the_summary_as_json_without_a_file_is_on_stderr(store: Path, mcilib: Run) -> None:
    done = mcilib("export", store, "--json")
    assert json.loads(done.stderr)["rows"] == len(lines(done.stdout)) == 9


def test_parquet(store: Path, mcilib: Run, here: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert mcilib("export", store, "--format", "parquet", "-o", "out.parquet").returncode == 0
    table = parquet.read_table(here / "out.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if v is not None} for row in table] == lines(
        mcilib("export", store).stdout
    )
    refused(mcilib("export", store, "--format", "parquet"), 2, "Name a file with -o")


def test_trajectory(store: Path, mcilib: Run, here: Path) -> None:
    done = mcilib("export", store, "--format", "trajectory")
    assert done.returncode == 0
    kinds = [action["kind"] for action in lines(done.stdout)]
    assert kinds[0] == "break"
    assert {"motion", "key_run"} <= set(kinds)
    assert done.stderr.startswith(f"Exported {len(kinds)} actions from 3 batches (")
    assert mcilib("export", store, "--format", "trajectory", "-o", "out.jsonl").returncode == 0
    assert (here / "out.jsonl").read_text() == done.stdout


def test_counts_are_events_of_the_system(granted: Path, mcilib: Run) -> None:
    record(granted, events=(Scroll(1_000_000, 1, 2, 0, 1), Scroll(2_000_000, 1, 2, 0, 1)))
    assert mcilib("export", granted / "spool").stderr == "Exported 1 row from 1 batch (2 scroll).\n"


def test_one_batch_by_its_file(store: Path, mcilib: Run) -> None:
    assert len(lines(mcilib("export", files(store)[0]).stdout)) == 3


def test_an_empty_store_is_fine(here: Path, mcilib: Run) -> None:
    (here / "empty").mkdir()
    done = mcilib("export", "empty")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "Exported 0 rows from 0 batches.\n")


@pytest.mark.parametrize(("how", "words"), [(damage, ""), (another_version, "version 9")])
def test_what_cannot_be_read_is_named_and_the_rest_is_exported(
    how: Any, words: str, store: Path, mcilib: Run
) -> None:
    bad = files(store)[1]
    how(bad)
    before = bad.read_bytes()
    done = mcilib("export", store)
    assert done.returncode == 7
    assert {row["seq"] for row in lines(done.stdout)} == {1, 3}
    first, summary, last = done.stderr.splitlines()
    assert first.startswith(f"mcilib: {bad} is left out: ")
    assert words in first
    assert summary == "Exported 6 rows from 2 batches (4 move, 2 key_press)."
    assert last.startswith("mcilib: 1 damaged file left out, the rest was exported.")
    assert bad.read_bytes() == before
    (entry,) = json.loads(mcilib("export", store, "--json", "-o", "out").stdout)["damaged"]
    assert entry["file"] == str(bad)
    assert words in entry["reason"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["none"], 6, ["nothing at none"]),
        (
            ["store", "-o", "none/out"],
            6,
            ["none/out cannot be written (No such file or directory)", "another place"],
        ),
        (["store", "-o", "store"], 6, ["store cannot be written (it is no ordinary file)"]),
        (["store", "-o", "/dev/null"], 6, ["/dev/null cannot be written (it is no ordinary file)"]),
        (
            ["store", "--format", "parquet", "-o", "/dev/null"],
            6,
            ["/dev/null cannot be written (it is no ordinary file)"],
        ),
        (["store", "--format", "parquet", "-o", "none/out"], 6, ["none/out cannot be written"]),
    ],
)
def test_bad_input(args: list[str], code: int, words: list[str], here: Path, mcilib: Run) -> None:
    (here / "store").mkdir()
    refused(mcilib("export", *args), code, *words)
    assert Path("/dev/null").is_char_device()


def test_the_output_is_whole_or_as_it_was(here: Path) -> None:
    target = here / "out"
    target.write_text("before")
    with contextlib.suppress(ZeroDivisionError), appearing(target) as path:
        path.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "before"
    with appearing(target) as path:
        path.write_text("all")
        assert target.read_text() == "before"
    assert target.read_text() == "all"
    assert [p.name for p in here.iterdir()] == ["out"]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_a_person_did_is_for_the_owner_of_the_file_only(
    form: str, store: Path, mcilib: Run, here: Path
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    for _ in ("a new file", "one that everybody could read"):
        done = mcilib("export", store, "--format", form, "-o", "out", umask=0o022)
        assert (done.returncode, (here / "out").stat().st_mode & 0o777) == (0, 0o600)
        (here / "out").chmod(0o644)
