"""What do the parent and the contexts know of each other? Numbers that all of them see."""

import mmap
import struct
from pathlib import Path

_NUMBER = struct.Struct("q")


class Board:
    """A few numbers in a file that each process has mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    @staticmethod
    def create(path: Path) -> "Board":
        path.write_bytes(bytes(mmap.PAGESIZE))
        return Board(path)

    def _get(self, place: int) -> int:
        return int(_NUMBER.unpack_from(self._map, place * _NUMBER.size)[0])

    def _add(self, place: int) -> None:
        _NUMBER.pack_into(self._map, place * _NUMBER.size, self._get(place) + 1)

    @property
    def shakes(self) -> int:
        """How often a restart of the server has begun or ended; odd while there is one."""
        return self._get(0)

    def shake(self) -> None:
        """Say that one begins, or has ended."""
        self._add(0)

    def beats(self, index: int) -> int:
        """How many rounds the context with this *index* has ended."""
        return self._get(1 + index)

    def beat(self, index: int) -> None:
        """Say that it is alive."""
        self._add(1 + index)
