"""The plots: one panel per workload, a bar per contestant, blocking psycopg2 at 1."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.callbacks import BLOCKING
from benchmarks.measure import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plot", "draw", "write_pngs"]

_COLUMNS = 3
_DPI = 160
_INK, _SOFT, _LINE = "#1f2933", "#616e7c", "#e4e7eb"
_COLOURS = {
    "blocking": "#52606d",
    "python": "#b8c2cc",
    "greenlet": "#d9c8a3",
    "greenwait": "#16a374",
}


@dataclass(frozen=True)
class Plot:
    """A finished PNG; ``suffix`` tells the files of one report apart."""

    title: str
    suffix: str
    png: bytes


def draw(outcomes: Sequence[Outcome], subtitle: str) -> list[Plot]:
    """Draw the workloads alone, and those beside a busy thread: a plot for each that there is."""
    plots = []
    for busy, title in (
        (False, "psycopg2 wait callbacks: time per query, as a multiple of blocking psycopg2"),
        (True, "The same beside a thread that is busy in Python"),
    ):
        chosen = [outcome for outcome in outcomes if outcome.workload.busy is busy]
        if chosen:
            suffix = "-busy" if busy and len(chosen) < len(outcomes) else ""
            plots.append(Plot(title, suffix, _figure(chosen, title, subtitle)))
    return plots


def write_pngs(plots: Sequence[Plot], report: Path) -> list[Path]:
    """Write the plots beside *report*: ``report.png``, ``report-busy.png``."""
    paths = []
    for plot in plots:
        path = report.with_name(f"{report.stem}{plot.suffix}.png")
        path.write_bytes(plot.png)
        paths.append(path)
    return paths


def _figure(outcomes: Sequence[Outcome], title: str, subtitle: str) -> bytes:
    # Here, because it takes a second that no measurement should wait for, and its
    # threads would not be pinned. The Figure class needs no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(outcomes))
    rows = math.ceil(len(outcomes) / columns)
    bars = max(len(outcome.contestants) for outcome in outcomes)
    height = rows * (0.24 * bars + 0.75) + 1.15
    figure = Figure(figsize=(4.2 * columns + 1.6, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for position, panel in enumerate(axes.flat):
        if position < len(outcomes):
            _panel(panel, outcomes[position], names=position % columns == 0)
        else:
            panel.set_visible(False)
    figure.text(0.012, 1 - 0.18 / height, title, size=14, weight="bold", color=_INK, va="top")
    figure.text(0.012, 1 - 0.48 / height, subtitle, size=9, color=_SOFT, va="top")
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.72 / height), w_pad=1.6, h_pad=1.6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def _panel(panel: "Axes", outcome: Outcome, *, names: bool) -> None:
    entries = outcome.contestants
    ratios = [outcome.ratio(entry.name) for entry in entries]
    places = range(len(entries))
    panel.barh(
        places,
        [ratio.median for ratio in ratios],
        height=0.68,
        color=[_COLOURS[entry.kind] for entry in entries],
        zorder=2,
    )
    # One outlier must not squash the rest: a whisker may run out of the panel.
    end = max(1.15, max(ratio.median for ratio in ratios) * 1.45)
    for place, entry, ratio in zip(places, entries, ratios, strict=True):
        if entry.name != BLOCKING:
            panel.plot([ratio.p10, ratio.p90], [place, place], color=_INK, lw=1.1, zorder=3)
        label = "1" if entry.name == BLOCKING else f"{ratio.median:.2f}"
        inside = max(ratio.median, 0 if entry.name == BLOCKING else ratio.p90)
        panel.annotate(
            label,
            (min(inside, end * 0.84), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            size=8.5,
            color=_COLOURS["greenwait"] if entry.kind == "greenwait" else _INK,
            weight="bold" if entry.kind == "greenwait" else "normal",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
    panel.axvline(1, color=_COLOURS["blocking"], lw=1, ls=(0, (3, 2)), zorder=1)
    panel.set_xlim(0, end)
    panel.set_ylim(len(entries) - 0.4, -0.6)
    panel.set_title(outcome.workload.title, size=10.5, weight="bold", color=_INK, loc="left")
    panel.set_yticks(places, [entry.title for entry in entries], size=9)
    panel.tick_params(axis="both", length=0, colors=_SOFT, labelsize=8.5, labelleft=names)
    for tick, entry in zip(panel.get_yticklabels(), entries, strict=True):
        highlighted = entry.kind == "greenwait"
        tick.set_color(_COLOURS["greenwait"] if highlighted else _INK)
        tick.set_fontweight("bold" if highlighted else "normal")
    panel.grid(axis="x", color=_LINE, lw=0.8, zorder=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
