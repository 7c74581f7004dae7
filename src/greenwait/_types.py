"""The types in the signatures of public functions that are not public themselves."""

import sys
from os import PathLike
from typing import Literal, Protocol, TypeAlias, TypedDict

if sys.version_info >= (3, 11):
    from typing import Self, Unpack
else:
    from typing_extensions import Self, Unpack

__all__ = ["InstallOptions", "Options", "Pollable", "Self", "TraceFile", "Unpack"]

#: The name of the file that a trace is written to.
TraceFile: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]


class Pollable(Protocol):
    """What can be waited for: an object with these two methods, such as a psycopg2 connection."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...

    def poll(self) -> int:
        """Go on without waiting, and return ``POLL_OK``, ``POLL_READ`` or ``POLL_WRITE``."""
        ...


class Options(TypedDict, total=False):
    """The options of ``WaitCallback``, for functions that pass them on."""

    poller: Literal["poll", "epoll"]
    timeout: float | None
    spin: float | Literal["auto"]
    slow: float | None
    cancel_grace: float
    on_event_loop: Literal["warn", "raise"] | None


class InstallOptions(Options, total=False):
    """The options of ``install()``, for functions that pass them on."""

    trace: TraceFile | None
