"""A spool that dies before its k-th file operation, for every k: by SIGKILL, or with the power of its disk.

A child carries out `SCRIPT` and is stopped at the entry of the k-th system call that changes a file. There it is
killed, or the power is cut first. What is found afterwards must be what the reference model has after the steps that
had returned, or after one more: nothing lost, nothing miscounted, all bytes equal. Then it dies a second time, in the
recovery. `make crash` does that at every point, and before every operation of every recovery; `make test` cuts the power
at each second point, and dies in each fifth recovery.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faultpoints
import pytest
from deaths import EVERY, Place, places
from powercut import Cut
from spool_model import CAUSES, Model

from mcilib.delivery.spool import DirectorySpool
from mcilib.protocols import ControlRecord, Fate, SealedBatch

MAX_FILES, MAX_BYTES = 3, 2_000

SCRIPT: list[tuple[Any, ...]] = [
    ("commit", "a", 300),
    ("commit", "b", 300),
    ("settle", "a", Fate.DELIVERED),
    ("commit", "c", 300),
    ("commit", "d", 300),
    ("commit", "e", 300),  # evicts b: too many
    ("commit", "f", 1_500),  # evicts c and d: too large
    ("commit_control", "r"),
    ("settle", "e", Fate.REJECTED),
    ("settle", "b", Fate.DELIVERED),  # not there any more: nothing happens
    ("settle", "f", Fate.DELIVERED),
    ("commit", "g", 300),
    ("commit", "h", 300),
    ("commit", "i", 300),
    ("purge", "h"),
    ("commit_control", "s"),
    ("settle_control", "r"),
    ("settle_control", "s"),  # the newest: its number must not come back
    ("purge", None),
    ("commit", "j", 300),
]


def name(letter: str) -> str:
    return f"{ord(letter):032x}"


def content(letter: str, size_bytes: int) -> bytes:
    return random.Random(letter).randbytes(size_bytes)


def record(letter: str, record_id: str = "") -> bytes:
    ids = {"participant": "9" * 32, "device": "d" * 32}
    return json.dumps({"record": record_id or name(letter), "kind": "delete", **ids}).encode()


def on_spool(spool: Any, step: tuple[Any, ...]) -> None:
    match step:
        case "commit", letter, size_bytes:
            spool.commit(lambda n: SealedBatch(name(letter), n, content(letter, size_bytes)))
        case "settle", letter, fate:
            spool.settle(name(letter), fate)
        case "commit_control", letter:
            spool.commit_control(lambda n: ControlRecord(name(letter), n, record(letter)))
        case "settle_control", letter:
            spool.settle_control(name(letter))
        case "purge", letters:
            spool.purge(None if letters is None else [name(letter) for letter in letters])


def on_model(model: Model, step: tuple[Any, ...]) -> None:
    match step:
        case "commit", letter, size_bytes:
            model.commit(name(letter), content(letter, size_bytes))
        case "settle", letter, fate:
            model.leave(name(letter), fate.value)
        case "commit_control", letter:
            model.controls[name(letter)] = record(letter)
        case "settle_control", letter:
            model.controls.pop(name(letter), None)
        case "purge", letters:
            model.purge(None if letters is None else [name(letter) for letter in letters])


def models() -> list[Model]:
    """After no step, after one, after two, ..., after all."""
    found = [Model(MAX_FILES, MAX_BYTES)]
    for step in SCRIPT:
        found.append(found[-1].copy())
        on_model(found[-1], step)
    return found


AFTER = models()


def opened(folder: Path) -> DirectorySpool:
    spool = DirectorySpool(folder, max_files=MAX_FILES, max_bytes=MAX_BYTES)
    spool.open()
    return spool


def script(folder: Path, sabotage: Callable[[], None]) -> Callable[[Callable[[str], None]], None]:
    def work(say: Callable[[str], None]) -> None:
        sabotage()
        spool = opened(folder)
        for number, step in enumerate(SCRIPT, 1):
            on_spool(spool, step)
            say(str(number))
        spool.close()

    return work


# --- what is found ------------------------------------------------------------------------------------------


def check(folder: Path, steps: int) -> bool:
    """After a death in the step that follows `steps` of them. True: a batch would be delivered a second time."""
    least, most = AFTER[steps], AFTER[min(steps + 1, len(SCRIPT))]
    with opened(folder) as spool:
        now, present = spool.statistics(), spool.waiting()
        counts = {"committed": now.committed_batches, "delivered": now.delivered_batches, **now.lost}
        assert counts["committed"] == counts["delivered"] + len(present) + sum(now.lost.values()), counts
        for cause in ("committed", "delivered", *CAUSES):
            low, high = least.counts[cause], most.counts[cause]
            assert low <= counts.get(cause, 0) <= high, f"{cause}: {counts}, not {low} to {high}"
        contents = {**least.waiting, **most.waiting}
        assert least.waiting.keys() & most.waiting.keys() <= set(present) <= contents.keys(), present
        for batch_id in present:
            batch = spool.read(batch_id)
            assert batch is not None
            assert batch.data == contents[batch_id]
        files = [file.name for file in sorted((folder / "ready").iterdir())]
        assert [file[17:49] for file in files] == list(present)
        assert not list((folder / "tmp").iterdir())
        records = {record.record_id: record for record in spool.controls()}
        assert least.controls.keys() & most.controls.keys() <= records.keys()
        assert {i: r.data for i, r in records.items()}.items() <= {**least.controls, **most.controls}.items()
        again = spool.commit_control(lambda n: ControlRecord("f" * 32, n, record("f", "f" * 32)))
        assert again.sequence > sum(step[0] == "commit_control" for step in SCRIPT[:steps])
        sequence = spool.commit(lambda n: SealedBatch("f" * 32, n, b"x")).sequence
        assert all(int(file[:16]) < sequence for file in files)
        for letter in (step[1] for step in SCRIPT[:steps] if step[0] == "settle"):
            assert name(letter) not in present
    with opened(folder) as spool:
        assert spool.statistics().committed_batches == now.committed_batches + 1
    step = SCRIPT[steps] if steps < len(SCRIPT) else ("close",)
    return step[0] == "settle" and step[2] is Fate.DELIVERED and name(step[1]) in present


@pytest.fixture(params=[None, *Cut], ids=["process-death", "power-cut-early", "power-cut-late"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    yield from places(tmp_path, "spool", request.param)


@dataclass
class Found:
    points: int = 0
    in_recoveries: int = 0
    twice: list[str] = field(default_factory=list)
    """Where a batch would be delivered a second time."""


def deaths(place: Place, sabotage: Callable[[], None] = lambda: None) -> Found:
    """Dies everywhere. Raises AssertionError that says where it went wrong."""
    found, ended = Found(-1 if place.cut is Cut.LATE and not EVERY else 0), False
    while not ended:
        found.points += 1 if EVERY or place.cut is None else 2
        place.empty()
        ended, said, operation = place.die(script(place.folder, sabotage), found.points)
        step = SCRIPT[len(said)] if len(said) < len(SCRIPT) else "close"
        where = f"point {found.points}, before {operation} in step {len(said) + 1} {step}"
        try:
            if place.folder.exists() and (EVERY or found.points % 5 == 0):
                place.keep()
                found.in_recoveries += _deaths_in_recovery(place, len(said), found.points)
                place.bring_back()
            if check(place.folder, len(said)):
                found.twice.append(where)
        except AssertionError as error:
            raise AssertionError(f"death at {where}: {error}") from error
    return found


def _deaths_in_recovery(place: Place, steps: int, point: int) -> int:
    def recover(_: object) -> None:
        opened(place.folder).close()

    with faultpoints.Stopped(recover) as child:
        child.run_to(1_000_000)
        operations = child.operations
    chosen = range(1, operations + 1) if EVERY else [point % (operations or 1) + 1]
    for number in chosen:
        place.bring_back()
        place.die(recover, number)
        try:
            check(place.folder, steps)
        except AssertionError as error:
            raise AssertionError(f"and before operation {number} of its recovery: {error}") from error
    return len(chosen)


def test_death_before_every_file_operation(place: Place, record_property: Any) -> None:
    found = deaths(place)
    record_property("delivered_twice", len(found.twice))
    print(
        f"{found.points} points, {found.in_recoveries} deaths in recoveries: lost 0; "
        f"a batch is delivered twice after {len(found.twice)} of them:"
    )
    print("\n".join(found.twice))
    assert found.points > 100, "the operations were not counted"


# --- that this would find it --------------------------------------------------------------------------------


def no_fsync() -> None:
    os.fsync = os.fdatasync = lambda fd: None


def no_counters() -> None:
    really = os.replace

    def replace(source: Any, target: Any, **more: Any) -> None:
        if not str(target).endswith("state.json"):
            really(source, target, **more)

    os.replace = os.rename = replace  # type: ignore[assignment]


def test_a_spool_without_fsync_or_without_counters_is_caught(place: Place) -> None:
    with pytest.raises(AssertionError, match="death at point"):
        deaths(place, no_fsync if place.cut is not None else no_counters)
