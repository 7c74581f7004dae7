from collections.abc import Callable
from typing import Any, TypeVar, final

__all__ = ["Turn"]

_Result = TypeVar("_Result")

@final
class Turn:
    def run(
        self,
        conn: Any,
        what: str,
        function: Callable[..., _Result],
        /,
        *args: Any,
        **kwargs: Any,
    ) -> _Result: ...
