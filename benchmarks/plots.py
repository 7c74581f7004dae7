"""The plots: one panel per workload, a bar per contestant, blocking psycopg2 at 1."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.callbacks import BLOCKING, Contestant
from benchmarks.measure import Outcome, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Drawn",
    "Plot",
    "client_bars",
    "draw",
    "panels",
    "ratio_text",
    "write_pngs",
    "write_svg",
]

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


class Drawn(Protocol):
    """What a panel shows of a workload: a measurement's Outcome, or what was kept of one."""

    @property
    def title(self) -> str:
        """The workload's."""
        ...

    @property
    def contestants(self) -> Sequence[Contestant]:
        """Who took part, in the order of the bars."""
        ...

    def ratio(self, name: str) -> Spread:
        """Time per query, as a multiple of blocking psycopg2's."""
        ...


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
        return [Plot(_TITLE, "", _png(outcomes, _TITLE, subtitle))]
    return [
        Plot(_TITLE, "", _png(alone, _TITLE, subtitle)),
        Plot(_BUSY_TITLE, "-busy", _png(busy, _BUSY_TITLE, subtitle)),
    ]


def write_pngs(plots: Sequence[Plot], report: Path) -> list[Path]:
    """Write the plots beside *report*: ``report.png``, ``report-busy.png``."""
    paths = []
    for plot in plots:
        path = report.with_name(f"{report.stem}{plot.suffix}.png")
        path.write_bytes(plot.png)
        paths.append(path)
    return paths


def write_svg(figure: "Figure", path: Path) -> None:
    """Write *figure* to *path*: the same bytes each time, whenever and wherever that is."""
    from matplotlib import rc_context

    # Text as text: the reader's fonts draw it. The salt makes the ids of the elements.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "greenwait"}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata=nothing)
    lines = (line.rstrip() + "\n" for line in stream.getvalue().splitlines())
    path.write_text("".join(lines), encoding="utf-8")


def _png(outcomes: Sequence[Drawn], title: str, subtitle: str) -> bytes:
    stream = io.BytesIO()
    panels(outcomes, title, subtitle).savefig(stream, format="png", dpi=_DPI)
    return stream.getvalue()


def panels(
    outcomes: Sequence[Drawn], title: str, subtitle: str, most_columns: int = _COLUMNS
) -> "Figure":
    """Draw a panel for each of *outcomes*, so many in a row."""
    # Here, because it takes a second that no measurement should wait for, and its
    # threads would not be pinned. The Figure class needs no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(most_columns, len(outcomes))
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
    return figure


def client_bars(bars: Sequence[tuple[str, float, bool]], connections: int) -> "Figure":
    """Draw the CPU time of clients; of each its title, the seconds, and whether it is ours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles, seconds, ours = zip(*reversed(bars), strict=True)
    figure = Figure(figsize=(8.4, 0.36 * len(bars) + 0.9), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = [_COLOURS["greenwait" if own else "python"] for own in ours]
    drawn = axes.barh(titles, [each * 1e6 for each in seconds], color=colours)
    axes.bar_label(drawn, fmt="%.1f", padding=3)
    axes.set_title(f"Client CPU per select 1, µs, {connections} connections", loc="left")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xticks([])
    figure.tight_layout()
    return figure


def _panel(panel: "Axes", outcome: Drawn, *, names: bool) -> None:
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
    panel.set_title(outcome.title, size=10.5, weight="bold", color=_INK, loc="left")
    panel.set_yticks(places, [entry.title if names else "" for entry in entries])
    panel.tick_params(axis="both", length=0, colors=_SOFT, labelsize=8.5)
    for tick, entry in zip(panel.get_yticklabels(), entries, strict=True):
        highlighted = entry.kind == "greenwait"
        tick.set_color(_GREEN_TEXT if highlighted else _INK)
        tick.set_fontweight("bold" if highlighted else "normal")
    panel.grid(axis="x", color=_LINE, lw=0.8, zorder=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
