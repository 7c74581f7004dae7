"""The statement that psycopg2 executes, read from the Python code that called it.

psycopg2 does not tell its callback. It matters only when a wait is interrupted, and
only where a transaction begins or ends. A ``greenwait.Connection`` knows by itself; for others
the caller's bytecode shows a call of ``commit()`` or the end of ``with conn:``. A call made
in another way (``executor.submit(conn.commit)``) counts as a query.
"""

import dis
import sys
from types import FrameType

__all__ = ["ending_of_caller"]

_METHODS = {
    "commit",
    "rollback",
    "tpc_begin",
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
    """Return the psycopg2 method that was called, if it begins or ends a transaction, or None.

    ``with conn:`` is ``"commit"`` or ``"rollback"``.

    Compiled modules have no frames: the nearest frame is that of psycopg2's caller.
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
        before.append(instruction)
    else:  # pragma: no cover: some instruction is being executed
        return None
    if instruction.opname == "WITH_EXCEPT_START":
        return "rollback"
    if instruction.opname not in _CALLS:
        return None
    name = _method_called(instruction, before)
    if name is not None:
        return name if name in _METHODS else None
    # __exit__(None, None, None), as compiled for the end of a with block
    last = [each for each in before if each.opname not in _BETWEEN][-3:]
    if sys.version_info < (3, 11):
        is_exit = [each.opname for each in last] == ["LOAD_CONST", "DUP_TOP", "DUP_TOP"]
    else:
        is_exit = [each.argval for each in last] == [None] * 3 and all(
            each.opname in _CONSTANTS for each in last
        )
        if sys.version_info < (3, 13):  # the first one counts as self
            is_exit = is_exit and instruction.arg == 2
    return "commit" if is_exit else None


def _method_called(call: dis.Instruction, before: list[dis.Instruction]) -> str | None:
    """Return the attribute that *call* calls, as found below its arguments, or None."""
    if before and before[-1].opname == "PRECALL":  # a part of it
        before = before[:-1]
    values = call.arg or 0
    for each in reversed(before):
        if values != 0:
            values -= dis.stack_effect(each.opcode, each.arg, jump=False)
        elif each.opname not in _BETWEEN:
            return str(each.argval) if each.opname in _ATTRIBUTES else None
    return None
