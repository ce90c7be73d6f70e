"""The batches in a file or folder: found, checked by their frames, and kept as small entries."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mcilib.errors import BatchFormatError, StoreError
from mcilib.format.batch import read_header
from mcilib.format.frame import PREFIX_BYTES, frame_size

Report: TypeAlias = Callable[[Path, BatchFormatError], None]

_SKIPPED = frozenset({"tmp", "bad"})
"""Folders of a spool that hold nothing whole."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one batch lies and what it takes to put it in order. A few hundred bytes each."""

    file: str
    at: int
    """Where in the file the frame begins."""
    size: int
    """Of the frame, in bytes."""
    batch_id: str
    device: str
    participant: str
    sequence: int
    sealed: bool

    @property
    def path(self) -> Path:
        return Path(self.file)


def check_root(root: Path) -> None:
    """Raises `StoreError` when there is nothing that can be read at `root`."""
    try:
        if root.is_dir():
            os.listdir(root)
        elif root.is_file() or not root.exists():
            with root.open("rb"):
                pass
        else:
            raise StoreError(
                f"{root} is neither a file nor a folder", "Name a batch file, a spool or a store."
            )
    except FileNotFoundError:
        raise StoreError(
            f"There is nothing at {root}", "Name a batch file, a spool or a receiver's store."
        ) from None
    except OSError as error:
        raise StoreError(
            f"{root} cannot be read ({error.strerror})", "Check who may read it; data folders are private."
        ) from None


def scan(root: Path, report: Report) -> Iterator[Entry]:
    """An entry for each sound frame at `root`, in order of path, copies too.

    Headers and checksums are looked at, payloads are not.
    """
    same: dict[str, str] = {}  # one string for each device and participant, however many batches
    for path in _files(root, report):
        file = str(path)
        for at, frame in frames(path, report):
            try:
                header = read_header(frame)
            except BatchFormatError as error:
                report(path, BatchFormatError(error.reason, at + error.offset))
                continue
            yield Entry(
                file=file,
                at=at,
                size=len(frame),
                batch_id=header.batch_id,
                device=same.setdefault(header.device, header.device),
                participant=same.setdefault(header.participant, header.participant),
                sequence=header.sequence,
                sealed=header.sealed,
            )


def load(entry: Entry) -> bytes:
    """The frame of an entry. Raises `BatchFormatError` when it is no longer there."""
    try:
        with open(entry.file, "rb") as file:
            file.seek(entry.at)
            prefix = file.read(PREFIX_BYTES)
            return prefix + file.read(frame_size(prefix) - PREFIX_BYTES)
    except OSError as error:
        raise BatchFormatError(f"it can no longer be read ({error.strerror})") from None


def frames(path: Path, report: Report) -> Iterator[tuple[int, bytes]]:
    """The frames of one file, unchecked but for their lengths, and where each begins; one in memory at a time.

    What cannot even be cut into frames is reported, and the rest of that file is not looked at.
    """
    at = 0
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
            raise BatchFormatError("not an ordinary file")
        with path.open("rb") as file:
            while (prefix := file.read(PREFIX_BYTES)) or at == 0:
                size = frame_size(prefix, at)
                frame = prefix + file.read(size - PREFIX_BYTES)
                yield at, frame
                at += len(frame)
    except FileNotFoundError:  # delivered, or deleted, since the folder was listed
        return
    except OSError as error:
        report(path, BatchFormatError(f"it cannot be read ({error.strerror})", at))
    except BatchFormatError as error:
        report(path, error)


def _files(root: Path, report: Report) -> Iterator[Path]:
    """`root` itself, or all `*.mcib` below it but for hidden ones and the spool's own `tmp` and `bad`."""
    if not root.is_dir():
        yield root
        return

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # one that has just gone is no damage
            report(Path(error.filename), BatchFormatError(f"the folder cannot be read ({error.strerror})"))

    for folder, folders, names in os.walk(root, onerror=unreadable):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        for name in sorted(names):
            if name.endswith(".mcib") and not name.startswith("."):
                yield Path(folder, name)
