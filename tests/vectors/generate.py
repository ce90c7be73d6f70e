"""Writes the test vectors: one small function per case, and what is expected of it written by hand.

python tests/vectors/generate.py            write those that are missing
python tests/vectors/generate.py --check    compare those that are there, and name the ones that differ
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]

from mcilib.errors import BatchFormatError, SealError  # noqa: E402
from mcilib.format.batch import Batch, decode, open_payload  # noqa: E402


@dataclass(frozen=True)
class Case:
    """One vector."""

    about: str
    rules: tuple[str, ...]
    frame: Callable[[], bytes]
    """Called when it is needed: sealing gives other bytes each time."""
    batch: Batch | None = None
    """What is read; None when it is refused, for the first of the rules."""
    canonical: bool = True
    version: int = 1
    identities: tuple[str, ...] = field(default=())


def all_cases() -> dict[str, Case]:
    import cases_bad
    import cases_good

    return {**cases_good.cases(), **cases_bad.cases()}


def plain(value: Any) -> Any:
    """Integers that JSON numbers do not hold everywhere, as text."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    return value


def expected(case: Case, frame: bytes) -> dict[str, Any]:
    """The content of the JSON file."""
    told: dict[str, Any] = {"about": case.about, "rules": list(case.rules)}
    if case.identities:
        told["identities"] = list(case.identities)
    if case.batch is None:
        try:
            decode(frame, case.identities)
        except BatchFormatError as error:
            return told | {"refused": case.rules[0], "reason": error.reason, "offset": error.offset}
        except SealError as error:
            return told | {"refused": case.rules[0], "reason": error.problem, "offset": 0}
        raise SystemExit(f"generate: {case.about}: it is not refused")
    metadata = asdict(case.batch.metadata)
    anchor = metadata.pop("anchor")
    if not metadata["backends"]:  # vectors that are older than it do not change
        del metadata["backends"]
    if not metadata["audit"]:
        del metadata["audit"]
    read: dict[str, Any] = plain(
        {
            "version": case.version,
            "canonical": case.canonical,
            "header": asdict(case.batch.header),
            "metadata": anchor | metadata,
            "rows": [
                {
                    "t_ns": event.t_ns,
                    "wall_ns": case.batch.metadata.anchor.to_wall_ns(event.t_ns),
                    "kind": event.kind,
                }
                | {name: value for name, value in asdict(event).items() if name != "t_ns"}
                for event in case.batch.events
            ],
        }
    )
    return told | read


def content(frame: bytes, identities: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Header and what is inside the payload; the bytes themselves where it cannot be opened."""
    from batches import parts

    try:
        opened = open_payload(frame, identities)
        return parts(frame)[0], opened
    except (BatchFormatError, SealError):
        return b"", frame


def differences() -> Iterator[str]:
    """Vectors that are not what the cases say, and files that belong to no case."""
    cases = all_cases()
    for name, case in cases.items():
        path, fresh = HERE / f"{name}.mcib", case.frame()
        try:
            kept = path.read_bytes()
            told = json.loads(path.with_suffix(".json").read_text("ascii"))
        except (OSError, ValueError) as error:
            yield f"{name}: {error}"
            continue
        if not case.identities and content(kept, ()) != content(fresh, ()):
            yield f"{name}.mcib is not what its case makes"
        if told != expected(case, kept):
            yield f"{name}.json is not what its case expects"
    for path in sorted(HERE.glob("*.mcib")):
        if path.stem not in cases:
            yield f"{path.name} has no case"


def main() -> None:
    if "--check" in sys.argv:
        wrong = list(differences())
        sys.exit("\n".join(wrong) if wrong else 0)
    for name, case in all_cases().items():
        path = HERE / f"{name}.mcib"
        if not path.exists():
            path.write_bytes(case.frame())
            print(f"wrote {path.name}")
        text = json.dumps(expected(case, path.read_bytes()), indent=1) + "\n"
        target = path.with_suffix(".json")
        if not target.exists() or target.read_text("ascii") != text:
            target.write_text(text, "ascii")


if __name__ == "__main__":
    main()
