"""The texts of a trace: its file, the beginnings of events, the names of rows.

The file is in the trace event format's JSON array, whose end a reader does not need: so the file
of a program that was killed can be opened too.
"""

import itertools
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from greenwait._frames import frame_of_caller, line_of_caller
from greenwait._types import TraceFile

try:
    import fcntl
except ImportError:  # pragma: no cover: Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "beginning",
    "checked_path",
    "file_from_environment",
    "last_line",
    "mark",
    "metadata",
    "open_file",
    "program_name",
    "row_name",
    "thread_name",
]

_LONGEST_NAME = 60
_VARIABLE = "GREENWAIT_TRACE"


def checked_path(file: TraceFile) -> str:
    """Return the name of a file that can be written, as far as can be told without writing.

    :raises TypeError: it is not a path.
    :raises OSError: it is a folder, or its folder does not exist.
    """
    try:
        path = os.fsdecode(file)
    except TypeError:
        raise TypeError(
            f"a trace is written to a file, named by a str or a path, not {type(file).__name__!r}"
        ) from None
    if not path:
        raise ValueError("a trace is written to a file, whose name must not be empty")
    if Path(path).is_dir():
        raise IsADirectoryError(f"a trace is written to a file, and {path!r} is a folder")
    folder = Path(path).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"the trace {path!r}: there is no folder {str(folder)!r}")
    return path


def open_file(path: str) -> int:
    """Return the descriptor of the file, empty, and locked against other processes."""
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags, 0o666)
    except OSError as exc:
        raise type(exc)(exc.errno, f"can't write a trace: {exc.strerror}", path) from None
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
    except BlockingIOError:
        os.close(fd)
        raise BlockingIOError(f"another process is writing a trace to {path!r}") from None
    except OSError:  # a device or a pipe: there is nothing to empty
        pass
    return fd


def file_from_environment() -> str | None:
    """Return the file that GREENWAIT_TRACE names, for this process; None without it.

    If another process is writing to it, this one's has the number of the process in its name.
    ``python -m greenwait`` itself is not traced.
    """
    name = os.environ.get(_VARIABLE)
    if not name or sys.orig_argv[1:3] == ["-m", "greenwait"]:
        return None
    try:
        path = checked_path(name)
        os.close(open_file(path))
    except BlockingIOError:
        root, extension = os.path.splitext(name)
        return f"{root}-{os.getpid()}{extension}"
    except OSError as exc:
        raise type(exc)(f"{_VARIABLE}={name}: {exc}") from None
    return path


# -- Events


def _shortened(name: str) -> str:
    words = " ".join(name.split())
    return words if len(words) <= _LONGEST_NAME else words[: _LONGEST_NAME - 1] + "…"


def _without_end(event: dict[str, Any]) -> bytes:
    """Return an event as JSON without its last brace: the times follow."""
    return json.dumps(event, separators=(",", ":"))[:-1].encode()


def beginning(process: int, row: int, category: str, name: str, backend: int) -> bytes:
    """Return the beginning of an event that takes time.

    :param backend: the server's process; 0 without a connection.
    """
    args: dict[str, Any] = {}
    line = line_of_caller()
    if line is not None:
        args["line"] = line
    if backend:
        args["backend"] = backend
    event = {"ph": "X", "pid": process, "tid": row, "cat": category, "name": _shortened(name)}
    return _without_end(event | {"args": args})


def mark(process: int, row: int, category: str, name: str) -> bytes:
    """Return the beginning of an event at a moment."""
    event = {"ph": "i", "s": "t", "pid": process, "tid": row, "cat": category, "name": name}
    return _without_end(event)


def metadata(process: int, row: int, name: str, args: dict[str, Any]) -> bytes:
    """Return the line that names a row, or the process."""
    event = {"ph": "M", "pid": process, "tid": row, "name": name, "args": args}
    return json.dumps(event, separators=(",", ":")).encode() + b",\n"


def last_line(process: int, events: int, dropped: int) -> bytes:
    """Return the end of the file, with the number of events, and of those that are missing."""
    args = {"events": events, "dropped": dropped}
    return metadata(process, 0, "greenwait", args)[:-2] + b"\n]\n"


# -- Names


def program_name() -> str:
    """Return the name of the program."""
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"


def thread_name() -> str:
    """Return the name of the running thread."""
    here = threading.get_ident()
    names = (each.name for each in threading.enumerate() if each.ident == here)
    return next(itertools.chain(names, [f"thread {here}"]))


def row_name(kind: str, number: int, name: str | None) -> str:
    """Return the name of a row: kind, number, and the function that runs in the greenlet."""
    if name is None:
        frame = frame_of_caller()
        while frame is not None and frame.f_back is not None:
            frame = frame.f_back
        name = "" if frame is None else getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    return f"{kind} {number}: {name}" if name else f"{kind} {number}"
