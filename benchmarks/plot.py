"""Draws what `python benchmarks/wire_size.py --json > figures.json` printed as docs/performance.svg, what
`python benchmarks/fleet.py --json > figures.json` printed as docs/performance-delivery.svg, and what
`python benchmarks/fidelity.py --json > figures.json` printed as docs/performance-fidelity.svg.

Needs matplotlib, which nothing else here does: pip install matplotlib
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
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
    parser.add_argument("figures", type=Path, help="what one of the three printed with --json")
    parser.add_argument("-o", "--output", type=Path, help="another file than the one in docs/")
    args = parser.parse_args()
    return save(json.loads(args.figures.read_text()), args.output)


def save(figures: Any, output: Path | None = None) -> int:
    """Draws them into that file, or the one in docs/; 2 when there is no matplotlib."""
    try:
        matplotlib, pyplot = import_module("matplotlib"), import_module("matplotlib.pyplot")
    except ImportError:
        print("plot.py needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 2
    # The same figures give the same file: no date, no random ids, letters as text.
    matplotlib.rcParams.update({"svg.hashsalt": "mcilib", "svg.fonttype": "none", "font.size": 9})
    if "geometric_mean" in figures:
        figure, name = draw_fidelity(pyplot, figures), "performance-fidelity.svg"
    elif "outage" in figures:
        figure, name = draw_fleet(pyplot, figures), "performance-delivery.svg"
    else:
        groups = wire_size.groups(figures)
        figure, panels = pyplot.subplots(
            1, len(groups), figsize=(7.2, 2.8), layout="constrained", squeeze=False
        )
        for axes, (source, results) in zip(panels[0], groups.items(), strict=True):
            draw_sizes(axes, source, results)
        name = "performance.svg"
    figure.savefig(output or Path("docs") / name, metadata={"Date": None}, transparent=False)
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


def draw_fidelity(pyplot: Any, figures: dict[str, Any]) -> Any:
    """The 99th percentile of the path's error over bytes, one panel for each trace."""
    results = figures["traces"]
    columns = min(4, len(results))
    rows = -(-len(results) // columns)
    figure, panels = pyplot.subplots(
        rows, columns, figsize=(7.2, 0.4 + 2.2 * rows), layout="constrained", squeeze=False, sharey=True
    )
    for axes in panels.flat[len(results) :]:
        axes.axis("off")
    for axes, one in zip(panels.flat, results, strict=False):
        for way, color, marker in (("cap", OTHER, "."), ("thinned", OURS, "o")):
            ours = [result for result in one["results"] if result["way"] == way and result["p99_px"] >= 0.5]
            ours.sort(key=lambda result: result["value"])
            sizes, errors = ([result[key] for result in ours] for key in ("bytes_per_event", "p99_px"))
            label = {"cap": "rate cap", "thinned": "mcilib"}[way]
            axes.plot(sizes, errors, color=color, marker=marker, markersize=4, linewidth=1, label=label)
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(one["trace"].removeprefix("pointer_"), loc="left", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].legend(frameon=False, fontsize=7)
    figure.supxlabel("bytes per event", fontsize=8)
    figure.supylabel("99th percentile of the error, px", fontsize=8)
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


# --- without matplotlib -------------------------------------------------------------------------------------

_NAMES_PX, _BAR_PX, _ROW_PX, _HEAD_PX = 130, 190, 20, 46


def bars(title: str, panels: Mapping[str, Mapping[str, float]], ours: Sequence[str] = ()) -> str:
    """A picture as SVG: panels of bars side by side, each with its own scale; `ours` in our color."""
    rows = max(map(len, panels.values()))
    width, height = len(panels) * (_NAMES_PX + _BAR_PX + 60), _HEAD_PX + rows * _ROW_PX + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="13">{escape(title)}</text>',
    ]
    for number, (unit, values) in enumerate(panels.items()):
        left = number * (_NAMES_PX + _BAR_PX + 60) + _NAMES_PX
        most = max(values.values(), default=0) or 1
        lines.append(f'<text x="{left}" y="37" fill="#555">{escape(unit)}</text>')
        for row, (name, value) in enumerate(values.items()):
            top, length = _HEAD_PX + row * _ROW_PX, value / most * _BAR_PX
            color = OURS if name in ours else OTHER
            lines += [
                f'<text x="{left - 6}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{left}" y="{top}" width="{length:.1f}" height="15" fill="{color}"/>',
                f'<text x="{left + length + 4:.1f}" y="{top + 12}">{_figure(value)}</text>',
            ]
    return "\n".join([*lines, "</svg>", ""])


# --- over time, without matplotlib --------------------------------------------------------------------------

_LEFT_PX, _WIDE_PX, _PANEL_PX, _GAP_PX = 96, 760, 64, 18


@dataclass(frozen=True)
class Panel:
    """One quantity over time. `points` are (seconds, value) in order; with `names` a value is an index into them, and
    it stays until the next point."""

    words: str
    points: Sequence[tuple[float, float]]
    names: Sequence[str] = ()
    steps: bool = False


def _figure(value: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def over_time(title: str, seconds: float, bands: Sequence[tuple[float, str]], panels: Sequence[Panel]) -> str:
    """A picture as SVG: panels one below the other, over bands (where each begins, and its name) that all share."""
    height = _HEAD_PX + 36 + len(panels) * (_PANEL_PX + _GAP_PX)
    top = _HEAD_PX + 18
    bottom = top + len(panels) * (_PANEL_PX + _GAP_PX) - _GAP_PX + 14
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT_PX + _WIDE_PX + 16}" height="{height}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{_LEFT_PX + _WIDE_PX + 16}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="13">{escape(title)}</text>',
    ]

    def at(second: float) -> float:
        return _LEFT_PX + min(max(second / seconds, 0.0), 1.0) * _WIDE_PX

    for number, (begin_s, name) in enumerate(bands):
        end_s = bands[number + 1][0] if number + 1 < len(bands) else seconds
        color = "#f2f2f2" if number % 2 else "#fafafa"
        lines += [
            f'<rect x="{at(begin_s):.1f}" y="{top}" width="{at(end_s) - at(begin_s):.1f}" height="{bottom - top}" '
            f'fill="{color}"/>',
            f'<text x="{(at(begin_s) + at(end_s)) / 2:.1f}" y="{top - 6}" text-anchor="middle" '
            f'font-size="9">{escape(name)}</text>',
        ]
    for number, panel in enumerate(panels):
        lines += _panel(panel, top + number * (_PANEL_PX + _GAP_PX) + 10, at, seconds)
    lines.append(f'<text x="{_LEFT_PX + _WIDE_PX}" y="{height - 6}" text-anchor="end">{seconds:.0f} s</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: float, at: Callable[[float], float], seconds: float) -> list[str]:
    most = len(panel.names) - 1 if panel.names else max((value for _, value in panel.points), default=0)
    most = most or 1

    def height(value: float) -> float:
        return top + _PANEL_PX - value / most * (_PANEL_PX - 12)

    lines = [f'<text x="8" y="{top + 1:.1f}" fill="#555">{escape(panel.words)}</text>']
    marks: list[tuple[float, str]] = [*enumerate(panel.names)] or [(0, "0"), (most, _figure(most))]
    for value, name in marks:
        lines += [
            f'<text x="{_LEFT_PX - 6}" y="{height(value) + 3:.1f}" text-anchor="end">{escape(name)}</text>',
            f'<line x1="{_LEFT_PX}" x2="{_LEFT_PX + _WIDE_PX}" y1="{height(value):.1f}" y2="{height(value):.1f}" '
            'stroke="#e0e0e0" stroke-width="0.5"/>',
        ]
    places = [(at(second), height(value)) for second, value in panel.points]
    if panel.names or panel.steps:  # each holds until the next
        ends = [*(x for x, _ in places[1:]), at(seconds)]
        places = [spot for (x, y), end in zip(places, ends, strict=True) for spot in ((x, y), (end, y))]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return [*lines, f'<polyline points="{line}" fill="none" stroke="{OURS}" stroke-width="1.4"/>']


if __name__ == "__main__":
    sys.exit(main())
