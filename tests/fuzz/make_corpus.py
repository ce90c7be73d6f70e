"""Writes tests/fuzz/corpus from the test vectors: contents of payloads, and frames. Run by hand when vectors were added."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support")]

import hostile  # noqa: E402

from mcilib.errors import BatchFormatError, SealError  # noqa: E402
from mcilib.format.batch import open_payload  # noqa: E402

MAX_BYTES = 1_000
FRAMES = ("every_kind", "sealed_to_one", "v0_every_kind", "entries_of_the_future", "bad_zstd_window")
"""The frames of these vectors; of every good vector the content."""


def inputs() -> dict[str, bytes]:
    """Corpus file name -> what is in it."""
    made = {}
    for path in sorted(hostile.VECTORS.glob("*.mcib")):
        frame = path.read_bytes()
        if path.stem in FRAMES:
            made[f"frame-{path.stem}"] = frame
        if path.stem.startswith(("bad_", "v0_", "sealed_")):
            continue
        try:
            made[f"content-{path.stem}"] = open_payload(frame, hostile.vector_keys())
        except (BatchFormatError, SealError):
            continue
    unique = {
        hashlib.sha256(data).digest(): name for name, data in reversed(made.items()) if len(data) <= MAX_BYTES
    }
    return {name: made[name] for name in sorted(unique.values())}


def main() -> None:
    folder = HERE / "corpus"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in inputs().items():
        (folder / name).write_bytes(data)
    print(f"{len(inputs())} files in {folder.relative_to(HERE.parents[1])}")


if __name__ == "__main__":
    main()
