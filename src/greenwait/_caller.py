"""The statement that psycopg2 executes, read from the Python code that called it.

psycopg2 does not tell its callback. It matters only when a wait is interrupted, and
only where a transaction begins or ends. A ``greenwait.Connection`` knows by itself; for others
the caller's bytecode shows a call of ``commit()`` or the end of ``with conn:``. A call made
in another way (``executor.submit(conn.commit)``) counts as a query.
"""

import dis
import sys
from types import FrameType

__all__ = ["ending_of_caller", "statement_of_caller"]

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
_CALLS_WITH_KEYWORDS = ("CALL_KW", "CALL_FUNCTION_KW")
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
    found = _call_of(frame)
    if found is None:
        return None
    instruction, before = found
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


def statement_of_caller(inner: FrameType | None, frame: FrameType | None) -> tuple[str, str]:
    """Return what *frame* calls, for a trace: its kind, and the statement or the method's name.

    *inner* is the frame that has called psycopg2's compiled part. It tells whether a transaction
    ends: psycopg2's pool ends one in Python code that *frame* has called.

    The statement is known if it is written where it is executed. An argument that is computed is
    not: then it is ``execute()``.
    """
    ending = None if inner is None else _ending_called_by(inner)
    if ending is not None:
        return "transaction", ending
    found = None if frame is None else _call_of(frame)
    if found is None:
        return "query", "query"
    call, before = found
    if call.opname not in _CALLS + _CALLS_WITH_KEYWORDS:
        return "query", "query"
    index = _index_of_callable(call, before)
    if index is None:
        return "query", "query"
    for each in before[index + 1 :]:
        if each.opname in _BETWEEN:
            continue
        if each.opname in _CONSTANTS and isinstance(each.argval, (str, bytes)) and each.argval:
            text = each.argval
            return "query", text if isinstance(text, str) else text.decode("utf-8", "replace")
        break
    return "query", f"{before[index].argval}()"


def _call_of(frame: FrameType) -> tuple[dis.Instruction, list[dis.Instruction]] | None:
    """Return the instruction that *frame* executes, and those before it.

    While it calls a Python function, CPython 3.11 and 3.12 are at the last cache of the CALL.
    """
    before: list[dis.Instruction] = []
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset > frame.f_lasti:
            break
        before.append(instruction)
    return (before[-1], before[:-1]) if before else None


def _method_called(call: dis.Instruction, before: list[dis.Instruction]) -> str | None:
    """Return the attribute that *call* calls, or None."""
    index = _index_of_callable(call, before)
    if index is None or before[index].opname not in _ATTRIBUTES:
        return None
    return str(before[index].argval)


def _index_of_callable(call: dis.Instruction, before: list[dis.Instruction]) -> int | None:
    """Return where in *before* that is loaded which *call* calls, below its arguments."""
    end = len(before)
    if before and before[-1].opname == "PRECALL":  # a part of it
        end -= 1
    values = call.arg or 0
    for index in reversed(range(end)):
        each = before[index]
        if values != 0:
            values -= dis.stack_effect(each.opcode, each.arg, jump=False)
        elif each.opname not in _BETWEEN:
            return index
    return None
