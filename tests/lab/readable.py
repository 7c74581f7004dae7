"""The least that a wait callback can wait for: a descriptor that is to be read from, once."""

from psycopg2.extensions import POLL_OK, POLL_READ


class Readable:
    """What is waited for until there is something to read."""

    def __init__(self, fd: int) -> None:
        self._fd, self._states = fd, [POLL_READ, POLL_OK]

    def fileno(self) -> int:
        """Return the descriptor, as a connection does."""
        return self._fd

    def poll(self) -> int:
        """Return what to wait for next."""
        return self._states.pop(0)
