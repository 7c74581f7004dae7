from collections.abc import Callable
from typing import Any

__all__ = [
    "came_out_of_psycopg2",
    "check_greenlet",
    "do_commit",
    "do_execute",
    "do_execute_no_params",
    "do_executemany",
    "do_rollback",
]

def came_out_of_psycopg2(exc: BaseException, where: object) -> bool: ...
def check_greenlet() -> int: ...
def do_execute(
    self: object, cursor: Any, statement: Any, parameters: Any, context: Any = None
) -> None: ...
def do_execute_no_params(
    self: object, cursor: Any, statement: Any, context: Any = None
) -> None: ...
def do_executemany(execute_many: Callable[..., None]) -> Callable[..., None]: ...
def do_commit(self: object, dbapi_connection: Any) -> None: ...
def do_rollback(roll_back: Callable[..., None]) -> Callable[..., None]: ...
