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

__all__ = ["Plot", "draw", "ratio_text", "write_pngs"]

_TITLE = "Time per query, as a multiple of blocking psycopg2's"
_BUSY_TITLE = f"{_TITLE}, beside a busy Python thread"
_COLUMNS = 3
_DPI = 160
_INK, _SOFT, _LINE, _GREEN_TEXT = "#1f2933", "#616e7c", "#e4e7eb", "#0b7a55"
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


def ratio_text(ratio: float) -> str:
    """Return *ratio* with three digits."""
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:.0f}"


def draw(outcomes: Sequence[Outcome], subtitle: str) -> list[Plot]:
    """Draw one plot, or two where there is much: beside a busy thread, and without."""
    busy = [outcome for outcome in outcomes if outcome.workload.busy]
    alone = [outcome for outcome in outcomes if not outcome.workload.busy]
    if len(busy) < _COLUMNS or not alone:
        return [Plot(_TITLE, "", _figure(outcomes, _TITLE, subtitle))]
    return [
        Plot(_TITLE, "", _figure(alone, _TITLE, subtitle)),
        Plot(_BUSY_TITLE, "-busy", _figure(busy, _BUSY_TITLE, subtitle)),
    ]


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
    height = rows * (0.24 * bars + 0.75) + 1.2
    width = 4.2 * columns + (2.6 if columns == 1 else 1.6)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for position, panel in enumerate(axes.flat):
        if position < len(outcomes):
            _panel(panel, outcomes[position], names=position % columns == 0)
        else:
            panel.set_visible(False)
    left = 0.16 / width
    figure.text(left, 1 - 0.16 / height, title, size=13, weight="bold", color=_INK, va="top")
    figure.text(left, 1 - 0.45 / height, subtitle, size=9, color=_SOFT, va="top", linespacing=1.4)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.85 / height), w_pad=1.2, h_pad=1.6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def _panel(panel: "Axes", outcome: Outcome, *, names: bool) -> None:
    from matplotlib.ticker import MaxNLocator

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
    for place, entry, ratio in zip(places, entries, ratios, strict=True):
        if entry.name != BLOCKING:
            panel.plot([ratio.p10, ratio.p90], [place, place], color=_INK, lw=1, zorder=3)
        # All in one column beside the panel, where no bar or line can run through.
        panel.text(
            1.02,
            place,
            "1" if entry.name == BLOCKING else ratio_text(ratio.median),
            transform=panel.get_yaxis_transform(),
            va="center",
            size=9,
            color=_GREEN_TEXT if entry.kind == "greenwait" else _INK,
            weight="bold" if entry.kind == "greenwait" else "normal",
        )
    panel.axvline(1, color=_INK, lw=1, ls=(0, (4, 3)), zorder=4)
    # One outlier must not squash the rest: a line may run out of the panel.
    slowest = max(ratio.median for ratio in ratios)
    panel.set_xlim(0, max(1.15, min(slowest * 1.5, 1.04 * max(ratio.p90 for ratio in ratios))))
    panel.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    panel.set_ylim(len(entries) - 0.4, -0.6)
    panel.set_title(outcome.workload.title, size=10.5, weight="bold", color=_INK, loc="left")
    panel.set_yticks(places, [entry.title if names else "" for entry in entries])
    panel.tick_params(axis="both", length=0, colors=_SOFT, labelsize=8.5)
    for tick, entry in zip(panel.get_yticklabels(), entries, strict=True):
        highlighted = entry.kind == "greenwait"
        tick.set_color(_GREEN_TEXT if highlighted else _INK)
        tick.set_fontweight("bold" if highlighted else "normal")
    panel.grid(axis="x", color=_LINE, lw=0.8, zorder=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
