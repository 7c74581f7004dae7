"""The plots, as SVG: a bar for each contestant of a workload, or for each client."""

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.figures import ratio_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = (
    "Time per query, as a multiple of blocking psycopg2's\n"
    "Bars are medians, lines span the 10th to the 90th percentile; shorter is better."
)
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
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def panels(workloads: Sequence[dict[str, Any]], title: str, most_columns: int = 3) -> "Figure":
    """Draw a panel for each of the *workloads* of a comparison's JSON, so many in a row."""
    columns = min(most_columns, len(workloads))
    rows = math.ceil(len(workloads) / columns)
    bars = max(len(workload["contestants"]) for workload in workloads)
    figure = _new_figure(3.4 * columns + 2, rows * (0.22 * bars + 0.7) + 0.8)
    figure.suptitle(title, size=10, x=0.01, ha="left")
    for place, workload in enumerate(workloads, start=1):
        axes = figure.add_subplot(rows, columns, place)
        entries = [*workload["contestants"].values()]
        _draw_bars(axes, workload["title"], entries, "ratio_to_blocking", ratio_text)
        axes.axvline(1, color="black", lw=1, ls="--")
        if place % columns != 1 % columns:
            axes.tick_params(labelleft=False)
    return figure


def client_bars(clients: Sequence[dict[str, Any]], connections: str, work: str) -> "Figure":
    """Draw the CPU time of the *clients* of concurrency.py's JSON."""
    figure = _new_figure(8.4, 0.3 * len(clients) + 0.9)
    title = f"Client CPU per {work}, µs, {connections} connections"
    _draw_bars(figure.subplots(), title, clients, "cpu_seconds", lambda cpu: f"{cpu * 1e6:.1f}")
    return figure


def _draw_bars(
    axes: "Axes",
    title: str,
    entries: Sequence[dict[str, Any]],
    what: str,
    write: Callable[[float], str],
) -> None:
    """Draw the medians of *what*, from top to bottom, each with its spread; write them beside."""
    spreads = [entry[what] for entry in entries]
    medians = [spread["median"] for spread in spreads]
    ours = ["greenwait" if entry.get("is_greenwait") else "python" for entry in entries]
    kinds = [entry.get("kind", other) for entry, other in zip(entries, ours, strict=True)]
    places = range(len(entries))
    axes.barh(places, medians, color=[_COLOURS[kind] for kind in kinds])
    axes.hlines(places, [each["p10"] for each in spreads], [each["p90"] for each in spreads], "k")
    # One outlier must not squash the rest: a line may run out of the panel, and has a head there.
    end = min(max(medians) * 1.5, max(each["p90"] for each in spreads) * 1.05)
    axes.set_xlim(0, end)
    cut = [place for place in places if spreads[place]["p90"] > end]
    axes.plot([end * 0.98] * len(cut), cut, "k>", markersize=7)
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_yticks(places, [entry["title"] for entry in entries])
    # All figures in one column beside the panel, where no bar or line can run through.
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(places, [write(median) for median in medians])
    axes.set_title(title, size=10, weight="bold", loc="left")
    axes.set_xticks([])
    for part in (axes, beside):
        part.spines[:].set_visible(False)
        part.tick_params(length=0)
