"""Large objects whose methods are awaited."""

from typing import Any

from greenwait._connections.large_object import LargeObject, is_class_of
from greenwait.aio._call import awaited

__all__ = ["awaited_large_object"]

_METHODS = ("read", "write", "seek", "tell", "truncate", "close", "unlink", "export")

_classes: dict[type, type] = {}


def awaited_large_object(factory: Any) -> Any:
    """Return a subclass of a class of large objects, with awaited methods."""
    if not is_class_of(factory, LargeObject):
        return factory
    if factory not in _classes:
        own: dict[str, Any] = {"__doc__": factory.__doc__, "__module__": factory.__module__}
        for name in _METHODS:
            method = getattr(factory, name)
            own[name] = awaited(method, f"{factory.__name__}.{name}", of_cursor=True)
        _classes[factory] = type(f"Async{factory.__name__}", (factory,), own)
    return _classes[factory]
