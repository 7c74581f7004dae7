"""The Python frames of the program, below which psycopg2 and greenwait have some of their own."""

import os
import sys
from pathlib import Path
from types import FrameType

from greenwait._psycopg import psycopg2

__all__ = ["FOLDERS", "frame_of_call", "frame_of_caller", "line_of_caller", "stack_level"]

_PACKAGE = str(Path(__file__).parent) + os.sep
#: Frames of the files in these folders are not the program's: ours, and psycopg2's.
FOLDERS = tuple(
    str(Path(file).parent) + os.sep for file in (__file__, psycopg2.EXTENSION_FILE) if file
)


def frame_of_caller() -> FrameType | None:
    """Return the frame of the program that waits, outside of this package and of psycopg2."""
    return _frame_outside(FOLDERS)


def frame_of_call() -> FrameType | None:
    """Return the frame that has called psycopg2's compiled part: it may be of psycopg2 too."""
    return _frame_outside((_PACKAGE,))


def line_of_caller() -> str | None:
    """Return the line of Python that waits, or None: compiled code has no frames."""
    frame = frame_of_caller()
    if frame is None:
        return None
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}()"


def stack_level() -> int:
    """Return logging's ``stacklevel=`` of the program's frame, for a record of who calls this."""
    level = 1
    here = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while here.f_back is not None and here.f_code.co_filename.startswith(FOLDERS):
        level, here = level + 1, here.f_back
    return level


def _frame_outside(folders: tuple[str, ...]) -> FrameType | None:
    here: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while here is not None and here.f_code.co_filename.startswith(folders):
        here = here.f_back
    return here
