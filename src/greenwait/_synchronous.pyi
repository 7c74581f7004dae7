"""Can a greenlet call this: is it a function, and a synchronous one?"""

from typing import Any

__all__ = ["check_synchronous"]

def check_synchronous(caller: str, given: Any) -> None:
    """Raise TypeError unless *given* can be called, and need not be awaited.

    :param caller: who is to call it, for the message.
    """
