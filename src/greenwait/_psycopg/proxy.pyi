"""The connection that is in a proxy, which a library that traces has put around it.

Such libraries replace ``psycopg2.connect()``. ``isinstance()`` takes their proxies for what is in
them.
"""

from typing import Any

__all__ = ["without_proxy"]

def without_proxy(conn: Any) -> Any:
    """Return the connection that is in the proxy; anything else as it is."""
