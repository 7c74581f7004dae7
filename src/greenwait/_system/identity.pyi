from collections.abc import Iterable

__all__ = ["publish"]

def publish(module: str, objects: Iterable[object]) -> None: ...
