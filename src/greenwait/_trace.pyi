"""The recorder of a trace: what the program waits for, and when, in a file; the public ``trace()``.

An event is written as JSON at once, into a buffer of 64 KB, which goes to the file when it is full
or a second old. Its beginning (row, name, line, backend) is the same for all waits of one line for
one backend, and kept; only the times are written anew. So a wait costs little while it is on.

``_trace.pxd`` lists the places that record.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from greenwait._types import Self, TraceFile

__all__ = ["start", "start_from_environment", "stop", "trace"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

def new_row(kind: str, thing: Any, name: str | None) -> int:
    """Return the number of a thing's row, or of a new one if *thing* is None.

    :param kind: ``"job"``, ``"task"``, ``"greenlet"``.
    :param name: what it is called; None: after the function that runs.
    """

def start(new_path: str) -> None:
    """Begin to write a trace.

    :raises RuntimeError: another one is being written.
    :raises OSError: the file can't be written.
    """

def start_from_environment() -> None:
    """Begin the trace that ``GREENWAIT_TRACE`` asks for, if it does."""

def stop() -> None:
    """End the trace: the file is complete then.

    :raises OSError: it could not be written.
    """

def stop_at_exit() -> None:
    """End the trace that goes on until the end of the program."""

class trace:  # noqa: N801, used like a function
    """Write a timeline of what the program waits for, while a ``with`` block or a function runs.

    :param file: the name of the file to write. One that exists is replaced.
    :raises TypeError: *file* is not a path.
    :raises OSError: *file* can't be written, its folder does not exist, or another process is
        writing a trace to it.
    :raises RuntimeError: on entering, another trace is being written.

    The file has a row for each thread, job, task and greenlet, and on it each wait: the first
    words of the statement, the line of Python, the backend's process; connecting, a wait for the
    pool or for a shared connection; cancels, deadlines, and waits that stop an event loop. It is
    in the trace event format, which https://ui.perfetto.dev and chrome://tracing open, and
    ``python -m greenwait timeline FILE`` makes an HTML page of it.

    It is the whole process's: other threads' waits are there too. A forked child records
    nothing. Of a program that is killed the last second is missing, and the end of the JSON, which
    all of these readers accept. 128 KB of memory are used; where the disk is too slow, events are
    dropped, and counted in the file.
    """

    file: str
    def __init__(self, file: TraceFile, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __call__(self, function: _Function, /) -> _Function: ...
