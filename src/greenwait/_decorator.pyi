from collections.abc import Callable
from typing import Any

__all__ = ["decorated"]

def decorated(what: str, function: Any, new_block: Callable[[], Any], /) -> Any: ...
