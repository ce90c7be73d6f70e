"""Reading takes the memory of one batch and of an index, however many batches there are."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from stores import moves, store

from mcilib.format.batch import encode
from mcilib.reader import Reader

BATCHES, ROWS = 200, 3_000
INDEX_ENTRY_BYTES = 900
"""With its place in the list and its id in the set of those that were seen, while the folder is looked through."""


def _batch(number: int) -> bytes:
    return encode(moves(number, *(n * 7 for n in range(ROWS))), level=1)


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """200 batches of 3,000 rows: 600,000 rows."""
    return store(tmp_path_factory.mktemp("many"), *map(_batch, range(1, BATCHES + 1)))


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return store(tmp_path_factory.mktemp("few"), *map(_batch, range(1, 5)))


def _peak_bytes(folder: Path, use: str) -> int:
    reader = Reader(folder)
    tracemalloc.start()
    try:
        for _ in getattr(reader, use)():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_index_takes_some_hundred_bytes_per_batch(many, few):
    held = _peak_bytes(many, "index") - _peak_bytes(few, "index")
    assert 0 < held < (BATCHES - 4) * INDEX_ENTRY_BYTES


@pytest.mark.slow
def test_fifty_times_the_batches_take_no_more_than_their_index(many, few):
    more = _peak_bytes(many, "batches") - _peak_bytes(few, "batches")
    assert more < (BATCHES - 4) * INDEX_ENTRY_BYTES


UNDER_A_LIMIT = """
import json, resource, sys
from mcilib.reader import Reader, timeline, to_arrow, trajectory, write_jsonl, write_parquet
folder, use, out = sys.argv[1:]
if use in ("to_arrow", "write_parquet"):
    import pyarrow.compute, pyarrow.parquet
next(Reader(folder).batches())  # whatever is loaded late is loaded now
with open("/proc/self/status") as status:
    now = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) * 1024
limit = now + int(use == "write_parquet") * 96 * 2**20 + 48 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
reader = Reader(folder)
if use == "everything at once":
    print(len(list(reader.rows())))
elif use == "rows":
    print(sum(1 for _ in reader.rows()))
elif use == "timeline":
    print(sum(len(part.batch.events) for part in timeline(reader) if hasattr(part, "batch")))
elif use == "trajectory":
    print(sum(getattr(item, "rows", 0) for item in trajectory(reader)))
elif use == "to_arrow":
    print(sum(batch.num_rows for batch in to_arrow(reader)))
elif use == "write_parquet":
    print(write_parquet(reader, out).rows)
else:
    with open(out, "w") as file:
        print(write_jsonl(reader, file).rows)
"""
USES = ["rows", "timeline", "trajectory", "write_jsonl", "to_arrow", "write_parquet"]


def _under_a_limit(folder: Path, use: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", UNDER_A_LIMIT, str(folder), use, str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
@pytest.mark.parametrize("use", USES)
def test_600_000_rows_pass_under_a_limit_of_the_process(use, many, tmp_path):
    """48 MiB more than it had after the first batch: less than half of what the rows take at once. Parquet holds a
    row group, too."""
    if "arrow" in use or "parquet" in use:
        pytest.importorskip("pyarrow")
    done = _under_a_limit(many, use, tmp_path / "out")
    assert (done.returncode, done.stdout) == (0, f"{BATCHES * ROWS}\n"), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_the_limit_is_one_that_can_be_passed(many, tmp_path):
    done = _under_a_limit(many, "everything at once", tmp_path / "out")
    assert done.returncode == 1
    assert "MemoryError" in done.stderr
