from typing import Any

__all__ = ["without_proxy"]

def without_proxy(conn: Any) -> Any: ...
