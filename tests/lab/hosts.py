"""Hosts that do not answer: silent, dropping, refusing."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def silent_listener() -> Iterator[int]:
    """Yield the port of a host that accepts, by its kernel, and stays silent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield int(listening.getsockname()[1])


@contextlib.contextmanager
def dropping_listener() -> Iterator[int]:
    """Yield the port of a host that drops SYNs: it listens, and its queue is full (Linux)."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = int(listening.getsockname()[1])
        for _ in range(4):
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(("127.0.0.1", port))
        yield port


def shutdown_ends_an_attempt() -> bool:
    """Does a connect(2) that is under way fail on shutdown(2)? On Linux, and nowhere else."""
    with dropping_listener() as port, socket.socket() as attempt:
        attempt.setblocking(False)
        attempt.connect_ex(("127.0.0.1", port))
        with contextlib.suppress(OSError):  # ENOTCONN: no more than that
            attempt.shutdown(socket.SHUT_RDWR)
        return attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """Yield a port that refuses: it is bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])
