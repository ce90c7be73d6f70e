"""The impact ledger's file: damaged, newer, huge, shared, and killed with the process that writes it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mcilib import limits
from mcilib.resources.ledger import SCHEMA, ImpactLedger
from mcilib.statistics import CostStatistics, DiskStatistics, ImpactStatistics
from mcilib.testing.fakes import ManualClock

DAY = {"cpu_ns": 5, "requests.data": 1}


def begun(path: Path, clock: ManualClock | None = None) -> ImpactLedger:
    ledger = ImpactLedger(path, clock=clock or ManualClock())
    ledger.begin()
    return ledger


def test_it_survives_a_restart(tmp_path):
    clock = ManualClock()
    for fsyncs in (3, 6, 9):
        ledger = begun(tmp_path / "impact.json", clock)
        ledger.note(disk=[DiskStatistics(100, 3)])
        assert ledger.statistics().total.fsyncs == fsyncs
        assert ledger.statistics().since_start.fsyncs == 3
        ledger.save()
    assert ImpactLedger.read(tmp_path / "impact.json", clock.wall_ns()).today.fsyncs == 9


def test_mode_and_nothing_else_beside_it(tmp_path):
    ledger = begun(tmp_path / "impact.json")
    ledger.save()
    ledger.save()
    assert [file.name for file in tmp_path.iterdir()] == ["impact.json"]
    assert stat.S_IMODE((tmp_path / "impact.json").stat().st_mode) == 0o600


def test_its_own_bytes_count(tmp_path):
    ledger = begun(tmp_path / "impact.json")
    ledger.save()
    ledger.note()
    assert ledger.statistics().today.written_bytes == (tmp_path / "impact.json").stat().st_size


@pytest.mark.needs("strace")
def test_it_never_fsyncs(tmp_path):
    code = (
        "import sys\nfrom mcilib.resources.ledger import ImpactLedger\nledger = ImpactLedger(sys.argv[1])\n"
        "ledger.begin()\nledger.save()\nledger.note()\nledger.save()"
    )
    log = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-o", log, "-e", "trace=fsync,fdatasync,rename", sys.executable, "-PB", "-c", code, tmp_path / "impact.json"],
        check=True,
        timeout=60,
    )  # fmt: skip
    assert log.read_text().count("rename(") == 2
    assert "sync(" not in log.read_text()


def test_saved_once_in_a_while_only(tmp_path):
    clock, path = ManualClock(), tmp_path / "impact.json"
    ledger = begun(path, clock)
    clock.advance(limits.LEDGER_SAVE_S - 1)
    ledger.note()
    assert not path.exists()
    clock.advance(1)
    ledger.note()
    written = path.read_bytes()
    ledger.note(disk=[DiskStatistics(5, 5)])
    assert path.read_bytes() == written


STRANGE = {
    "empty": b"",
    "cut": b'{"schema":1,"earlier":{},"da',
    "binary": bytes(range(256)),
    "a list": b"[]",
    "deep": b"[" * 50_000,
    "newer": json.dumps({"schema": SCHEMA + 1, "earlier": {}, "days": {"2026-01-01": DAY}}).encode(),
    "huge": json.dumps({"schema": 1, "earlier": {}, "days": {}}).encode() + b" " * 70_000,
    "no days": b'{"schema":1,"earlier":{}}',
    "days are a number": b'{"schema":1,"earlier":{},"days":3}',
    "days are a list": b'{"schema":1,"earlier":{},"days":["2026-01-01"]}',
    "no such day": json.dumps({"schema": 1, "earlier": {}, "days": {"2026-02-30": DAY}}).encode(),
    "a day spelled otherwise": json.dumps({"schema": 1, "earlier": {}, "days": {"2026-W01-1": DAY}}).encode(),
    "too many days": json.dumps(
        {"schema": 1, "earlier": {}, "days": {f"{year}-01-01": DAY for year in range(1900, 2000)}}
    ).encode(),
    **{
        f"an amount of {value}": f'{{"schema":1,"earlier":{{"cpu_ns":{value}}},"days":{{}}}}'.encode()
        for value in ("-1", "1.5", "true", '"1"', "null", "[]", str(2**63), "NaN", "1e3")
    },
    "an unknown key": b'{"schema":1,"earlier":{"password":1},"days":{}}',
    "a key that never ends": json.dumps(
        {"schema": 1, "earlier": {"requests." + "x" * 99: 1}, "days": {}}
    ).encode(),
}


@pytest.mark.parametrize("data", STRANGE.values(), ids=STRANGE.keys())
def test_a_file_that_is_not_one_of_ours(tmp_path, data):
    """Counts as nothing, for an onlooker too, and is set aside, not lost."""
    path = tmp_path / "impact.json"
    path.write_bytes(data)
    assert ImpactLedger.read(path) == ImpactStatistics()
    ledger = begun(path)
    assert ledger.statistics() == ImpactStatistics()
    ledger.note(disk=[DiskStatistics(1, 2)])
    assert path.read_bytes() == data, "untouched until something is saved"
    ledger.save()
    assert (tmp_path / "impact.json.old").read_bytes() == data
    assert ImpactLedger.read(path).total.fsyncs == 2


def test_a_file_of_ours_is_not_set_aside(tmp_path):
    path = tmp_path / "impact.json"
    path.write_bytes(json.dumps({"schema": SCHEMA, "earlier": DAY, "days": {"2026-01-01": DAY}}).encode())
    ledger = begun(path)
    assert ledger.statistics().total.requests == {"data": 2}
    ledger.save()
    assert [file.name for file in tmp_path.iterdir()] == ["impact.json"]


@pytest.mark.parametrize("place", ["gone/impact.json", "file/impact.json", "folder"])
def test_where_nothing_can_be_saved(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    (tmp_path / "folder.old" / "full").mkdir(parents=True)
    ledger = begun(tmp_path / place)
    ledger.note(disk=[DiskStatistics(1, 2)])
    ledger.save()
    ledger.save()
    assert ledger.statistics().total.fsyncs == 2
    ledger.note()
    assert ledger.statistics().total.written_bytes == 1, "what was not written does not count"


WRITE = """
import sys, time
from mcilib.resources.ledger import ImpactLedger
from mcilib.statistics import DiskStatistics
ledger = ImpactLedger(sys.argv[1])
ledger.begin()
for n in range(1, 10**9):
    ledger.note(disk=[DiskStatistics(0, n)])
    ledger.save()
    print(n, flush=True)
"""


def test_killed_at_any_moment_it_is_whole(tmp_path):
    """A real process; what was saved before the kill is there, in each of eight lives."""
    path, total = tmp_path / "impact.json", 0
    for life in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(20 + 13 * life):
                said = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            said = max([said, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        found = ImpactLedger.read(path).total.fsyncs
        assert total + said <= found <= total + said + 1
        total = found


def test_an_onlooker_beside_the_writer_always_sees_a_whole_file(tmp_path):
    path = tmp_path / "impact.json"
    with subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = [0]
        for _ in range(300):
            seen.append(ImpactLedger.read(path).total.fsyncs)
            assert process.stdout.readline()
        process.kill()
    assert seen == sorted(seen)
    assert seen[1] > 0


def test_two_processes_that_both_write_do_no_harm(tmp_path):
    """The spool's lock keeps a second one away; without it the last one's accounting stays, or it begins anew."""
    path = tmp_path / "impact.json"
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE, path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in processes:
        with process:
            assert process.stdout is not None
            for _ in range(200):
                assert process.stdout.readline()
            process.kill()
    ledger = begun(path)
    ledger.note(disk=[DiskStatistics(0, 1)])
    ledger.save()
    assert ImpactLedger.read(path).total.fsyncs > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forks_child_writes_nothing(tmp_path):
    path = tmp_path / "impact.json"
    ledger = begun(path)
    pid = os.fork()
    if pid == 0:
        ledger.note(cost=CostStatistics(1.0, 1, 1))
        ledger.save()
        os._exit(0 if ledger.statistics().total.cpu_s is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert not path.exists()
