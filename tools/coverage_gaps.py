"""Which lines of Cython does `make coverage` not see run, by function, and why?"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

#: A file and a function in each line, a colon, and why.
REASONS = Path(__file__).with_name("coverage_gaps.txt")

_DEFINITION = re.compile(r" *(?:async )?(?:def|cdef|cpdef|class)\b[^=(:]*?(\w+)[(:]")


def function_at(source: Sequence[str], line: int) -> str:
    """Return the name of the function, after its class's, that this line is in."""
    indent = _indent(source[line - 1])
    names: list[str] = []
    for text in reversed(source[: line - 1]):
        found = _DEFINITION.match(text)
        if found and _indent(text) < indent:
            indent = _indent(text)
            names.insert(0, found[1])
    return ".".join(names)


def unknown(sources: Iterable[Path]) -> list[str]:
    """Return the names of the list that are no function's any more."""
    names: set[str] = set()
    for source in sources:
        lines = source.read_text().splitlines()
        names |= {f"{source.name} {function_at(lines, line + 1)}" for line in range(len(lines))}
    return sorted(_reasons().keys() - names)


def _reasons() -> dict[str, str]:
    return dict(
        line.split(": ", 1)
        for line in REASONS.read_text().splitlines()
        if line and not line.startswith("#")
    )


def gaps(file: Path, missing: Iterable[int]) -> Iterator[str]:
    """Yield a line of text for each function that has gaps."""
    reasons = _reasons()
    source = file.read_text().splitlines()
    lines: dict[str, list[int]] = defaultdict(list)
    for line in missing:
        lines[function_at(source, line)].append(line)
    for function, its in lines.items():
        name = f"{file.name} {function}"
        yield f"{name}: {', '.join(map(str, its))}: {reasons.get(name, 'no reason is known')}"


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())
