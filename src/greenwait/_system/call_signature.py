"""The signature of callable objects whose class is compiled."""

from collections.abc import Callable
from typing import Any

__all__ = ["CallSignature"]


class CallSignature:
    """A ``__signature__`` for the objects of a class, and not for the class itself.

    ``inspect.signature()`` does not find that of a compiled ``__call__()`` by itself.

    :param function: a function with the signature that ``__call__()`` has.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return None  # inspect goes on as if there was none
        from inspect import signature  # not before it is needed: it imports much

        return signature(self._function)
