"""Draws what `python benchmarks/wire_size.py --json > figures.json` printed as docs/performance.svg, and what
`python benchmarks/fleet.py --json > figures.json` printed as docs/performance-delivery.svg.

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

import fleet
import wire_size

OURS, OTHER = "#2a6f97", "#c9c9c9"
COLORS = {
    "mcilib": OURS,
    "mcilib, told": OURS,
    "mcilib, not told": "#8ab6d6",
    "sentry-native": "#e07a5f",
    "Segment": "#81b29a",
    "exponential": "#8d8d8d",
    "exponential, full jitter": "#c9a227",
    "exponential, told, at once": "#b9a3c9",
}
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
    parser.add_argument("figures", type=Path, help="what one of the two printed with --json")
    parser.add_argument("-o", "--output", type=Path, help="another file than the one in docs/")
    args = parser.parse_args()
    try:
        matplotlib, pyplot = import_module("matplotlib"), import_module("matplotlib.pyplot")
    except ImportError:
        print("plot.py needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 2
    figures = json.loads(args.figures.read_text())
    # The same figures give the same file: no date, no random ids, letters as text.
    matplotlib.rcParams.update({"svg.hashsalt": "mcilib", "svg.fonttype": "none", "font.size": 9})
    if "outage" in figures:
        figure, name = draw_fleet(pyplot, figures), "performance-delivery.svg"
    else:
        groups = wire_size.groups(figures)
        figure, panels = pyplot.subplots(
            1, len(groups), figsize=(7.2, 2.8), layout="constrained", squeeze=False
        )
        for axes, (source, results) in zip(panels[0], groups.items(), strict=True):
            draw_sizes(axes, source, results)
        name = "performance.svg"
    figure.savefig(args.output or Path("docs") / name, metadata={"Date": None}, transparent=False)
    return 0


def draw_fleet(pyplot: Any, figures: dict[str, Any]) -> Any:
    """The highest 10 s of each minute over time: the outage above, the office below."""
    figure, panels = pyplot.subplots(2, 1, figsize=(7.2, 5.4), layout="constrained", sharex=True)
    for axes, runs, most, title in (
        (panels[0], figures["outage"], fleet.PEAK_MAX, f"{figures['agents']:,} agents, outage of 2 h"),
        (
            panels[1],
            figures["office"],
            fleet.OFFICE_PEAK_MAX,
            f"{figures['office_agents']:,} agents of an office, its network gone for 2 h",
        ),
    ):
        axes.axvspan(fleet.BEGIN / fleet.HOUR, fleet.END / fleet.HOUR, color="#f2f2f2", linewidth=0)
        axes.axhline(most, color="#b23a48", linewidth=0.8, linestyle=":")
        for run in reversed([run for run in runs if run["schedule"] in COLORS]):
            minutes = run["peak_by_minute"]
            hours = [number / 60 for number in range(len(minutes))]
            color = COLORS[run["schedule"]]
            width = 1.4 if color == OURS else 0.8
            axes.plot(hours, minutes, color=color, linewidth=width, label=run["schedule"])
        axes.set_yscale("log", base=2)
        axes.set_ylim(0.25, 512 if axes is panels[1] else 32)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_ylabel("requests in 10 s, steady = 1")
        axes.set_title(title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), reverse=True)
    panels[1].set_xlabel("hours")
    return figure


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
