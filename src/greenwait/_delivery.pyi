from typing import Any

import psycopg2.errors

__all__ = ["QueryCanceled"]

class _Delivering(type):
    def __call__(cls, *args: Any, **keywords: Any) -> Any: ...

class QueryCanceled(psycopg2.errors.QueryCanceled, metaclass=_Delivering):
    def __reduce__(self) -> tuple[Any, ...]: ...
