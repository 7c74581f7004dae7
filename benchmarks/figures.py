"""How figures are shown: numbers in readable units, tables, goals, what they were measured on."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Facts = dict[str, dict[str, str]]  # by what they are about: the machine, the versions, the settings


def positive(text: str) -> int:
    """Read an option's value that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def unit_of(seconds: float) -> tuple[str, float]:
    """Return the unit to write *seconds* in, and how many of it a second has."""
    return ("s", 1) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("µs", 1e6)


def digits(number: float) -> str:
    """Write *number* with about three digits."""
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def time_text(seconds: float) -> str:
    """Write *seconds* in the unit that suits it."""
    unit, scale = unit_of(seconds)
    return f"{digits(seconds * scale)} {unit}"


def ratio_text(ratio: float) -> str:
    """Write *ratio* with three digits."""
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:.0f}"


def goal(text: str, is_reached: bool) -> str:
    """Write a goal for a table's last column."""
    return f"{text}: " + ("[green]reached[/]" if is_reached else "[red]missed[/]")


def console() -> Console:
    """Return the console on stdout, which remembers; in a file or a pipe it is 100 columns wide."""
    width = None if sys.stdout.isatty() else 100
    return Console(width=width, highlight=False, record=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[Callable[[int, int], object]]:
    """Say on stderr what is done in the block; yield what tells how many of all there are done.

    A terminal gets a bar. It is drawn when it is told something, and not by a thread of its own,
    which would take the GIL from what is measured.
    """
    to = Console(stderr=True)
    if not to.is_terminal:
        print(f"{title} ...", file=sys.stderr, flush=True)
        yield lambda done, of: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=to, auto_refresh=False, transient=True) as progress:
        task = progress.add_task(title, total=None)
        progress.refresh()
        yield lambda done, of: progress.update(task, completed=done, total=of, refresh=True)


def table_of(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], note: str = ""
) -> Table:
    """Return a table; its first column is text, and so is one that is called goal."""
    table = Table(
        title=f"[bold]{title}[/] [dim]{note}[/]",
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", min_width=19, no_wrap=True)
    for heading in headings:
        justify: JustifyMethod = "left" if heading == "goal" else "right"
        table.add_column(heading, min_width=5, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def print_facts(facts: Facts, to: Console) -> None:
    """Print a line per heading: the machine, the versions, the settings."""
    for heading, each in facts.items():
        text = "; ".join(f"{name} [bold]{escape(value)}[/]" for name, value in each.items())
        to.print(f"[dim]{heading}:[/] {text}")
