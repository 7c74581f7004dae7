"""What Python does not have on Windows, and what it refuses there; make windows-rules.

``site`` imports it in every process, before anything else asks what there is.
"""

import _socket
import errno
import os
import select
import stat
import sys
from typing import Any

_NOT_THERE = {
    os: (
        *("fork", "forkpty", "register_at_fork", "RTLD_NOLOAD"),
        *("eventfd", "eventfd_read", "eventfd_write"),
        *("EFD_CLOEXEC", "EFD_NONBLOCK", "EFD_SEMAPHORE"),
    ),
    select: ("epoll", "poll"),
    _socket: ("socketpair",),  # socket makes one by TCP
}
#: What the tests have for a network is no part of Windows.
_NETWORKS = ("tests.fault_lab", "tests.step_proxy")

_real_dup = os.dup
_real_fstat = os.fstat
_real_select = {name: getattr(select, name) for name in _NOT_THERE[select]}


def _select_has(name: str) -> Any:
    if name in _real_select and sys._getframe(1).f_globals["__name__"] in _NETWORKS:
        return _real_select[name]
    raise AttributeError(f"module 'select' has no attribute {name!r}")


def _refuse_socket(fd: int) -> None:
    """A socket is a handle, and no descriptor of the C library's."""
    if stat.S_ISSOCK(_real_fstat(fd).st_mode):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _fstat(fd: int) -> os.stat_result:
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


for _module, _names in _NOT_THERE.items():
    for _name in _names:
        if hasattr(_module, _name):
            delattr(_module, _name)
vars(select)["__getattr__"] = _select_has
os.fstat = _fstat
os.dup = _dup

import socket  # noqa: E402 - which looks for a socketpair()

socket.socket.shutdown = _shutdown  # type: ignore[method-assign]
