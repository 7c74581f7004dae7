"""Which statement is psycopg2 executing? What the Python code that called it says.

psycopg2 does not tell its callback. It matters only when a wait is interrupted, and
only for the end of a transaction. A ``greenwait.Connection`` knows by itself; for others
the caller's bytecode shows a call of ``commit()`` or the end of ``with conn:``. What is
called in another way (``executor.submit(conn.commit)``) counts as a query.
"""

import dis
import sys
from types import FrameType

__all__ = ["ending_of_caller"]

_METHODS = {
    "commit",
    "rollback",
    "tpc_prepare",
    "tpc_commit",
    "tpc_rollback",
    # These end a transaction by a rollback.
    "reset",
    "set_client_encoding",
    "set_isolation_level",
}
# CPython 3.11, once it has specialised a call, makes it in the PRECALL.
_CALLS = ("CALL", "PRECALL", "CALL_METHOD", "CALL_FUNCTION")
_BETWEEN = ("CACHE", "PRECALL", "PUSH_NULL")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
# None is a common constant as of CPython 3.15.
_CONSTANTS = ("LOAD_CONST", "LOAD_COMMON_CONSTANT")


def ending_of_caller() -> str | None:
    """Return which method that ends a transaction the caller's caller, psycopg2, executes, or None.

    ``with conn:`` is ``"commit"`` or ``"rollback"``.

    Compiled modules have no frames: the nearest Python code is what called psycopg2.
    """
    try:
        return _ending_called_by(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
    except ValueError:  # there is none
        return None


def _ending_called_by(frame: FrameType) -> str | None:
    before: list[dis.Instruction] = []
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset >= frame.f_lasti:
            break
        if instruction.opname not in _BETWEEN:
            before.append(instruction)
    else:  # pragma: no cover: some instruction is being executed
        return None
    if instruction.opname == "WITH_EXCEPT_START":
        return "rollback"
    if instruction.opname not in _CALLS or not before:
        return None
    if before[-1].opname in _ATTRIBUTES:
        name = before[-1].argval
        return name if name in _METHODS else None
    # __exit__(None, None, None), as compiled for the end of a with block
    if sys.version_info < (3, 11):
        is_exit = [each.opname for each in before[-3:]] == ["LOAD_CONST", "DUP_TOP", "DUP_TOP"]
    else:
        is_exit = [each.argval for each in before[-3:]] == [None] * 3 and all(
            each.opname in _CONSTANTS for each in before[-3:]
        )
    return "commit" if is_exit else None
