"""Draws docs/performance.svg from what `python benchmarks/wire_size.py --json > figures.json` printed.

Needs matplotlib, which nothing else here does: pip install matplotlib
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import wire_size

OURS, OTHER = "#2a6f97", "#c9c9c9"
CODECS = {
    "mcilib": "mcilib-default",
    "differences + zstd-19": "differences-zstd-19",
    "Parquet": "parquet-zstd",
    "Arrow IPC": "arrow-ipc-zstd",
    "msgspec + zstd": "msgspec-zstd",
    "msgpack + zstd-3": "msgpack-zstd-3",
    "JSON + gzip": "json-gzip",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="what `wire_size.py --json` printed")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("docs/performance.svg"), help="default docs/performance.svg"
    )
    args = parser.parse_args()
    try:
        matplotlib, pyplot = import_module("matplotlib"), import_module("matplotlib.pyplot")
    except ImportError:
        print("plot.py needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 2
    figures = json.loads(args.figures.read_text())
    # The same figures give the same file: no date, no random ids, letters as text.
    matplotlib.rcParams.update({"svg.hashsalt": "mcilib", "svg.fonttype": "none", "font.size": 9})
    groups = wire_size.groups(figures)
    figure, panels = pyplot.subplots(1, len(groups), figsize=(7.2, 2.8), layout="constrained", squeeze=False)
    for axes, (source, results) in zip(panels[0], groups.items(), strict=True):
        draw_sizes(axes, source, results)
    figure.savefig(args.output, metadata={"Date": None}, transparent=False)
    return 0


def draw_sizes(axes: Any, source: str, results: list[dict[str, Any]]) -> None:
    """Geometric means. JSON lines are left out: at 45 bytes they would dwarf the rest."""
    found = {words: name for words, name in CODECS.items() if name in results[0]["bytes_per_event"]}
    sizes = [statistics.geometric_mean(map(wire_size.size(name), results)) for name in found.values()]
    colors = [OURS if name.startswith("mcilib") else OTHER for name in found.values()]
    bars = axes.barh(list(found), sizes, 0.7, color=colors)
    axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.invert_yaxis()
    axes.set_title(f"{source}: bytes per event", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.14)


if __name__ == "__main__":
    sys.exit(main())
