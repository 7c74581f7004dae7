"""Whether a pool's connection can go back as it is, so that nothing has to wait for that."""

from contextlib import AbstractContextManager
from typing import Any

__all__ = ["leave_as_lent"]

def leave_as_lent(block: AbstractContextManager[Any, None]) -> bool: ...
