"""What a spool folder says about itself: the counters in `state.json` and the names in `ready/` and `bad/`.

Pure apart from listing folders, so that the owner and an onlooker (`mcilib status`) see the same.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mcilib.delivery._files import spool_error
from mcilib.errors import SpoolError
from mcilib.statistics import SpoolStatistics

SCHEMA = 1
"""Version of the folder. A newer one is refused; older ones are read for ever."""

CAUSES = ("evicted", "rejected", "damaged")
_NAME = re.compile(r"([0-9]{16})-([0-9a-f]{32})\.mcib")


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch as a file: its name says sequence and id, never a time."""

    name: str
    sequence: int
    batch_id: str
    size_bytes: int

    @classmethod
    def named(cls, sequence: int, batch_id: str, size_bytes: int) -> Entry:
        return cls(f"{sequence:016d}-{batch_id}.mcib", sequence, batch_id, size_bytes)


def listed(folder: Path) -> list[Entry]:
    """The batches in a folder, oldest first; other files are no business of ours. Raises `OSError`."""
    found = []
    with os.scandir(folder) as names:
        for item in names:
            match = _NAME.fullmatch(item.name)
            if match:
                try:
                    size_bytes = item.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue  # settled by the owner while an onlooker looks
                found.append(Entry(item.name, int(match[1]), match[2], size_bytes))
    return sorted(found, key=lambda entry: entry.name)


@dataclass(frozen=True, slots=True)
class SpoolState:
    """The counters. A new value is written before the files that it explains leave."""

    next_sequence: int = 1
    committed_batches: int = 0
    committed_bytes: int = 0
    delivered_batches: int = 0
    lost: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))
    leaving: Mapping[str, str] = field(default_factory=dict)
    """Files that are counted already and may still be there after a crash -> `bad` or `gone`."""

    def to_json(self) -> bytes:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> SpoolState | None:
        """None when it is damaged. Raises `SpoolError` when a newer version wrote it."""
        try:
            record = json.loads(data)
            if record["schema"] > SCHEMA:
                raise SpoolError(
                    f"{path} was written by a newer mcilib (version {record['schema']} of the folder, "
                    f"this one knows {SCHEMA})",
                    "Nothing was changed. Install the newer version again, or choose another --state.",
                )
            state = cls(
                next_sequence=int(record["next_sequence"]),
                committed_batches=int(record["committed_batches"]),
                committed_bytes=int(record["committed_bytes"]),
                delivered_batches=int(record["delivered_batches"]),
                lost={cause: int(record["lost"].get(cause, 0)) for cause in CAUSES},
                leaving={name: str(to) for name, to in record["leaving"].items() if _NAME.fullmatch(name)},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return state

    def leave(self, name: str, to: str, *, cause: str | None) -> SpoolState:
        """One batch leaves: lost for `cause`, or delivered when that is None."""
        if cause is None:
            counted = replace(self, delivered_batches=self.delivered_batches + 1)
        else:
            counted = replace(self, lost={**self.lost, cause: self.lost[cause] + 1})
        return replace(counted, leaving={**self.leaving, name: to})

    def commit(self, entry: Entry) -> SpoolState:
        return replace(
            self,
            next_sequence=entry.sequence + 1,
            committed_batches=self.committed_batches + 1,
            committed_bytes=self.committed_bytes + entry.size_bytes,
        )

    def reconcile(self, ready: Iterable[Entry], bad: Iterable[Entry]) -> tuple[SpoolState, list[Entry]]:
        """The state that agrees with the files, and the batches that wait.

        A batch whose rename was the last thing before a crash is counted as committed; one that is on its
        way out does not wait; one that vanished without us counts as damaged.
        """
        waiting = list({e.batch_id: e for e in ready if e.name not in self.leaving}.values())
        found = [e for e in waiting if e.sequence >= self.next_sequence]
        lost = dict(self.lost)
        committed = self.committed_batches + len(found)
        missing = committed - self.delivered_batches - sum(lost.values()) - len(waiting)
        lost["damaged"] += max(0, missing)
        return (
            replace(
                self,
                next_sequence=max([self.next_sequence, *(e.sequence + 1 for e in (*waiting, *bad))]),
                committed_batches=committed + max(0, -missing),
                committed_bytes=self.committed_bytes + sum(e.size_bytes for e in found),
                lost=lost,
            ),
            waiting,
        )

    def statistics(self, waiting: Iterable[Entry]) -> SpoolStatistics:
        sizes = [entry.size_bytes for entry in waiting]
        return SpoolStatistics(
            committed_batches=self.committed_batches,
            committed_bytes=self.committed_bytes,
            delivered_batches=self.delivered_batches,
            waiting_batches=len(sizes),
            waiting_bytes=sum(sizes),
            lost=dict(self.lost),
        )


def load_state(folder: Path) -> tuple[SpoolState, bool]:
    """The state, and whether its file is there but damaged. Raises `SpoolError`: unreadable, or too new."""
    path = folder / "state.json"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return SpoolState(), False
    except OSError as error:
        raise spool_error("its state cannot be read", path, error) from None
    state = SpoolState.from_json(data, path)
    return (state or SpoolState()), state is None


def look_at(folder: Path) -> SpoolStatistics:
    """The counters of a folder that anyone may own; changes nothing and takes no lock.

    All zero when there is no such folder. Raises `SpoolError` when it cannot be read.
    """
    statistics = SpoolStatistics()
    try:
        for _ in range(5):  # again when the owner was in between
            before, _damaged = load_state(folder)
            state, waiting = before.reconcile(listed(folder / "ready"), listed(folder / "bad"))
            statistics = state.statistics(waiting)
            if load_state(folder)[0] == before:
                break
    except FileNotFoundError:
        pass
    except OSError as error:
        raise spool_error("it cannot be read", folder, error) from None
    return statistics
