"""What a comparison found out: its tables, and a page with them that needs no other file.

A *document* is what ``compare.py --json`` writes.
"""

import io
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.callbacks import BLOCKING
from benchmarks.figures import digits, print_facts, ratio_text, table_of, time_text, unit_of
from benchmarks.measure import FEWEST_TO_BE_SURE
from benchmarks.plots import SUBTITLE, TITLE, panels, svg_text

__all__ = ["EXPLANATION", "FACTS", "page", "summaries", "workload_table"]

EXPLANATION = (
    "Medians per query, and between which values eight of ten rounds lie; the ratios are to "
    "blocking psycopg2 in the same round: below 1 is faster."
)
FACTS = ("machine", "versions", "settings")

# Braces of str.format. rich fills in the tables, as {code}.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>greenwait benchmark</title>
<style>
body {{ max-width: 1120px; margin: 2rem auto; padding: 0 1rem; color: #1f2933;
  font: 15px/1.55 system-ui, sans-serif; }}
svg {{ width: 100%; height: auto; }}
pre {{ overflow-x: auto; font-size: 12.5px; line-height: 1.3; }}
</style>
<h1>[headline]</h1>
[plot]
<h2>All figures</h2>
<pre>{code}</pre>
<h2>Method</h2>
<p>psycopg2 can hand each wait for the server to a <em>wait callback</em>. All contestants run in
one process, each with a connection of its own that was opened under its own callback, in autocommit
mode, so that one <code>execute()</code> is one wait. After a warm-up, in which every answer is
checked, each round runs one block of queries for every contestant, in an order shuffled anew; the
garbage collector is off within a block. A ratio compares a contestant's block with the blocking one
of the same round, so that a slow spell of the machine cancels out. Fetching the rows from the
result is not part of the time: it waits for nothing and is the same for all.</p>
<p>The fastest Python callback is chosen after the fact, workload by workload, which is in its
favour. A confidence interval that includes 1 shows no difference. The Python callbacks are written
for speed, and unlike <code>psycopg2.extras.wait_select</code> and greenwait they leave Ctrl-C
alone.</p>
<p>Where it says busy, another thread of the same process computes in pure Python all the while and
holds the GIL for 5 ms at a time (<code>sys.getswitchinterval()</code>). Blocks are then spans of
time, since queries that find the GIL free are a hundred times faster than those that do not, and
the client's CPU time is that of the querying thread alone.</p>
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


def _headline(workload: dict[str, Any]) -> str:
    told = [f"{workload['title']}, as a multiple of blocking psycopg2's time"]
    for name in ("greenwait-poll", workload["fastest_python"], "psycogreen"):
        if entry := workload["contestants"].get(name):
            told.append(f"{entry['title']} {ratio_text(entry['ratio_to_blocking']['median'])}")
    return ": ".join((told[0], ", ".join(told[1:]))) if told[1:] else told[0]


def page(document: dict[str, Any]) -> str:
    """Return it as HTML."""
    workloads = document["workloads"]
    under = f"{SUBTITLE}\n{document['settings']['pinning']} · {document['machine']['CPU']}"
    template = _PAGE.replace("[headline]", _headline(workloads[0]))
    svg = svg_text(panels(workloads, TITLE, under))
    svg = svg[svg.index("<svg") :].replace("{", "{{").replace("}", "}}")
    template = template.replace("[plot]", svg)
    recorded = Console(record=True, width=110, file=io.StringIO(), highlight=False)
    recorded.print(EXPLANATION, "")
    for table in (*summaries(document), *map(workload_table, workloads)):
        recorded.print(table, "")
    print_facts({name: document[name] for name in FACTS}, recorded)
    return recorded.export_html(code_format=template, inline_styles=True)
