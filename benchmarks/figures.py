"""How are figures shown? Times in readable units, tables, goals, and what they were measured on."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

__all__ = [
    "Goal",
    "Row",
    "digits",
    "goal_table",
    "positive",
    "print_facts",
    "table_of",
    "terminal",
    "time_text",
    "unit_of",
]


@dataclass(frozen=True)
class Goal:
    """What a figure should be, in words, and whether it is."""

    text: str
    reached: bool

    def __str__(self) -> str:
        """Write it for a table's last column."""
        return f"{self.text}: " + ("[green]reached[/]" if self.reached else "[red]missed[/]")


@dataclass(frozen=True)
class Row:
    """What one contestant gave."""

    title: str
    cells: tuple[str, ...]
    goal: Goal | None = None


def positive(text: str) -> int:
    """Read an option's value that counts something."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return number


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


def terminal() -> Console:
    """Return the console on stdout; 100 columns wide where that is a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


def table_of(title: str, *columns: tuple[str, int, JustifyMethod]) -> Table:
    """Return an empty table; the widths are least ones, so that tables stand in line."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading, width, justify in columns:
        table.add_column(heading, min_width=width, justify=justify, no_wrap=True)
    return table


def goal_table(title: str, headings: Sequence[str], rows: Iterable[Row]) -> Table:
    """Return a table with a line per contestant: its title, a cell per heading, its goal."""
    columns: list[tuple[str, int, JustifyMethod]] = [(heading, 5, "right") for heading in headings]
    table = table_of(f"[bold]{title}[/]", ("", 19, "left"), *columns, ("goal", 4, "left"))
    for row in rows:
        table.add_row(row.title, *row.cells, str(row.goal or ""))
    return table


def print_facts(facts: Mapping[str, Mapping[str, str]], console: Console) -> None:
    """Print a line per heading: the machine, the versions, the settings."""
    for heading, each in facts.items():
        text = "; ".join(f"{name} [bold]{escape(value)}[/]" for name, value in each.items())
        console.print(f"[dim]{heading}:[/] {text}", highlight=False)
