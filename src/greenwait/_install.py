"""Which callback is registered? The shim around ``set_wait_callback``.

psycopg2 has one wait callback for the whole process. Each ``install()`` or
``installed()`` is an entry that remembers what it replaced; ending it puts
exactly that back.
"""

import sys
import threading
import warnings
from contextlib import ContextDecorator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greenwait._callback import WaitCallback
from greenwait._psycopg2 import get_wait_callback, set_wait_callback

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from greenwait._callback import Options

__all__ = ["install", "installed", "uninstall"]


@dataclass(eq=False)  # the same callback may be installed twice
class _Entry:
    callback: WaitCallback
    replaced: Any  # whatever was registered: a callable, or None
    is_block: bool  # ended by leaving the block, not by uninstall()


_entries: list[_Entry] = []  # the last one is registered
_has_warned = False
_lock = threading.RLock()  # reentrant: a signal handler may install


def _register(callback: WaitCallback, *, is_block: bool) -> _Entry:
    with _lock:
        entry = _Entry(callback, get_wait_callback(), is_block)
        try:
            _entries.append(entry)
            set_wait_callback(callback)
        except BaseException:  # an interrupt between the two
            if entry in _entries:
                _entries.remove(entry)
            set_wait_callback(entry.replaced)
            raise
        return entry


def _unregister(entry: _Entry) -> None:
    with _lock:
        # Ended out of turn, by another thread say: whoever came next has this one's
        # predecessor to put back.
        following = _entries[_entries.index(entry) + 1 :]
        registered = following[0].replaced if following else get_wait_callback()
        if registered is not entry.callback:
            if entry.is_block:
                _entries.remove(entry)  # there is no second time to leave it
            raise RuntimeError(
                f"{registered!r} was registered after greenwait was installed, and stays: "
                "uninstall that first, then greenwait"
            )
        try:
            if following:
                following[0].replaced = entry.replaced
            else:
                set_wait_callback(entry.replaced)
        finally:  # also if an interrupt comes between the two
            _entries.remove(entry)


def install(**options: "Unpack[Options]") -> WaitCallback:
    """Register ``WaitCallback(**options)`` as the wait callback of the process.

    :param options: as for :class:`WaitCallback`.
    :returns: the callback now registered. ``uninstall()`` puts back the one it
        replaced; calls nest.
    :raises ValueError: an option's value is not available here.
    :raises TypeError: an option is unknown or has the wrong type.

    Connections opened before use the callback too, from their next statement on. In a
    process that gevent or eventlet has patched it warns, once: what is needed there is
    ``greenwait.gevent.patch_psycopg()``.
    """
    _warn_of_patches()
    return _register(WaitCallback(**options), is_block=False).callback


def _warn_of_patches() -> None:
    """Monkey patching does not reach a wait in C: it would stop all greenlets."""
    global _has_warned
    patcher = {
        "gevent": lambda: sys.modules["gevent.monkey"].is_module_patched("socket"),
        "eventlet": lambda: sys.modules["eventlet.patcher"].is_monkey_patched("socket"),
    }
    for name, module in (("gevent", "gevent.monkey"), ("eventlet", "eventlet.patcher")):
        is_adopted = f"greenwait.{name}" in sys.modules
        if module in sys.modules and not is_adopted and not _has_warned and patcher[name]():
            _has_warned = True
            warnings.warn(
                f"{name} has patched this process, and greenwait's waits would stop all of its "
                f"greenlets: call greenwait.{name}.patch_psycopg() instead of greenwait.install()",
                RuntimeWarning,
                stacklevel=3,
            )


def uninstall() -> None:
    """Put back the callback that the last ``install()`` replaced.

    :raises RuntimeError: nothing is installed, or another callback was
        registered meanwhile, which is left in place.
    """
    with _lock:
        ours = [entry for entry in _entries if not entry.is_block]
        if not ours:
            raise RuntimeError("there is nothing to uninstall: greenwait.install() was not called")
        _unregister(ours[-1])


class installed(ContextDecorator):  # noqa: N801, used like a function
    """Register ``WaitCallback(**options)`` for a ``with`` block, or for each call of a function.

    :param options: as for :class:`WaitCallback`; checked at once.
    :raises RuntimeError: on leaving, when another callback was registered
        meanwhile, which is left in place.

    The callback is the process's: other threads use it too while the block runs.
    """

    def __init__(self, **options: "Unpack[Options]") -> None:
        self._callback = WaitCallback(**options)
        self._entered: list[_Entry] = []  # a decorated function may be recursive

    def __enter__(self) -> WaitCallback:
        self._entered.append(_register(self._callback, is_block=True))
        return self._callback

    def __exit__(self, *exc_info: object) -> None:
        _unregister(self._entered.pop())
