from typing import Any

__all__ = ["Adapter", "adopt"]

class Adapter:
    instead: str
    def is_here(self) -> bool: ...
    def wait(self, fd: int, events: int, seconds: float | None, known: Any) -> int: ...

def adopt(adapter: Adapter) -> None: ...
