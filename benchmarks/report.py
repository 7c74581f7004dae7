"""The tables of what a comparison has found out, as they are printed.

A *document* is what ``compare.py --json`` writes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from benchmarks.callbacks import BLOCKING
from benchmarks.figures import digits, ratio_text, table_of, time_text, unit_of
from benchmarks.measure import FEWEST_TO_BE_SURE

EXPLANATION = (
    "Medians per query, and between which values eight of ten rounds lie; the ratios are to "
    "blocking psycopg2 in the same round: below 1 is faster."
)
FACTS = ("machine", "versions", "settings")


def _span(spread: dict[str, float]) -> str:
    unit, scale = unit_of(spread["median"])
    return f"{digits(spread['p10'] * scale)} - {digits(spread['p90'] * scale)} {unit}"


def _note(workload: dict[str, Any]) -> str:
    rounds = f"{workload['rounds']} x {workload['block']}"
    return f"{workload['cores']}; {rounds}" if "cores" in workload else rounds


def workload_table(workload: dict[str, Any]) -> Table:
    """Return every figure of one workload."""
    table = table_of(
        workload["title"],
        ("per query", "10 - 90 %", "client CPU", "ratio", "10 - 90 %"),
        (),
        note=_note(workload),
    )
    for name, entry in workload["contestants"].items():
        ratio = entry["ratio_to_blocking"]
        ratios = ("1", "")
        if name != BLOCKING:
            span = f"{ratio_text(ratio['p10'])} - {ratio_text(ratio['p90'])}"
            ratios = (ratio_text(ratio["median"]), span)
        table.add_row(
            entry["title"],
            time_text(entry["seconds"]["median"]),
            _span(entry["seconds"]),
            time_text(entry["cpu_seconds"]["median"]),
            *ratios,
            style="green" if entry["kind"] == "greenwait" else None,
        )
    return table


def summaries(document: dict[str, Any]) -> Iterator[Table]:
    """Yield greenwait against the fastest of the Python callbacks, where both took part."""
    rows = []
    for workload in document["workloads"]:
        ratio = workload["greenwait_to_fastest_python"]
        if ratio is not None:
            fastest = workload["contestants"][workload["fastest_python"]]["title"]
            surely = f"{ratio_text(ratio['low'])} - {ratio_text(ratio['high'])}"
            if workload["rounds"] < FEWEST_TO_BE_SURE:
                surely = "too few rounds"
            rows.append((workload["title"], fastest, ratio_text(ratio["median"]), surely))
    if rows:
        headings = ("the fastest", "ratio", "median, 95 % sure")
        yield table_of("greenwait (poll) against the fastest Python callback", headings, rows)


def behaviour_table(found: Mapping[str, Any]) -> Table:
    """Return what each callback did in each situation."""
    table = table_of("Behaviour, each tried", (), ())
    for title in found["callbacks"].values():
        table.add_column(title, min_width=16)
    for row in found["situations"]:
        cells = []
        for name in found["callbacks"]:
            lines = [
                f"[{'green' if each['is_good'] else 'red'}]{'+' if each['is_good'] else '-'}[/] "
                f"{escape(each['text'])}"
                for each in row["cells"][name]
            ]
            cells.append("\n".join(lines))
        table.add_row(row["title"], *cells)
    return table
