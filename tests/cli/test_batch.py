"""`mcilib batch show` and `mcilib batch list` on real files: sound, sealed, damaged, foreign."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import pytest
from batches import MS, batch, columns_of, one_of_each, sample, with_columns
from commands import Run, record, refused
from stores import frame, frame_v0, key_pair, store

from mcilib import limits
from mcilib.cli._anatomy import COLUMNS
from mcilib.cli._program import make_parser
from mcilib.events import Focus, Move, Scroll
from mcilib.format import payload
from mcilib.format.batch import Coverage, encode

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(here: Path) -> Path:
    """One batch with every kind of row, a plan and its reasons."""
    path = here / "one.mcib"
    path.write_bytes(
        encode(
            batch(
                *one_of_each(),
                sequence=12_345,
                levers={"motion": "thinned", "tolerance_px": 2.5, "upload": False, "age_s": None},
                reasons=("on battery", "the network is metered"),
                backends={"pointer": "xrecord"},
                coverage=Coverage(
                    coalesced=5, excluded=4, thinned=1_000, not_collected_ns=90 * 10**9,
                    dropped={"buffer_full": 3, "spool": 2_000},
                ),
            )
        )
    )  # fmt: skip
    return path


@pytest.fixture
def identity(here: Path) -> Path:
    path = here / "operator.key"
    path.write_text(key_pair(1)[0] + "\n")
    return path


def block(text: str, name: str) -> str:
    """What stands beside `name:`."""
    match = re.search(rf"^{name}: +(.*)$", text, re.MULTILINE)
    assert match is not None, text
    return match[1]


# --- show -----------------------------------------------------------------------------------------------------


def test_everything_that_is_in_a_batch(file: Path, mcilib: Run) -> None:
    done = mcilib("batch", "show", file)
    assert (done.returncode, done.stderr) == (0, "")
    size = file.stat().st_size
    wanted = {
        "batch": "0b" * 16, "device": "de" * 16, "participant": "aa" * 16, "grant": "9a" * 32,
        "sequence": "12,345", "sealed": "no, it can be read by anybody", "format": "version 1",
        "anchor": "2025-06-15 15:06:40.000 UTC = 5.000000 s monotonic", "boot": "b0" * 8, "tick": "1 ms",
        "positions": "to 1 px", "written by": "mcilib/0.1.0 on linux", "clocks": "pointer=trace", "backends": "pointer=xrecord",
        "plan": "motion=thinned, tolerance_px=2.5, upload=no, age_s=-", "because": "on battery",
        "rows": "17 (3 display, 1 layout, 2 focus, 3 move, 1 press, 1 release, 2 scroll, 2 key_press, "
                "1 key_release, 1 gap)",
        "events": "3,033 seen, 21 kept", "left out": "5 coalesced, 1,000 thinned, 4 excluded",
        "dropped": "3 buffer_full, 2,000 spool", "not collected": "1 min 30.0 s",
        "first row": "2025-06-15 15:06:40.000 UTC", "last row": "112 ms later",
    }  # fmt: skip
    assert {name: block(done.stdout, name) for name in wanted} == wanted
    assert "because:       the network is metered\n" in done.stdout
    header, payload = map(int, re.findall(r"header (\d+), payload (\d+)", block(done.stdout, "frame"))[0])
    assert block(done.stdout, "frame").startswith(f"{size} bytes: ")
    assert 14 + header + payload + 4 == size


def test_the_first_rows(file: Path, mcilib: Run) -> None:
    text = mcilib("batch", "show", file).stdout
    rows = text.split("First 10 rows, times in seconds from the first:\n")[1].split("\n\n")[0].splitlines()
    assert rows[0] == "row   time  kind"
    assert rows[3] == "  2  0.014  layout   layout=de(nodeadkeys)"
    assert (
        rows[4]
        == '  3  0.021  focus    x=20, y=30, width=640, height=480, app=editor, title="notes \\u2014 draft"'
    ) or '"notes — draft"' in rows[4]
    assert rows[10] == "  9  0.063  scroll   x=-3, y=401, dx=0.25, dy=0, count=1, synthetic=yes"
    assert len(rows) == 11
    all_of_them = mcilib("batch", "show", file, "--rows", "1000").stdout
    assert "First 17 rows" in all_of_them
    assert re.search(r"^ 13  0\.091  key_press +key=-$", all_of_them, re.MULTILINE)
    assert re.search(r"^ 15  0\.105  display .* height=0, ", all_of_them, re.MULTILINE)
    assert "First" not in mcilib("batch", "show", file, "--rows", "0").stdout


def test_bytes_by_column(file: Path, mcilib: Run) -> None:
    text = mcilib("batch", "show", file).stdout.split("Columns: ")[1]
    found = json.loads(mcilib("batch", "show", file, "--json").stdout)["frames"][0]
    columns = found["columns"]
    assert [column["name"] for column in columns] == list(columns_of(file.read_bytes()))
    assert sum(column["bytes"] for column in columns) + 3 == found["uncompressed_bytes"], "map of over 15"
    assert found["compressed_bytes"] == found["payload_bytes"], "the level is the default one"
    assert text.startswith(
        f"{found['uncompressed_bytes']:,} bytes of MessagePack, {found['payload_bytes']} c"
    )
    lines = text.splitlines()[2:]
    assert [line.split()[:3] for line in lines] == [
        [column["name"], f"{column['bytes']:,}", f"{column['share_bytes']:,}"] for column in columns
    ]
    assert all(line.endswith(COLUMNS[line.split()[0]]) for line in lines)


def test_a_columns_share_is_what_it_would_save(here: Path, mcilib: Run) -> None:
    """Titles that repeat take much before compression and little after it."""
    titles = [Focus((5_000 + n) * MS, None, f"{n % 2}" * 500) for n in range(30)]
    (here / "titles.mcib").write_bytes(encode(batch(*titles)))
    found = json.loads(mcilib("batch", "show", "titles.mcib", "--json").stdout)["frames"][0]
    column = next(column for column in found["columns"] if column["name"] == "T")
    assert column["bytes"] > 15_000
    columns = columns_of((here / "titles.mcib").read_bytes())
    del columns["T"]
    without = len(payload.compress(payload.pack(columns), limits.ZSTD_LEVEL))
    assert column["share_bytes"] == found["payload_bytes"] - without < 100


def test_every_column_of_the_format_has_words() -> None:
    spec = (ROOT / "docs/spec/batch-format.md").read_text(encoding="utf-8")
    named = set(re.findall(r"in the order `([^`]*)`", spec)[0].split())
    assert named == set(COLUMNS)
    assert all(COLUMNS.values())


def test_as_json(file: Path, mcilib: Run) -> None:
    done = mcilib("batch", "show", file, "--json", "--rows", "2")
    found = json.loads(done.stdout)
    assert (done.returncode, found["file"], found["damaged"]) == (0, str(file), [])
    (shown,) = found["frames"]
    assert shown["header"] == {
        "batch": "0b" * 16, "device": "de" * 16, "sequence": 12_345, "participant": "aa" * 16,
        "grant": "9a" * 32, "key_ids": [],
    }  # fmt: skip
    assert (shown["offset"], shown["version"], shown["sealed"], shown["bytes"]) == (
        0,
        1,
        False,
        file.stat().st_size,
    )
    assert shown["metadata"]["clocks"] == {"pointer": "trace"}
    assert shown["metadata"]["backends"] == {"pointer": "xrecord"}
    assert shown["metadata"]["levers"]["tolerance_px"] == 2.5
    assert shown["metadata"]["reasons"] == ["on battery", "the network is metered"]
    assert shown["metadata"]["wall_ns"] == shown["first_ns"] == 1_750_000_000_000_000_000
    assert shown["coverage"] == {
        "seen": 3_033, "kept": 21, "coalesced": 5, "thinned": 1_000, "excluded": 4,
        "dropped": {"buffer_full": 3, "spool": 2_000}, "not_collected_ns": 90 * 10**9,
    }  # fmt: skip
    assert (shown["rows"], shown["kinds"]["move"], len(shown["first_rows"])) == (17, 3, 2)
    assert shown["first_rows"][1]["scale"] == 1.25


def test_a_batch_without_rows(here: Path, mcilib: Run) -> None:
    (here / "none.mcib").write_bytes(encode(batch(coverage=Coverage(), clocks={})))
    done = mcilib("batch", "show", "none.mcib")
    assert done.returncode == 0
    for name, words in (("rows", "0"), ("events", "0 seen, 0 kept"), ("left out", "none"), ("dropped", "none"),
                        ("not collected", "no pause"), ("clocks", "not said"), ("backends", "not said"), ("plan", "collect everything")):  # fmt: skip
        assert block(done.stdout, name) == words


def test_fractions_of_a_pixel(here: Path, mcilib: Run) -> None:
    (here / "fine.mcib").write_bytes(encode(batch(Move(5_000 * MS, 1.5, -0.25), quanta_per_px=256)))
    done = mcilib("batch", "show", "fine.mcib")
    assert block(done.stdout, "positions") == "to 1/256 px"
    assert "x=1.5, y=-0.25" in done.stdout


def test_version_0(here: Path, mcilib: Run) -> None:
    (here / "old.mcib").write_bytes(frame_v0(7))
    done = mcilib("batch", "show", "old.mcib")
    assert done.returncode == 0
    assert (block(done.stdout, "format"), block(done.stdout, "sequence")) == ("version 0", "7")
    assert (block(done.stdout, "clocks"), block(done.stdout, "backends")) == ("pointer=x11", "not said")
    assert re.search(r"^kind +\d+ +-?\d+$", done.stdout, re.MULTILINE)


def test_what_a_batch_that_was_collected_holds(granted: Path, mcilib: Run) -> None:
    record(granted, events=(Move(0, 1, 2), Scroll(1_000_000, 1, 2, 0, 1), Scroll(2_000_000, 1, 2, 0, 1)))
    (path,) = (granted / "spool").rglob("*.mcib")
    text = mcilib("batch", "show", path).stdout
    assert block(text, "events") == "3 seen, 3 kept"
    assert block(text, "rows") == "2 (1 move, 1 scroll)"
    assert "x=1, y=2, dx=0, dy=2, count=2" in text


def test_names_cannot_write_on_the_terminal(here: Path, mcilib: Run) -> None:
    title = "\x1b[2Jgone\nbatch: fake"
    made = batch(Focus(5_000 * MS, "\x07", title), reasons=("\x1b]0;x",), levers={"\x1b": "\x1b"})
    (here / "bad.mcib").write_bytes(encode(made))
    done = mcilib("batch", "show", "bad.mcib")
    assert done.returncode == 0
    assert done.stdout.replace("\n", "").isprintable()
    assert not re.search("^batch: fake", done.stdout, re.MULTILINE)


# --- several, sealed, damaged ---------------------------------------------------------------------------------


def test_a_file_of_several_batches(here: Path, mcilib: Run) -> None:
    one, two = frame(1, 10), frame(2, 20, 30)
    (here / "all.mcib").write_bytes(one + two)
    done = mcilib("batch", "show", "all.mcib")
    assert done.returncode == 0
    first, second = done.stdout.split(f"\n--- at byte {len(one)} of the file ---\n\n")
    assert (block(first, "sequence"), block(second, "sequence")) == ("1", "2")
    found = json.loads(mcilib("batch", "show", "all.mcib", "--json").stdout)["frames"]
    assert [(one["offset"], one["rows"]) for one in found] == [(0, 1), (len(one), 2)]


def test_sealed_without_an_identity_the_header_is_shown(here: Path, mcilib: Run) -> None:
    (here / "sealed.mcib").write_bytes(frame(3, 10, recipients=[key_pair(1)[1], key_pair(2)[1]]))
    (here / "other.key").write_text(key_pair(3)[0] + "\n")
    for more, words in (([], "no identity"), (["--identity", "other.key"], "sealed to other keys")):
        done = mcilib("batch", "show", "sealed.mcib", *more)
        refused(done, 8, "sealed.mcib: ", words)
        assert block(done.stdout, "sequence") == "3"
        assert re.fullmatch(r"to 2 keys: [0-9a-f]{8} [0-9a-f]{8}", block(done.stdout, "sealed"))
        assert "anchor" not in done.stdout
    found = json.loads(mcilib("batch", "show", "sealed.mcib", "--json").stdout)["frames"][0]
    assert (found["sealed"], len(found["header"]["key_ids"])) == (True, 2)
    assert found["error"]["kind"] == "sealed"
    assert "metadata" not in found


def test_sealed_with_its_identity_all_is_shown(here: Path, identity: Path, mcilib: Run) -> None:
    (here / "sealed.mcib").write_bytes(frame(3, 10, recipients=[key_pair(1)[1]]))
    done = mcilib("batch", "show", "sealed.mcib", "--identity", identity)
    assert (done.returncode, done.stderr) == (0, "")
    assert block(done.stdout, "rows") == "1 (1 move)"
    assert re.search(r"^H +20 .*which header the seal belongs to$", done.stdout, re.MULTILINE)


def test_an_identity_file_that_is_none(file: Path, here: Path, mcilib: Run) -> None:
    (here / "bad.key").write_text("hello\n")
    refused(mcilib("batch", "show", file, "--identity", "bad.key"), 8, "bad.key")
    refused(mcilib("batch", "show", file, "--identity", "missing.key"), 8, "missing.key cannot be read")


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it ends after 0 bytes, within the first 14 (at byte 0)"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "it does not begin with MCIB: no batch of mcilib (at byte 0)"),
    "cut": (sample()[:-9], f"(at byte {len(sample()) - 9})"),
    "newer": (sample()[:4] + b"\7" + sample()[5:], "format version 7; this mcilib reads up to 1: upgrade"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "words"), DAMAGED.values(), ids=DAMAGED.keys())
def test_what_is_no_sound_batch(data: bytes, words: str, here: Path, mcilib: Run) -> None:
    (here / "bad.mcib").write_bytes(data)
    done = mcilib("batch", "show", "bad.mcib")
    refused(done, 7, "bad.mcib: ", words)
    assert done.stdout == ""
    found = json.loads(mcilib("batch", "show", "bad.mcib", "--json").stdout)
    assert found["frames"] == []
    assert len(found["damaged"]) == 1


def test_damage_in_one_of_several(here: Path, mcilib: Run) -> None:
    """Offsets count from the start of the file; a header that is sound is shown, and so are the other batches."""
    one, flipped, wrong, two = (
        frame(1, 10),
        bytearray(frame(2, 20)),
        with_columns(frame(3, 30), k=b"\0"),
        frame(4, 40),
    )
    flipped[60] ^= 1
    (here / "all.mcib").write_bytes(one + flipped + wrong + two + b"tail")
    done = mcilib("batch", "show", "all.mcib")
    assert done.returncode == 7
    assert re.findall(r"^sequence: +(\d)", done.stdout, re.MULTILINE) == ["1", "3", "4"]
    assert len(re.findall(r"^anchor:", done.stdout, re.MULTILINE)) == 2
    checksum, columns, tail = done.stderr.splitlines()
    until = len(one) + len(flipped)
    assert checksum.startswith("mcilib: all.mcib: the checksum does not match")
    assert checksum.endswith(f"(at byte {until - 4})")
    assert columns.startswith("mcilib: all.mcib: payload: ")
    at = int(re.findall(r"at byte (\d+)", columns)[0])
    assert until < at < until + len(wrong)
    assert tail.endswith(
        f"it ends after 4 bytes, within the first 14 (at byte {until + len(wrong) + len(two)})"
    )
    found = json.loads(mcilib("batch", "show", "all.mcib", "--json").stdout)
    assert [one["offset"] for one in found["damaged"]] == [until - 4, at, until + len(wrong) + len(two)]
    assert found["frames"][1]["error"]["offset"] == at


def test_damage_weighs_more_than_a_seal(here: Path, mcilib: Run) -> None:
    (here / "both.mcib").write_bytes(frame(1, 10, recipients=[key_pair(1)[1]]) + b"tail")
    assert mcilib("batch", "show", "both.mcib").returncode == 7


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["show", "none"], 6, ["nothing at none"]),
        (["show", "home"], 6, ["home is a folder", "`mcilib batch list home`"]),
        (["show", "/dev/null"], 6, ["neither a file nor a folder"]),
        (["list", "none"], 6, ["nothing at none"]),
        (["show", "x", "--rows", "-1"], 2, ["--rows must be a number of rows, 0 or more, not '-1'"]),
        (["show", "x", "--rows", "a"], 2, ["--rows must be a number of rows"]),
        (["show"], 2, ["FILE"]),
        ([], 2, ["COMMAND"]),
        (["shows", "x"], 2, ["invalid choice", "show"]),
    ],
)
def test_bad_input(args: list[str], code: int, words: list[str], here: Path, mcilib: Run) -> None:
    (here / "home").mkdir(exist_ok=True)
    refused(mcilib("batch", *args), code, *words)


# --- list -----------------------------------------------------------------------------------------------------


def test_list(here: Path, mcilib: Run) -> None:
    one, two = frame(12, 10, device="d1"), frame(3, 10, device="d1", recipients=[key_pair(1)[1]])
    store(here / "store", one + two, frame(1, 10))
    done = mcilib("batch", "list", "store")
    assert done.returncode == 0
    size = [len(one), len(two), (here / "store/1.mcib").stat().st_size]
    assert done.stdout.splitlines() == [
        f"device {'d0' * 16}",
        "number  batch                             bytes  sealed  file",
        f"     1  {1:030x}d0    {size[2]}  no      store/1.mcib",
        f"device {'d1' * 16}",
        "number  batch                             bytes  sealed  file",
        f"     3  {3:030x}d1    {size[1]}  yes     store/0.mcib at byte {size[0]}",
        f"    12  {12:030x}d1    {size[0]}  no      store/0.mcib",
    ]
    assert re.fullmatch(r"3 batches of 2 devices, \d+ bytes\.\n", done.stderr)
    found = json.loads(mcilib("batch", "list", "store", "--json").stdout)
    assert [(row["sequence"], row["sealed"], row["file"], row["offset"], row["bytes"]) for row in found] == [
        (1, False, "store/1.mcib", 0, size[2]), (3, True, "store/0.mcib", size[0], size[1]),
        (12, False, "store/0.mcib", 0, size[0]),
    ]  # fmt: skip


def test_list_names_what_is_damaged(here: Path, mcilib: Run) -> None:
    store(here / "store", frame(1, 10), frame(2, 20)[:-1])
    done = mcilib("batch", "list", "store")
    assert done.returncode == 7
    assert "mcilib: store/1.mcib: it ends after" in done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_an_empty_folder(here: Path, mcilib: Run) -> None:
    (here / "store").mkdir()
    done = mcilib("batch", "list", "store")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "0 batches of 0 devices, 0 bytes.\n")


# --- help and documents ---------------------------------------------------------------------------------------


def _commands() -> dict[str, argparse.ArgumentParser]:
    def choices(parser: argparse.ArgumentParser) -> dict[str, Any]:
        return next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))

    return choices(choices(make_parser())["batch"])


@pytest.mark.parametrize("name", ["show", "list"])
def test_help_and_the_reference_page(name: str) -> None:
    parser = _commands()[name]
    text = parser.format_help()
    assert f"\n  mcilib batch {name} " in text
    assert "exit codes:" in text
    assert max(map(len, text.splitlines())) <= 110
    assert all(action.help for action in parser._actions)
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    section = page.split(f"### mcilib batch {name}\n")[1].split("\n#")[0]
    flags = {s for a in parser._actions for s in a.option_strings} - {"-h", "--help", "--debug"}
    assert set(re.findall(rf"`{name} (--[a-z]+)", section)) == flags


def test_debug_works_behind_both_commands() -> None:
    for name, parser in _commands().items():
        assert parser.parse_args(["x", "--debug"]).debug is True, name
