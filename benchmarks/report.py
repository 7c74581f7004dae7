"""What is told about a run: the tables on the terminal, the JSON file, the HTML page."""

import base64
import html
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.callbacks import BLOCKING, GREENWAIT
from benchmarks.figures import digits, print_facts, table_of, time_text, unit_of
from benchmarks.measure import FEWEST_TO_BE_SURE, Outcome, Spread
from benchmarks.page import PAGE, STYLE
from benchmarks.plots import Plot, ratio_text

__all__ = ["Run", "print_tables", "write_html", "write_json"]


@dataclass(frozen=True)
class Run:
    """Everything that one call of compare.py found out."""

    outcomes: list[Outcome]
    machine: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, str]
    skipped: dict[str, str]  # contestants that can't run here, and why


def _times(spread: Spread) -> str:
    unit, scale = unit_of(spread.median)
    return f"{digits(spread.p10 * scale)} - {digits(spread.p90 * scale)} {unit}"


def _ratios(spread: Spread) -> str:
    return f"{ratio_text(spread.p10)} - {ratio_text(spread.p90)}"


def _surely(outcome: Outcome, spread: Spread) -> str:
    if len(outcome.samples[BLOCKING]) < FEWEST_TO_BE_SURE:
        return "too few rounds"
    return f"{ratio_text(spread.low)} - {ratio_text(spread.high)}"


def _details(outcome: Outcome) -> str:
    rounds = len(outcome.samples[BLOCKING])
    return f"{rounds} {'round' if rounds == 1 else 'rounds'} of {outcome.block}"


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
    console.print(
        "Medians per query, and between which values eight of ten rounds lie; the ratios are to "
        "blocking psycopg2 in the same round.\n",
        highlight=False,
    )
    for outcome in run.outcomes:
        table = table_of(
            f"[bold]{outcome.workload.title}[/] [dim]{_details(outcome)}[/]",
            ("", 19, "left"),
            ("per query", 9, "right"),
            ("10 - 90 %", 14, "right"),
            ("client CPU", 10, "right"),
            ("ratio", 5, "right"),
            ("10 - 90 %", 11, "right"),
        )
        for entry in outcome.contestants:
            seconds, ratio = outcome.seconds(entry.name), outcome.ratio(entry.name)
            table.add_row(
                entry.title,
                time_text(seconds.median),
                _times(seconds),
                time_text(outcome.cpu_seconds(entry.name).median),
                "1" if entry.name == BLOCKING else ratio_text(ratio.median),
                "" if entry.name == BLOCKING else _ratios(ratio),
                style="green" if entry.kind == "greenwait" else None,
            )
        console.print(table, "")
    _print_against_python(run, console)
    print_facts({"on": run.machine, "with": run.versions, "how": run.settings}, console)
    for name, reason in run.skipped.items():
        console.print(f"[dim]left out:[/] {name}, {reason}", highlight=False)


def _print_against_python(run: Run, console: Console) -> None:
    table = table_of(
        "[bold]greenwait (poll) against the fastest Python callback[/]",
        ("", 31, "left"),
        ("the fastest", 18, "left"),
        ("ratio", 5, "right"),
        ("median, 95 % sure", 17, "right"),
    )
    for outcome in run.outcomes:
        against = _against_python(outcome)
        if against is not None:
            fastest, ratio = against
            table.add_row(
                outcome.workload.title, fastest, ratio_text(ratio.median), _surely(outcome, ratio)
            )
    if table.row_count:
        console.print(table, "")


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
        "block": outcome.block,
        "rounds": len(outcome.samples[BLOCKING]),
        "contestants": {
            entry.name: {
                "title": entry.title,
                "kind": entry.kind,
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
            f"{run.machine['date']} · {run.machine['CPU']} · {run.settings['pinning']}"
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
    ratio = ratio_text(outcome.ratio(GREENWAIT).median)
    text = f"{outcome.workload.title}: greenwait takes {ratio} of blocking psycopg2's time"
    fastest = outcome.fastest_python()
    if fastest is not None:
        text += f", the fastest Python callback {ratio_text(outcome.ratio(fastest).median)}"
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
            text = "1" if entry.name == BLOCKING else ratio_text(value)
            cells.append(f'<span class="{kind}">{text}</span>')
        rows.append(_row(cells))
    return f"<table>{''.join(rows)}</table>"


def _against_table(run: Run) -> str:
    rows = [_row(["", "fastest Python callback", "ratio", "median, 95 % sure"], tag="th")]
    for outcome in run.outcomes:
        against = _against_python(outcome)
        if against is not None:
            title, ratio = against
            cells = [
                outcome.workload.title,
                title,
                ratio_text(ratio.median),
                _surely(outcome, ratio),
            ]
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
            time_text(seconds.median),
            _times(seconds),
            time_text(outcome.cpu_seconds(entry.name).median),
            ratio_text(ratio.median),
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
