"""Draws docs/performance.svg from what `python benchmarks/bytes_per_event.py --json > figures.json` printed.

Needs matplotlib, which nothing else here does: pip install matplotlib
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

OURS, OTHER = "#2a6f97", "#c9c9c9"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", type=Path, help="what `bytes_per_event.py --json` printed")
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
    figure, axes = pyplot.subplots(figsize=(7, 2.7), layout="constrained")
    draw_sizes(axes, figures["traces"])
    figure.savefig(args.output, metadata={"Date": None}, transparent=False)
    return 0


def draw_sizes(axes: Any, traces: dict[str, Any]) -> None:
    """JSON lines are left out: at 45 bytes they would dwarf the rest."""
    names = list(traces)[::-1]
    places = range(len(names))
    for shift, key, words, color in (
        (0.2, "mcilib", "mcilib", OURS),
        (-0.2, "json_gzip", "JSON + gzip", OTHER),
    ):
        values = [traces[name][key] for name in names]
        bars = axes.barh([place + shift for place in places], values, 0.38, label=words, color=color)
        axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.set_yticks(places, names)
    axes.set_title("bytes per event, as spooled (synthetic traces)", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)


if __name__ == "__main__":
    sys.exit(main())
