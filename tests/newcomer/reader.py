"""How a newcomer reads: each page's blocks in order, as they are printed, and nothing else."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.lab.bounds import bound
from tests.lab.pages import ROOT, Block, commands, cut, is_late, side
from tests.lab.programs import without_log
from tests.newcomer.home import Done, Home, server_settings

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

#: The commands that are not run, and why.
NOT_RUN = {
    "pip install 'greenwait[psycopg2]'": "instead of the line before; `make wheel` tries it",
    "make bench": "takes minutes, and has tests of its own",
    "make test": "takes minutes, and is what else must pass",
}

_PROGRAM = 40.0  # seconds
_INSTALLING = 300.0
_TRIES = 5  # of the times that a program tells, on a busy machine the best ones count


class Deviation(NamedTuple):
    """What a block did that its page does not say."""

    block: Block
    command: str
    expected: str
    came: str

    def __str__(self) -> str:
        page = os.path.relpath(self.block.page, ROOT)
        parts = [f"{page}:{self.block.line}: {self.command}"]
        for name, text in (("expected", self.expected), ("came", self.came)):
            parts += [f"  {name}:", *(f"    {line}" for line in text.splitlines() or ["(nothing)"])]
        return "\n".join(parts)


def installs(block: Block) -> list[str]:
    """Return the commands of *block* that install something."""
    lines = commands(block.text) if block.language == "console" else []
    return [line for line in lines if line.startswith("pip ") and line not in NOT_RUN]


#: Whoever reads a page has installed greenwait as the README says first.
FIRST = next(line for block in cut(PAGES[0]) for line in installs(block))


def make_plain(python: Path, home: Home, folder: Path) -> Path:
    """Make an environment of *python*, install greenwait there, and return it.

    :raises RuntimeError: that fails
    """
    plain = folder / "plain"
    for command in ((python, "-m", "venv", plain), FIRST):
        done = home.run(command, folder, plain, bound(_INSTALLING))
        if done.status != 0:
            raise RuntimeError(f"{command}: {_told(done)}")
    return plain


class Reader:
    """Reads pages at *home*, in the environment *plain*, with the server at *dsn*.

    Makes what is needed in *folder*.
    """

    def __init__(self, plain: Path, home: Home, dsn: str, folder: Path) -> None:
        self._plain = plain
        self._home = home
        self._server = server_settings(dsn)
        self._folder = folder
        self.blocks = 0  # that were run

    def _copy_plain(self, name: str) -> Path:
        """Return a copy of that environment; its scripts name the Python of the copy."""
        copy = self._folder / name
        ignore = shutil.ignore_patterns("*.pyc.*")  # half written by another reader
        shutil.copytree(self._plain, copy, symlinks=True, ignore=ignore)
        for script in (copy / "bin").iterdir():
            if not script.is_symlink():
                script.write_bytes(script.read_bytes().replace(bytes(self._plain), bytes(copy)))
        return copy

    def read(self, page: Path) -> Iterator[Deviation]:
        """Run the blocks of *page* in a folder of its own; yield each deviation.

        A page that installs something does so in an environment of its own, and other pages in
        one where nothing else is: each has to name what it needs.
        """
        blocks = [each for each in cut(page) if each.language in ("console", "diff", "python")]
        if not blocks:
            return
        name = os.path.relpath(page, ROOT).replace(os.sep, "-").removesuffix(".md")
        more = any(line != FIRST for block in blocks for line in installs(block))
        environment = self._copy_plain(f"env-{name}") if more else self._plain
        folder = self._folder / name
        folder.mkdir()
        for block in blocks:
            self.blocks += 1
            if block.language == "console":
                found = self._enter(block, folder, environment)
            else:
                found = self._start(block, folder, environment)
            yield from found

    def _enter(self, block: Block, folder: Path, environment: Path) -> Iterator[Deviation]:
        """Enter each line of a console block; what they print together is its output."""
        printed = ""
        lines = [line for line in commands(block.text) if line not in NOT_RUN]
        for line in lines:
            is_pip = line.startswith("pip ")
            timeout = bound(_INSTALLING if is_pip else _PROGRAM)
            done = self._home.run(line, folder, environment, timeout, **self._server)
            if done.status != 0 or not (is_pip or _is_announced(done.stderr, block)):
                yield Deviation(block, line, "status 0, and no word of it", _told(done))
            printed += done.stdout
        if block.output and printed != block.output:
            yield Deviation(block, "; ".join(lines), block.output, printed)

    def _start(self, block: Block, folder: Path, environment: Path) -> Iterator[Deviation]:
        """Run a program, of a file as a newcomer has it; of a diff, what it makes."""
        file = folder / f"line_{block.line}.py"
        file.write_text(block.text if block.language == "python" else side(block.text, "+"))
        for _ in range(_TRIES):
            command = ("python", file.name)
            done = self._home.run(command, folder, environment, bound(_PROGRAM), **self._server)
            if not is_late(done.stdout, block.output):
                break
        fits = (done.status, done.stdout) == (0, block.output)
        if not (fits and _is_announced(done.stderr, block)):
            yield Deviation(block, f"python {file.name}", block.output, _told(done))


def _is_announced(stderr: str, block: Block) -> bool:
    """Return whether nothing was written there but warnings that the page names."""
    stderr = without_log(stderr)
    kinds = re.findall(r"\b(\w+Warning): ", stderr)
    page = block.page.read_text(encoding="utf-8")
    if not kinds or "Traceback" in stderr:
        return not stderr
    return all(kind in page for kind in kinds)


def _told(done: Done) -> str:
    end = "killed, since it took too long" if done.status is None else f"status {done.status}"
    return f"{done.stdout}{done.stderr}({end})"
