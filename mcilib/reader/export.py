"""Export to a file: one JSON object per row. What Parquet needs too: a summary, and files that appear whole."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from mcilib.errors import StoreError
from mcilib.events import Event, Move, event_count
from mcilib.format.batch import Batch
from mcilib.reader.events import Reader, Row
from mcilib.reader.fields import record


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    counts: Mapping[str, int]
    """Events of the system by kind: a merged scroll counts all its steps."""
    batches: frozenset[str]
    """Ids of all batches that were read, also of those without a row."""


class Tally:
    """Counts what is written."""

    def __init__(self) -> None:
        self.rows = 0
        self.counts: dict[str, int] = {}

    def add(self, events: list[Event] | tuple[Event, ...], moves: int = 0) -> None:
        """`events`, and `moves` more of that kind."""
        self.rows += len(events) + moves
        if moves:
            self.counts["move"] = self.counts.get("move", 0) + moves
        for event in events:
            self.counts[event.kind] = self.counts.get(event.kind, 0) + event_count(event)

    def result(self, reader: Reader) -> Exported:
        return Exported(self.rows, self.counts, frozenset(reader.batch_ids()))


def write_jsonl(reader: Reader, file: TextIO) -> Exported:
    """Writes one JSON object (ASCII) per row: `FIELDS`, of each kind only those that apply.

    `t_ns` is wall clock. Errors of `file` pass through.
    """
    tally = Tally()
    for batch in reader.batches():
        tally.add(batch.events)
        file.writelines(_lines(batch))
    return tally.result(reader)


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _lines(batch: Batch) -> Iterator[str]:
    header, metadata = batch.header, batch.metadata
    ahead_ns = metadata.anchor.to_wall_ns(0)
    ids = {
        "boot": metadata.boot, "participant": header.participant, "device": header.device,
        "batch": header.batch_id, "seq": header.sequence,
    }  # fmt: skip
    where = _encode(ids)[1:-1]
    for index, event in enumerate(batch.events):
        if type(event) is Move and event.synthetic is None:  # nearly all of them; ten times as fast
            t_ns = event.t_ns
            yield (
                f'{{"t_ns":{t_ns + ahead_ns},"kind":"move","x":{event.x},"y":{event.y},'
                f'"monotonic_ns":{t_ns},{where},"i":{index}}}\n'
            )
        else:
            yield _encode(record(Row(event, batch, index))) + "\n"


@contextlib.contextmanager
def appearing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write in place of `path`, which has it when all is written; until then it is as it was.

    Only its owner may read it (0600): it holds what a person did. `StoreError` when it cannot be written.
    """
    target = Path(path)
    if target.exists() and not target.is_file():  # a device or a pipe is not to be replaced
        raise StoreError(f"{target} cannot be written (it is no ordinary file)", "Choose another place.")
    temporary: Path | None = None
    try:
        number, name = tempfile.mkstemp(".tmp", f".{target.name}.", target.parent)  # 0600, never a link
        os.close(number)
        temporary = Path(name)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written ({error.strerror or error})", "Choose another place, or make room."
        ) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
