"""What Python does not have on Windows, and what it refuses there; make windows-rules.

``site`` imports it in every process, before anything else asks what there is.
"""

import _socket
import errno
import os
import select
import stat
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_NOT_THERE: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("fork", "forkpty", "register_at_fork", "RTLD_NOLOAD"),
        *("eventfd", "eventfd_read", "eventfd_write"),
        *("EFD_CLOEXEC", "EFD_NONBLOCK", "EFD_SEMAPHORE"),
    ),
    select: ("epoll", "poll"),
    _socket: ("socketpair",),  # socket makes one by TCP
}
#: The modules that have it all the same: gevent and trio go by sys.platform, and what the tests
#: have for a network is no part of Windows.
_STILL_THERE: dict[ModuleType, tuple[str, ...]] = {
    os: ("gevent.monkey._state", "gevent.os", "gevent.subprocess"),
    select: ("tests.lab.fault_proxy", "tests.lab.step_proxy", "trio._core._io_epoll"),
    _socket: (),
}

_real_dup = os.dup
_real_fstat = os.fstat


def _take_away(module: ModuleType) -> Callable[[str], Any]:
    """Delete what is not there; return the module's ``__getattr__``."""
    taken = {name: vars(module).pop(name, None) for name in _NOT_THERE[module]}

    def find(name: str) -> Any:
        if name in taken and sys._getframe(1).f_globals["__name__"] in _STILL_THERE[module]:
            return taken[name]
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    return find


def _refuse_socket(fd: int) -> None:
    """A socket is a handle, and no descriptor of the C library's."""
    if stat.S_ISSOCK(_real_fstat(fd).st_mode):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _fstat(fd: int) -> os.stat_result:
    if sys._getframe(1).f_globals["__name__"] not in _STILL_THERE[os]:
        _refuse_socket(fd)
    return _real_fstat(fd)


def _dup(fd: int, /) -> int:
    _refuse_socket(fd)
    return _real_dup(fd)


def _shutdown(self: "socket.socket", how: int) -> None:
    """An attempt to connect goes on."""
    if not self.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        self.getpeername()  # ENOTCONN
    _socket.socket.shutdown(self, how)


for _module in _NOT_THERE:
    vars(_module)["__getattr__"] = _take_away(_module)
os.fstat = _fstat
os.dup = _dup

import socket  # noqa: E402 - which looks for a socketpair()

socket.socket.shutdown = _shutdown  # type: ignore[method-assign, assignment]
