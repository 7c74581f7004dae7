"""Registering with psycopg2: the shim around ``set_wait_callback()``.

psycopg2 has one wait callback for the whole process. Each ``install()`` or
``installed()`` is an entry that remembers the callback it replaced, and restores
exactly that when it ends.

It is compiled because neither an interrupt nor another thread must come between two of its
steps. A lock would not do: CPython 3.14 may leave the lock's ``with`` block without releasing it
(cpython issue 148874).
"""

from cpython.exc cimport PyErr_CheckSignals

import sys
import warnings
from collections.abc import Callable
from contextlib import ContextDecorator
from types import FunctionType
from typing import Any, TypeVar

from greenwait._callback import WaitCallback, wait
from greenwait._decorator import decorated
from greenwait._django_warning import unwatch, watch
from greenwait._psycopg.psycopg2 import get_wait_callback, set_wait_callback
from greenwait._trace import trace as trace_block
from greenwait._types import Options, TraceFile, Unpack

__all__ = ["check_names", "check_registered", "install", "installed", "is_registered", "uninstall"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Entry:
    """A callback that was registered, and what it replaced."""

    __slots__ = ("callback", "is_block", "replaced", "trace")

    def __init__(self, callback, replaced, bint is_block, trace):
        self.callback = callback
        self.replaced = replaced  # the callback registered before, or None
        self.is_block = is_block  # ended by leaving the block, not by uninstall()
        self.trace = trace  # that ends with it, or None


_entries = []  # the last one is registered
_has_warned = False


cdef object register(object callback, bint is_block, object new_trace):
    entry = _Entry(callback, get_wait_callback(), is_block, new_trace)
    if new_trace is not None:
        new_trace.__enter__()
    _entries.append(entry)
    try:
        set_wait_callback(callback)
    except BaseException:  # the callback it replaced was freed, and its finalizer interrupted
        _entries.remove(entry)
        set_wait_callback(entry.replaced)
        if new_trace is not None:
            new_trace.__exit__(None, None, None)
        raise
    return entry


cdef int unregister(object entry) except -1:
    # Ended out of order, by another thread for instance: the next entry has to restore
    # this one's predecessor.
    following = _entries[_entries.index(entry) + 1 :]
    registered = following[0].replaced if following else get_wait_callback()
    if registered is not entry.callback:
        if entry.is_block:
            _entries.remove(entry)  # a block can't be left a second time
            if entry.trace is not None:
                entry.trace.__exit__(None, None, None)
        raise RuntimeError(
            f"{registered!r} was registered after greenwait was installed, and stays: "
            "uninstall that first, then greenwait"
        )
    try:
        if following:
            following[0].replaced = entry.replaced
        else:
            set_wait_callback(entry.replaced)
    finally:
        _entries.remove(entry)
        if entry.trace is not None:
            entry.trace.__exit__(None, None, None)
    return 0


def install(
    *args: Any, trace: TraceFile | None = None, **options: Unpack[Options]
) -> WaitCallback:
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
    check_names("install", args)
    warn_of_patches()
    new_trace = new_trace_of(trace)
    callback = WaitCallback(**options)
    watch()
    return register(callback, False, new_trace).callback


cdef object new_trace_of(object file):
    return None if file is None else trace_block(file)


cpdef int check_names(str function, tuple args) except -1:
    """Raise TypeError if an option was given without its name."""
    if args and isinstance(args[0], FunctionType):
        raise TypeError(
            f"{function}() is called with options: write @greenwait.installed() to decorate a "
            "function"
        )
    if args:
        raise TypeError(
            f"{function}() takes its options by name, as in {function}(poller='epoll'); a callback "
            "of your own is registered by psycopg2.extensions.set_wait_callback()"
        )
    return 0


cdef int warn_of_patches() except -1:
    """Warn, once, in a monkey-patched process, where a wait in C would stop all greenlets."""
    global _has_warned
    for name, module, function in (
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ):
        if module not in sys.modules or f"greenwait.{name}" in sys.modules or _has_warned:
            continue
        if getattr(sys.modules[module], function)("socket"):
            _has_warned = True
            warnings.warn(
                f"{name} has patched this process, and greenwait's waits would stop all of its "
                f"greenlets: call greenwait.{name}.patch_psycopg() instead of greenwait.install()",
                RuntimeWarning,
                stacklevel=1,  # compiled functions have no frames
            )
    return 0


def uninstall() -> None:
    """Restore the callback that the last ``install()`` replaced.

    :raises RuntimeError: nothing is installed, or another callback was
        registered meanwhile, which is left in place.
    """
    ours = [entry for entry in _entries if not entry.is_block]
    if not ours:
        raise RuntimeError("there is nothing to uninstall: greenwait.install() was not called")
    unregister(ours[-1])
    if len(ours) == 1:
        unwatch()


class installed(ContextDecorator):
    """Register ``WaitCallback(**options)`` for a ``with`` block, or for each call of a function.

    :param trace: the file of a ``greenwait.trace()`` for the time of the block.
    :param options: as for :class:`WaitCallback`; checked at once.
    :raises RuntimeError: on leaving, when another callback was registered
        meanwhile, which is left in place.

    The callback is the process's: other threads use it too while the block runs.
    """

    def __init__(
        self, *args: Any, trace: TraceFile | None = None, **options: Unpack[Options]
    ) -> None:
        check_names("installed", args)
        self._trace = new_trace_of(trace)
        self._callback = WaitCallback(**options)
        self._entered = []  # a decorated function may be recursive
        # As a decorator it can be asked for its types, too.
        self.__annotations__ = {"function": _Function, "return": _Function}

    def __enter__(self):
        PyErr_CheckSignals()  # see timeout.__enter__()
        self._entered.append(register(self._callback, True, self._trace))
        return self._callback

    def __exit__(self, *exc_info):
        unregister(self._entered.pop())

    def __call__(self, function: _Function, /) -> _Function:
        return decorated("installed()", function, lambda: self)


def is_registered():
    """Return whether psycopg2 calls greenwait where it waits."""
    registered = get_wait_callback()
    return registered is wait or isinstance(registered, WaitCallback)


def check_registered(what):
    """Raise RuntimeError unless psycopg2 calls greenwait where it waits, as *what* needs."""
    if not is_registered():
        raise RuntimeError(
            f"{what} needs greenwait's wait callback, and {get_wait_callback()!r} is registered: "
            "call greenwait.install() first"
        )
