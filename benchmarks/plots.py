"""The plots: one panel per workload, a bar per contestant, blocking psycopg2 at 1."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.callbacks import BLOCKING
from benchmarks.figures import ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SUBTITLE", "TITLE", "client_bars", "panels", "svg_text"]

TITLE = "Time per query, as a multiple of blocking psycopg2's"
SUBTITLE = "Bars are medians, lines span the 10th to the 90th percentile; shorter is better."
_COLUMNS = 3
_INK, _SOFT, _LINE, _GREEN_TEXT = "#1f2933", "#616e7c", "#e4e7eb", "#0b7a55"
_COLOURS = {
    "blocking": "#52606d",
    "python": "#b8c2cc",
    "greenlet": "#d9c8a3",
    "greenwait": "#16a374",
}


def svg_text(figure: "Figure") -> str:
    """Return *figure* as SVG: the same text each time, whenever and wherever that is."""
    from matplotlib import rc_context

    # Text as text: the reader's fonts draw it. The salt makes the ids of the elements.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "greenwait"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=nothing)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


def _new_figure(width: float, height: float) -> "Figure":
    # Here, because it takes a second that no measurement should wait for, and its
    # threads would not be pinned. The Figure class needs no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def panels(
    workloads: Sequence[dict[str, Any]], title: str, subtitle: str, most_columns: int = _COLUMNS
) -> "Figure":
    """Draw a panel for each of the *workloads* of a comparison's JSON, so many in a row."""
    columns = min(most_columns, len(workloads))
    rows = math.ceil(len(workloads) / columns)
    bars = max(len(workload["contestants"]) for workload in workloads)
    height = rows * (0.24 * bars + 0.75) + 1.2
    width = 4.2 * columns + (2.6 if columns == 1 else 1.6)
    figure = _new_figure(width, height)
    axes = figure.subplots(rows, columns, squeeze=False)
    for position, panel in enumerate(axes.flat):
        if position < len(workloads):
            _panel(panel, workloads[position], names=position % columns == 0)
        else:
            panel.set_visible(False)
    left = 0.16 / width
    figure.text(left, 1 - 0.16 / height, title, size=13, weight="bold", color=_INK, va="top")
    figure.text(left, 1 - 0.45 / height, subtitle, size=9, color=_SOFT, va="top", linespacing=1.4)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.85 / height), w_pad=1.2, h_pad=1.6)
    return figure


def client_bars(clients: Sequence[dict[str, Any]], connections: str) -> "Figure":
    """Draw the CPU time of the *clients* of concurrency.py's JSON."""
    clients = clients[::-1]  # matplotlib begins at the bottom
    figure = _new_figure(8.4, 0.36 * len(clients) + 0.9)
    axes = figure.subplots()
    drawn = axes.barh(
        [each["title"] for each in clients],
        [each["cpu_seconds"]["median"] * 1e6 for each in clients],
        color=[_COLOURS["greenwait" if each["is_greenwait"] else "python"] for each in clients],
    )
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set_title(f"Client CPU per select 1, µs, {connections} connections", loc="left")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xticks([])
    figure.tight_layout()
    return figure


def _panel(panel: "Axes", workload: dict[str, Any], *, names: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    entries = workload["contestants"]
    ratios = [entry["ratio_to_blocking"] for entry in entries.values()]
    kinds = [entry["kind"] for entry in entries.values()]
    text_colours = [_GREEN_TEXT if kind == "greenwait" else _INK for kind in kinds]
    weights = ["bold" if kind == "greenwait" else "normal" for kind in kinds]
    places = range(len(entries))
    panel.barh(
        places,
        [ratio["median"] for ratio in ratios],
        height=0.68,
        color=[_COLOURS[kind] for kind in kinds],
        zorder=2,
    )
    for place, name, ratio in zip(places, entries, ratios, strict=True):
        if name != BLOCKING:
            panel.plot([ratio["p10"], ratio["p90"]], [place, place], color=_INK, lw=1, zorder=3)
        # All in one column beside the panel, where no bar or line can run through.
        panel.text(
            1.02,
            place,
            "1" if name == BLOCKING else ratio_text(ratio["median"]),
            transform=panel.get_yaxis_transform(),
            va="center",
            size=9,
            color=text_colours[place],
            weight=weights[place],
        )
    panel.axvline(1, color=_INK, lw=1, ls=(0, (4, 3)), zorder=4)
    # One outlier must not squash the rest: a line may run out of the panel.
    slowest = max(ratio["median"] for ratio in ratios)
    panel.set_xlim(0, max(1.15, min(slowest * 1.5, 1.04 * max(ratio["p90"] for ratio in ratios))))
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.set_ylim(len(entries) - 0.4, -0.6)
    panel.set_title(workload["title"], size=10.5, weight="bold", color=_INK, loc="left")
    panel.set_yticks(places, [each["title"] if names else "" for each in entries.values()])
    panel.tick_params(axis="both", length=0, colors=_SOFT, labelsize=8.5)
    for place, tick in enumerate(panel.get_yticklabels()):
        tick.set_color(text_colours[place])
        tick.set_fontweight(weights[place])
    panel.grid(axis="x", color=_LINE, lw=0.8, zorder=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
