"""What the spool and the schedule say that they wrote and fsynced, against what the kernel saw."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from mcilib.delivery._files import DiskTally, sync_folder, write_durably, write_over
from mcilib.delivery.schedule import ScheduleFile
from mcilib.delivery.spool import DirectorySpool
from mcilib.statistics import DiskStatistics

WORK = """
import sys
from random import Random
from mcilib.delivery.control import delete_request
from mcilib.delivery.http import HttpTransport
from mcilib.delivery.schedule import ScheduleFile
from mcilib.delivery.spool import DirectorySpool
from mcilib.delivery.uploader import Uploader
from mcilib.protocols import Fate, Outcome, Receipt, ReceiptStatus, Reply
from mcilib.testing.fakes import example_batch

class Taker:
    def send(self, batches, /):
        return Reply(Outcome.DELIVERED, {b.batch_id: Receipt(b.batch_id, ReceiptStatus.STORED) for b in batches})
    def send_control(self, records, /):
        return Reply(Outcome.DELIVERED, {r.record_id: Receipt(r.record_id, ReceiptStatus.STORED) for r in records})
    def close(self): pass

folder = sys.argv[1]
spool = DirectorySpool(folder + "/spool", max_files=8)
file = ScheduleFile(folder + "/spool/schedule.json")
spool.open()
for _ in range(12):
    spool.commit(example_batch)
spool.commit_control(delete_request("ab" * 16, "ab" * 16))
ids = spool.waiting()
spool.settle(ids[0], Fate.DELIVERED)
spool.settle(ids[1], Fate.REJECTED)
spool.purge(ids[2:3])
uploader = Uploader(spool, Taker(), schedule_file=file, random=Random(1))
uploader.start()
uploader.flush(20)
uploader.stop()
spool.close()
print([(d.written_bytes, d.fsyncs) for d in (spool.disk_statistics(), file.disk_statistics())])
"""


@pytest.mark.needs("strace")
def test_the_kernel_saw_the_same(tmp_path):
    log = tmp_path / "trace"
    trace = "trace=write,writev,pwrite64,pwritev,pwritev2,sendfile,copy_file_range,fsync,fdatasync,sync_file_range,sync,syncfs"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", log, "-e", trace, sys.executable, "-c", WORK, tmp_path],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    (spool, schedule) = ast.literal_eval(done.stdout)
    calls = [line for line in log.read_text().splitlines() if f"<{tmp_path}/" in line]
    written = [int(c.rsplit("= ", 1)[1]) for c in calls if re.search(r"\bp?writev?(64|2)?\(", c)]
    fsyncs = sum("sync(" in c for c in calls)
    assert not [c for c in calls if "unfinished" in c or "sendfile" in c or "copy_file" in c]
    assert spool[0] + schedule[0] == sum(written) > 32_768
    assert spool[1] + schedule[1] == fsyncs > 12 * 2
    mine = [c for c in calls if "schedule.json" in c and "write(" in c]
    assert schedule[0] == sum(int(c.rsplit("= ", 1)[1]) for c in mine) > 0


def test_each_way_to_write_is_counted(tmp_path):
    tally = DiskTally()
    write_durably(tmp_path / "a", b"12345", tally=tally)
    assert tally.statistics() == DiskStatistics(5, 1)
    assert write_over(tmp_path / "a", b"123", tally)
    assert tally.statistics() == DiskStatistics(8, 2)
    assert not write_over(tmp_path / "none", b"123", tally)
    sync_folder(tmp_path, tally)
    assert tally.statistics() == DiskStatistics(8, 3)


def test_per_object_and_over_its_life(tmp_path, seal):
    spool = DirectorySpool(tmp_path / "spool")
    assert spool.disk_statistics() == DiskStatistics()
    spool.open()
    opened = spool.disk_statistics()
    spool.commit(seal(700))
    committed = spool.disk_statistics()
    assert committed == opened + DiskStatistics(700, 2)
    spool.close()
    assert spool.disk_statistics() == committed
    assert DirectorySpool(tmp_path / "spool").disk_statistics() == DiskStatistics()
    assert ScheduleFile(tmp_path / "s").disk_statistics() == DiskStatistics()
