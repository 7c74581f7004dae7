from typing import Any

from greenwait._connections.pool import Pool

__all__ = ["is_as_lent"]

def is_as_lent(pool: Pool[Any], conn: Any) -> bool: ...
