"""The flat schema of exports: one record per row, the same fields in JSON lines, Arrow and Parquet."""

from __future__ import annotations

from typing import Any

from mcilib.events import (
    Display,
    Event,
    Focus,
    Gap,
    KeyPress,
    KeyRelease,
    Layout,
    Move,
    Press,
    Release,
    Scroll,
)
from mcilib.reader.events import Row

FIELDS = (
    "t_ns", "kind",
    "x", "y", "button", "dx", "dy", "count", "key", "synthetic",
    "duration_ns", "source",
    "display", "width", "height", "scale", "rotation",
    "layout", "app", "title",
    "monotonic_ns", "boot", "participant", "device", "batch", "seq", "i",
)  # fmt: skip
"""All of them, in order. What each means: `docs/how-to/read-the-data.md`."""


def record(row: Row) -> dict[str, Any]:
    """One row as `write_jsonl` writes it: plain values in the order of `FIELDS`, those that apply to its kind."""
    header, metadata = row.header, row.metadata
    return {
        "t_ns": row.wall_ns,
        "kind": row.event.kind,
        **own_fields(row.event),
        "monotonic_ns": row.event.t_ns,
        "boot": metadata.boot,
        "participant": header.participant,
        "device": header.device,
        "batch": header.batch_id,
        "seq": header.sequence,
        "i": row.index,
    }


def own_fields(event: Event) -> dict[str, Any]:
    """Those that only some kinds have. `synthetic` is left out where the system does not tell."""
    fields: dict[str, Any]
    match event:
        case Move():
            fields = {"x": event.x, "y": event.y}
        case Press() | Release():
            fields = {"x": event.x, "y": event.y, "button": event.button}
        case Scroll():
            fields = {"x": event.x, "y": event.y, "dx": event.dx, "dy": event.dy, "count": event.count}
        case KeyPress() | KeyRelease():
            fields = {"key": event.key}
        case Gap():
            return {"duration_ns": event.duration_ns, "source": event.source}
        case Display():
            return {
                "x": event.x, "y": event.y, "display": event.display, "width": event.width,
                "height": event.height, "scale": event.scale, "rotation": event.rotation,
            }  # fmt: skip
        case Layout():
            return {"layout": event.name}
        case Focus():
            return {
                "x": event.x, "y": event.y, "width": event.width, "height": event.height,
                "app": event.app, "title": event.title,
            }  # fmt: skip
    if event.synthetic is not None:
        fields["synthetic"] = event.synthetic
    return fields
