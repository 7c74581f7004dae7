"""The blocks of the README and the docs: what a page has its reader run, and what that prints."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent

# The language of a block, and how it begins; of what is in braces MyST makes something.
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of *page*, and the output that follows it."""

    page: Path
    line: int  # of its first line of text
    language: str
    text: str
    output: str


def cut(page: Path) -> list[Block]:
    """Return the blocks of *page* in order, each with its output, which is not one itself."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start(2)) + 1, *found.groups(default=""))
        for found in _FENCE.finditer(text)
    ]


def commands(text: str) -> list[str]:
    """Return each line of a console block without its prompt and its comment."""
    return [line.split("#")[0].removeprefix("$ ").strip() for line in text.splitlines()]


def side(diff: str, sign: str) -> str:
    """Return what was there before *diff*, ``-``, or is after it, ``+``."""
    lines = diff.splitlines()
    assert all(line[:1] in ("", " ", "+", "-") for line in lines)
    return "".join(line[1:] + "\n" for line in lines if line[:1] in ("", " ", sign))


_SECONDS = re.compile(r"\b\d+ s\b")


def is_late(printed: str, output: str) -> bool:
    """Return whether *printed* is *output* but for the seconds: a busy machine's."""
    return printed != output and _SECONDS.sub("", printed) == _SECONDS.sub("", output)
