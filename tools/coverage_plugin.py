"""coverage.py's plugin for Cython's lines, which are traced while signals strike.

Its tracer, in C, calls Python code: Cython's plugin at each line, a WeakKeyDictionary of the
greenlets at each line, a lock around some, and coverage.py itself at the first line of a file.
What a signal handler raises in there is lost, and with it the plugin, or the lock stays locked
for ever. Here all of that is code in C, or called before.

As in Python, ``# pragma: no cover`` at the head of a block is about the whole block. Cython's own
plugin leaves out that one line.
"""

import _thread
import contextlib
import weakref
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import FrameType
from typing import Any

from coverage import control
from coverage.collector import Collector
from coverage.plugin import FileTracer
from Cython.Coverage import CythonModuleReporter, Plugin
from greenlet import getcurrent

_SOURCES = Path(__file__).parent  # tools/line_coverage.py has copied this there
_PRAGMA = "# pragma: no cover"
_lock = _thread.allocate_lock()  # not gevent's


class _Lines(FileTracer):
    """The lines of one file."""

    # The first and the last line that run.
    line_number_range: Any = attrgetter("f_lineno", "f_lineno")

    def __init__(self, path: Path) -> None:
        self._path = path

    def source_filename(self) -> str:
        return str(self._path)


class _Reporter(CythonModuleReporter):
    """Cython's, which leaves out the rest of a block, too."""

    def lines(self) -> set[int]:
        return set(super().lines()) - self.excluded_lines()

    def excluded_lines(self) -> set[int]:
        excluded = set(super().excluded_lines())
        inside: int | None = None  # how far the head of such a block is indented
        for number, line in enumerate(self.source().splitlines(), start=1):
            indent = len(line) - len(line.lstrip())
            if line.strip() and inside is not None and indent <= inside:
                inside = None
            if inside is not None or _PRAGMA in line:
                excluded.add(number)
            if inside is None and _PRAGMA in line and line.partition("#")[0].rstrip().endswith(":"):
                inside = indent
        return excluded


class _Cython(Plugin):
    """Cython's, which reports; it traces by itself."""

    def file_reporter(self, filename: str) -> Any:
        reporter: Any = super().file_reporter(filename)
        if reporter is None:  # a .pxd's lines are in the C of the modules that include it
            for generated in _SOURCES.glob("greenwait/**/*.c"):
                self._read_source_lines(str(generated), filename)
            reporter = super().file_reporter(filename)
        if reporter is not None:
            reporter.__class__ = _Reporter
        return reporter

    def file_tracer(self, filename: str) -> Any:
        # Relative to where it was compiled, which is not always where it runs.
        parts = Path(filename).parts
        if "greenwait" not in parts or Path(filename).suffix not in (".pyx", ".pxd"):
            return None
        path = _SOURCES.joinpath(*parts[parts.index("greenwait") :])
        return _Lines(path) if path.is_file() else None


class _Collector(Collector):
    """coverage.py's, without its Python code."""

    concur_id_func: Any
    # The GIL guards enough.
    lock_data: Any = int
    unlock_data: Any = int

    def _start_tracer(self) -> Any:
        # id(getcurrent()), which may be another greenlet's when this one is over.
        self.concur_id_func = map(id, iter(getcurrent, None)).__next__
        return super()._start_tracer()

    def start(self) -> None:
        nowhere: Any = None
        for path in _SOURCES.glob("greenwait/**/*.p[yx][xd]"):
            name = f"src/{path.relative_to(_SOURCES)}"  # as in a code object
            self.should_trace_cache[name] = self.should_trace(name, nowhere)
        with _plain_dictionaries():
            super().start()
            _traced()

    def _installation_trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        with _plain_dictionaries():
            return super()._installation_trace(frame, event, arg)


@contextlib.contextmanager
def _plain_dictionaries() -> Iterator[None]:
    """Have a tracer, which is called here, take one for its greenlets."""
    with _lock:
        before = weakref.WeakKeyDictionary
        weakref.WeakKeyDictionary = dict  # type: ignore[assignment,misc]
        try:
            yield
        finally:
            weakref.WeakKeyDictionary = before  # type: ignore[misc]


def _traced() -> None:
    """Call the tracer."""


def coverage_init(registry: Any, options: Any) -> None:
    """Be its plugin."""
    module: Any = control
    module.Collector = _Collector
    plugin = _Cython()
    registry.add_configurer(plugin)
    registry.add_file_tracer(plugin)
