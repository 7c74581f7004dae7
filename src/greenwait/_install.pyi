"""Registering with psycopg2: the shim around ``set_wait_callback()``.

psycopg2 has one wait callback for the whole process. Each ``install()`` or
``installed()`` is an entry that remembers the callback it replaced, and restores
exactly that when it ends.

It is compiled because neither an interrupt nor another thread must come between two of its
steps. A lock would not do: CPython 3.14 may leave the lock's ``with`` block without releasing it
(cpython issue 148874).
"""

from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, TypeVar

from greenwait._callback import WaitCallback
from greenwait._types import Options, TraceFile, Unpack

__all__ = ["check_names", "check_registered", "install", "installed", "is_registered", "uninstall"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_entries: list[Any]

def install(*, trace: TraceFile | None = None, **options: Unpack[Options]) -> WaitCallback:
    """Register ``WaitCallback(**options)`` as the wait callback of the process.

    :param trace: the file of a ``greenwait.trace()``, which goes on until ``uninstall()``, or the
        end of the program.
    :param options: as for :class:`WaitCallback`.
    :returns: the callback now registered. ``uninstall()`` restores the one it
        replaced; calls nest.
    :raises ValueError: an option's value is not available here.
    :raises TypeError: an option is unknown or has the wrong type.
    :raises OSError: *trace* can't be written.
    :raises RuntimeError: another trace is being written.

    Connections opened before use the callback too, from their next statement on. In a
    process that gevent or eventlet has patched it warns, once: call
    ``greenwait.gevent.patch_psycopg()``, or eventlet's, instead. It warns where Django's own
    backend has been imported on psycopg 3, or will be.
    """

def uninstall() -> None:
    """Restore the callback that the last ``install()`` replaced.

    :raises RuntimeError: nothing is installed, or another callback was
        registered meanwhile, which is left in place.
    """

def is_registered() -> bool:
    """Return whether psycopg2 calls greenwait where it waits."""

def check_registered(what: str) -> None:
    """Raise RuntimeError unless psycopg2 calls greenwait where it waits, as *what* needs."""

def check_names(function: str, args: tuple[Any, ...]) -> int:
    """Raise TypeError if an option was given without its name."""

class installed(ContextDecorator):  # noqa: N801, used like a function
    """Register ``WaitCallback(**options)`` for a ``with`` block, or for each call of a function.

    :param trace: the file of a ``greenwait.trace()`` for the time of the block.
    :param options: as for :class:`WaitCallback`; checked at once.
    :raises RuntimeError: on leaving, when another callback was registered
        meanwhile, which is left in place.

    The callback is the process's: other threads use it too while the block runs.
    """
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, function: _Function, /
    ) -> _Function: ...
    def __init__(self, *, trace: TraceFile | None = None, **options: Unpack[Options]) -> None: ...
    def __enter__(self) -> WaitCallback: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
