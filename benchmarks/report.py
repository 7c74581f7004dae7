"""What is told about a run: the tables on the terminal, the JSON file, the HTML page."""

import base64
import html
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.callbacks import BLOCKING, GREENWAIT
from benchmarks.measure import Outcome, Spread
from benchmarks.page import PAGE, STYLE
from benchmarks.plots import Plot

__all__ = ["Run", "print_tables", "write_html", "write_json"]


@dataclass(frozen=True)
class Run:
    """Everything that one call of compare.py found out."""

    outcomes: list[Outcome]
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    skipped: dict[str, str]  # contestants that can't run here, and why


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            scaled = seconds * scale
            return f"{scaled:.{0 if scaled >= 100 else 1 if scaled >= 10 else 2}f} {unit}"
    raise AssertionError


def _times(spread: Spread) -> str:
    return f"{_time(spread.p10)} - {_time(spread.p90)}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"


def _ratios(spread: Spread) -> str:
    return f"{_ratio(spread.p10)} - {_ratio(spread.p90)}"


def _details(outcome: Outcome) -> str:
    queries = "1 query" if outcome.queries == 1 else f"{outcome.queries} queries"
    rounds = len(outcome.samples[BLOCKING])
    return f"{rounds} {'round' if rounds == 1 else 'rounds'} of {queries}"


def _against_python(outcome: Outcome) -> tuple[str, Spread] | None:
    """Return the fastest Python callback's title, and greenwait's ratio to it, where both ran."""
    fastest = outcome.fastest_python()
    if fastest is None or GREENWAIT not in outcome.samples:
        return None
    title = next(entry.title for entry in outcome.contestants if entry.name == fastest)
    return title, outcome.ratio(GREENWAIT, to=fastest)


# -- The terminal


def print_tables(run: Run, console: Console) -> None:
    """Print every figure, then greenwait against the fastest of the Python callbacks."""
    table = Table(title="Time per query; ratios are to blocking psycopg2", title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("median", "10 - 90 %", "client CPU", "ratio", "10 - 90 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in run.outcomes:
        table.add_section()
        table.add_row(
            f"[bold]{outcome.workload.title}[/]", "", "", "", "", f"[dim]{_details(outcome)}[/]"
        )
        for entry in outcome.contestants:
            seconds, ratio = outcome.seconds(entry.name), outcome.ratio(entry.name)
            table.add_row(
                f"  {entry.title}",
                _time(seconds.median),
                _times(seconds),
                _time(outcome.cpu_seconds(entry.name).median),
                "1" if entry.name == BLOCKING else _ratio(ratio.median),
                "" if entry.name == BLOCKING else _ratios(ratio),
                style="green" if entry.kind == "greenwait" else None,
            )
    console.print(table)
    _print_against_python(run, console)
    for heading, facts in (("on", run.machine), ("with", run.versions), ("how", run.settings)):
        text = "; ".join(f"{name} {value}" for name, value in facts.items())
        console.print(f"[dim]{heading}:[/] {text}", highlight=False)
    for name, reason in run.skipped.items():
        console.print(f"[dim]left out:[/] {name}, {reason}", highlight=False)


def _print_against_python(run: Run, console: Console) -> None:
    table = Table(
        title="greenwait (poll) against the fastest Python callback", title_justify="left"
    )
    for heading in ("", "fastest Python"):
        table.add_column(heading, no_wrap=True)
    for heading in ("ratio", "10 - 90 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in run.outcomes:
        against = _against_python(outcome)
        if against is not None:
            title, ratio = against
            table.add_row(outcome.workload.title, title, _ratio(ratio.median), _ratios(ratio))
    if table.row_count:
        console.print(table)


# -- JSON


def write_json(run: Run, path: Path) -> None:
    """Write every figure and every sample. Times are in seconds, per query."""
    document = {
        "format": 1,
        "machine": run.machine,
        "versions": run.versions,
        "settings": run.settings,
        "skipped": run.skipped,
        "workloads": [_outcome_as_json(outcome) for outcome in run.outcomes],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _outcome_as_json(outcome: Outcome) -> dict[str, object]:
    against = _against_python(outcome)
    return {
        "name": outcome.workload.name,
        "title": outcome.workload.title,
        "transport": outcome.workload.transport,
        "busy_thread": outcome.workload.busy,
        "queries_per_block": outcome.queries,
        "rounds": len(outcome.samples[BLOCKING]),
        "contestants": {
            entry.name: {
                "title": entry.title,
                "seconds": asdict(outcome.seconds(entry.name)),
                "cpu_seconds": asdict(outcome.cpu_seconds(entry.name)),
                "ratio_to_blocking": asdict(outcome.ratio(entry.name)),
                "samples": [asdict(sample) for sample in outcome.samples[entry.name]],
            }
            for entry in outcome.contestants
        },
        "fastest_python": outcome.fastest_python(),
        "greenwait_to_fastest_python": asdict(against[1]) if against else None,
    }


# -- HTML


def write_html(run: Run, plots: list[Plot], path: Path) -> None:
    """Write one page that needs no other file: the plots are inside it."""
    page = PAGE.format(
        style=STYLE,
        headline=html.escape(_headline(run)),
        subline=html.escape(
            f"{run.machine['date']} · {run.machine['CPU']} · {run.settings['cores']}"
        ),
        plots="\n".join(_figure(plot) for plot in plots),
        overview=_overview(run),
        against=_against_table(run),
        details="\n".join(_detail(outcome) for outcome in run.outcomes),
        machine=_facts(run.machine),
        versions=_facts(run.versions),
        settings=_facts(run.settings | {f"left out: {k}": v for k, v in run.skipped.items()}),
        switch_interval=f"{sys.getswitchinterval() * 1e3:.0f}",
    )
    path.write_text(page, encoding="utf-8")


def _headline(run: Run) -> str:
    outcome = run.outcomes[0]
    if GREENWAIT not in outcome.samples:
        return "psycopg2 wait callbacks compared"
    ratio = _ratio(outcome.ratio(GREENWAIT).median)
    text = f"{outcome.workload.title}: greenwait takes {ratio} of blocking psycopg2's time"
    fastest = outcome.fastest_python()
    if fastest is not None:
        text += f", the fastest Python callback {_ratio(outcome.ratio(fastest).median)}"
    return text


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.png).decode("ascii")
    return (
        f'<figure><img alt="{html.escape(plot.title)}" src="data:image/png;base64,{data}"></figure>'
    )


def _row(cells: list[str], kind: str = "", tag: str = "td") -> str:
    inner = "".join(f"<{tag}>{cell}</{tag}>" for cell in cells)
    return f'<tr class="{kind}">{inner}</tr>'


def _overview(run: Run) -> str:
    entries = run.outcomes[0].contestants
    rows = [_row(["", *(html.escape(entry.title) for entry in entries)], tag="th")]
    for outcome in run.outcomes:
        medians = {entry.name: outcome.ratio(entry.name).median for entry in entries}
        best = min((value for name, value in medians.items() if name != BLOCKING), default=None)
        cells = [html.escape(outcome.workload.title)]
        for entry in entries:
            value = medians[entry.name]
            kind = f"{entry.kind}{' best' if value == best and entry.name != BLOCKING else ''}"
            text = "1" if entry.name == BLOCKING else _ratio(value)
            cells.append(f'<span class="{kind}">{text}</span>')
        rows.append(_row(cells))
    return f"<table>{''.join(rows)}</table>"


def _against_table(run: Run) -> str:
    rows = [_row(["", "fastest Python callback", "ratio", "10 - 90 %"], tag="th")]
    for outcome in run.outcomes:
        against = _against_python(outcome)
        if against is not None:
            title, ratio = against
            cells = [outcome.workload.title, title, _ratio(ratio.median), _ratios(ratio)]
            rows.append(_row([html.escape(cell) for cell in cells]))
    if len(rows) == 1:
        return "<p>Not both of them took part.</p>"
    return f"<table>{''.join(rows)}</table>"


def _detail(outcome: Outcome) -> str:
    headings = ["", "median", "10 - 90 %", "client CPU", "ratio", "10 - 90 %"]
    rows = [_row(headings, tag="th")]
    for entry in outcome.contestants:
        seconds, ratio = outcome.seconds(entry.name), outcome.ratio(entry.name)
        cells = [
            entry.title,
            _time(seconds.median),
            _times(seconds),
            _time(outcome.cpu_seconds(entry.name).median),
            _ratio(ratio.median),
            _ratios(ratio),
        ]
        rows.append(_row([html.escape(cell) for cell in cells], entry.kind))
    return (
        f"<h3>{html.escape(outcome.workload.title)} <small>{_details(outcome)}</small></h3>"
        f"<table>{''.join(rows)}</table>"
    )


def _facts(facts: dict[str, str]) -> str:
    pairs = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in facts.items()
    )
    return f"<dl>{pairs}</dl>"
