"""The end of a pool's block whose connection can go back as it is: nothing has to wait for that."""

from contextlib import AbstractContextManager
from typing import Any

__all__ = ["leave_as_lent"]

def leave_as_lent(block: AbstractContextManager[Any, None]) -> bool:
    """Leave the block at once if its connection is as it was lent; return whether it is left.

    It is if it is open, in no transaction, with its settings, and nobody is at work on it. It is
    not if a user's function is to see it first: the pool's ``reset``, or a ``commit()`` of a class
    or a connection of its own.
    """
