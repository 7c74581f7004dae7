"""What a comparison found out: its tables, and a page with them that needs no other file.

A *document* is what ``compare.py --json`` writes.
"""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.callbacks import BLOCKING
from benchmarks.figures import digits, ratio_text, table_of, time_text, unit_of
from benchmarks.measure import FEWEST_TO_BE_SURE
from benchmarks.plots import TITLE, panels, svg_text

EXPLANATION = (
    "Medians per query, and between which values eight of ten rounds lie; the ratios are to "
    "blocking psycopg2 in the same round: below 1 is faster."
)
FACTS = ("machine", "versions", "settings")

# Braces of str.format. rich fills in what was printed, as {code}.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>greenwait benchmark</title>
<style>
body {{ max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }}
svg {{ width: 100%; height: auto; }}
pre {{ overflow-x: auto; font-size: 12.5px; line-height: 1.3; }}
</style>
<h1>greenwait benchmark</h1>
[plot]
<pre>{code}</pre>
</html>
"""


def _span(spread: dict[str, float]) -> str:
    unit, scale = unit_of(spread["median"])
    return f"{digits(spread['p10'] * scale)} - {digits(spread['p90'] * scale)} {unit}"


def workload_table(workload: dict[str, Any]) -> Table:
    """Return every figure of one workload."""
    table = table_of(
        workload["title"],
        ("per query", "10 - 90 %", "client CPU", "ratio", "10 - 90 %"),
        (),
        note=f"{workload['rounds']} x {workload['block']}",
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


def page(document: dict[str, Any], printed: Console) -> str:
    """Return the plot of it, and all that was *printed* on that console, as HTML."""
    under = f"{document['settings']['pinning']} · {document['machine']['CPU']}"
    svg = svg_text(panels(document["workloads"], f"{TITLE}\n{under}"))
    svg = svg[svg.index("<svg") :].replace("{", "{{").replace("}", "}}")
    return printed.export_html(code_format=_PAGE.replace("[plot]", svg), inline_styles=True)
