from typing import final

__all__ = ["Turn"]

@final
class Turn:
    def take(self, what: str) -> None: ...
    def give(self) -> None: ...
