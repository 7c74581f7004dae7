from typing import Any

__all__ = ["check_synchronous"]

def check_synchronous(caller: str, given: Any) -> None: ...
