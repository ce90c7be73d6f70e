"""What a spool folder says about itself: the counters in `state.json` and the names of its files.

Pure apart from listing folders, so that the owner and an onlooker (`mcilib status`) see the same.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mcilib.delivery._age import Anchor
from mcilib.delivery._files import spool_error
from mcilib.errors import SpoolError
from mcilib.files import read_file
from mcilib.statistics import SpoolStatistics

SCHEMA = 2
"""Version of the folder. A newer one is refused; older ones are read for ever. 2 added `control/`, the spool's
clock, `settled_below`, and commits that do not write the state."""

_FILE_MAX_BYTES = 16 * 1024 * 1024
"""Names of 20,000 files that leave take 2 MiB."""

CAUSES = ("evicted", "expired", "rejected", "damaged", "purged")
KEPT_FOR_A_LOOK = frozenset({"rejected", "damaged"})
DELIVERED = "delivered"

_NAME = re.compile(r"(0[0-9]{15})-([0-9a-f]{32})\.(mcib|json)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch or a control record as a file: its name says sequence and id, never a time."""

    name: str
    sequence: int
    entry_id: str
    size_bytes: int
    dated_ns: int
    """When it came, by the spool's clock: the file's date."""

    @classmethod
    def new(cls, sequence: int, entry_id: str, size_bytes: int, dated_ns: int, kind: str = "mcib") -> Entry:
        return cls(f"{sequence:016d}-{entry_id}.{kind}", sequence, entry_id, size_bytes, dated_ns)


def _check(record: dict[str, object]) -> int:
    """CRC-32 of the record: one digit of it that changed could cost every batch. Version 1 had none."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def listed(folder: Path) -> list[Entry]:
    """The batches or records in a folder, oldest first; other files are no business of ours. Raises `OSError`."""
    found = []
    with os.scandir(folder) as names:
        for item in names:
            match = _NAME.fullmatch(item.name)
            if match:
                try:
                    status = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # settled by the owner while an onlooker looks
                found.append(Entry(item.name, int(match[1]), match[2], status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda entry: entry.name)


@dataclass(frozen=True, slots=True)
class SpoolState:
    """The counters. A new value is written before the files that it explains leave.

    A commit alone is not worth a write: a batch with a sequence that the state does not know yet has come since.
    """

    next_sequence: int = 1
    settled_below: int = 0
    """Every batch with a lower sequence has left and is counted, whether its file is still there or not."""
    committed_batches: int = 0
    committed_bytes: int = 0
    delivered_batches: int = 0
    lost: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    leaving: Mapping[str, str] = field(default_factory=dict)
    """Other files that are counted already and may still be there after a crash -> `bad` or `gone`."""
    next_control: int = 1
    age: Anchor | None = None

    def to_json(self) -> bytes:
        record = {"schema": SCHEMA, **asdict(self)}
        return json.dumps({**record, "check": _check(record)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> SpoolState | None:
        """None when it is damaged. Raises `SpoolError` when a newer version wrote it."""
        try:
            record = json.loads(data)
            schema, check = record["schema"], record.pop("check", None)
            if check != _check(record) and (check is not None or schema == SCHEMA):
                return None
            if schema > SCHEMA:
                raise SpoolError(
                    f"{path} was written by a newer mcilib (version {schema} of the folder, "
                    f"this one knows {SCHEMA})",
                    "Nothing was changed. Install the newer version again, or choose another --state.",
                )
            state = cls(
                next_sequence=int(record["next_sequence"]),
                settled_below=int(record.get("settled_below", 0)),
                committed_batches=int(record["committed_batches"]),
                committed_bytes=int(record["committed_bytes"]),
                delivered_batches=int(record["delivered_batches"]),
                lost={cause: int(record["lost"].get(cause, 0)) for cause in CAUSES},
                leaving={name: str(to) for name, to in record["leaving"].items() if _NAME.fullmatch(name)},
                next_control=int(record.get("next_control", 1)),
                age=Anchor.from_record(record.get("age")),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return None
        return state

    def commit(self, entry: Entry) -> SpoolState:
        return replace(
            self,
            next_sequence=entry.sequence + 1,
            committed_batches=self.committed_batches + 1,
            committed_bytes=self.committed_bytes + entry.size_bytes,
        )

    def leave(self, going: Sequence[tuple[Entry, str]], settled_below: int) -> SpoolState:
        """Batches leave, each with its cause: one of `CAUSES`, or `DELIVERED`."""
        counts = Counter(cause for _, cause in going)
        leaving = dict(self.leaving)
        for entry, cause in going:
            leaving[entry.name] = "bad" if cause in KEPT_FOR_A_LOOK else "gone"
        return replace(
            self,
            settled_below=settled_below,
            delivered_batches=self.delivered_batches + counts[DELIVERED],
            lost={cause: number + counts[cause] for cause, number in self.lost.items()},
            leaving={
                name: to for name, to in leaving.items() if to == "bad" or int(name[:16]) >= settled_below
            },
        )

    def left(self, entry: Entry) -> bool:
        """Whether a file in `ready/` is counted as gone."""
        return entry.sequence < self.settled_below or entry.name in self.leaving

    def statistics(self, waiting: Iterable[Entry], control_records: int) -> SpoolStatistics:
        sizes = [entry.size_bytes for entry in waiting]
        return SpoolStatistics(
            committed_batches=self.committed_batches,
            committed_bytes=self.committed_bytes,
            delivered_batches=self.delivered_batches,
            waiting_batches=len(sizes),
            waiting_bytes=sum(sizes),
            lost=dict(self.lost),
            control_records=control_records,
        )


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a spool folder, oldest first."""

    ready: Sequence[Entry] = ()
    control: Sequence[Entry] = ()
    bad: Sequence[Entry] = ()

    @classmethod
    def there(cls, folder: Path) -> Found:
        """Raises `OSError`."""
        return cls(listed(folder / "ready"), _listed_if_there(folder / "control"), listed(folder / "bad"))


def _listed_if_there(folder: Path) -> Sequence[Entry]:
    try:
        return listed(folder)
    except FileNotFoundError:  # of version 1
        return ()


def reconcile(before: SpoolState | None, found: Found) -> tuple[SpoolState, list[Entry]]:
    """The state that agrees with the files, and the batches that wait. Without a state it begins from the files.

    Sequences that the state does not know were committed since, and none of them has left, since that is
    written first: so each of them, and each older one, that is not there vanished without us and counts as
    damaged. One that is on its way out does not wait.
    """
    state = before if before is not None else SpoolState()
    waiting = list({e.entry_id: e for e in found.ready if not state.left(e)}.values())
    new = [e for e in waiting if e.sequence >= state.next_sequence]
    newest = max((e.sequence for e in new), default=state.next_sequence - 1)
    committed = state.committed_batches
    committed += len(new) if before is None else newest + 1 - state.next_sequence
    missing = committed - state.delivered_batches - sum(state.lost.values()) - len(waiting)
    batches, records = ([e for e in found.bad if e.name.endswith(kind)] for kind in (".mcib", ".json"))
    return (
        replace(
            state,
            next_sequence=max(newest + 1, *(e.sequence + 1 for e in batches), 1),
            next_control=max([state.next_control, *(e.sequence + 1 for e in (*found.control, *records))]),
            committed_batches=committed + max(0, -missing),
            committed_bytes=state.committed_bytes + sum(e.size_bytes for e in new),
            lost={**state.lost, "damaged": state.lost["damaged"] + max(0, missing)},
        ),
        waiting,
    )


def load_state(folder: Path) -> tuple[SpoolState | None, bool]:
    """The state, and whether its file is there but damaged. Raises `SpoolError`: unreadable, or too new."""
    path = folder / "state.json"
    try:
        data = read_file(path, _FILE_MAX_BYTES)
    except FileNotFoundError:
        return None, False
    except OSError as error:
        raise spool_error("its state cannot be read", path, error) from None
    state = SpoolState.from_json(data, path)
    return state, state is None


def look_at(folder: Path) -> SpoolStatistics:
    """The counters of a folder that anyone may own; changes nothing and takes no lock.

    All zero when there is no such folder. Raises `SpoolError` when it cannot be read.
    """
    state, waiting, found = SpoolState(), list[Entry](), Found()
    try:
        before: object = None
        for _ in range(5):  # until two looks agree: the owner may be in between
            loaded, _damaged = load_state(folder)
            found = Found.there(folder)
            state, waiting = reconcile(loaded, found)
            if before == (before := (loaded, found)):
                break
    except FileNotFoundError:
        pass
    except OSError as error:
        raise spool_error("it cannot be read", folder, error) from None
    return state.statistics(waiting, len(found.control))
