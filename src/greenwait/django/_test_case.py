"""The transaction of a ``TestCase``, which all jobs, calls and greenlets share.

A ``TestCase`` saves its rows in a transaction that is never committed, and so only its own
connection sees them. What it starts gets that connection. Their ``atomic()`` blocks are
savepoints there, which the server keeps as a stack: a second one would be released, or
rolled back, with the first. So they take turns, except a job that another one has started in its
block, and waits for: that is within it.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import ref

from greenwait._connections.semaphore import pause
from greenwait._greenlets.local import local, scope

__all__ = ["AtomicBlocks", "Savepoints", "shared_wrappers"]

#: The wrappers whose transaction is a ``TestCase``'s, by the alias of the database.
shared_wrappers: dict[str, Any] = {}

# Waiting for a turn is rare, and a test's: it need not be woken.
_PAUSE = 0.002

#: The jobs, calls and greenlets with savepoints that this one is within, and itself.
_within: ContextVar[tuple[int, ...]] = ContextVar("greenwait.django savepoints", default=())


class AtomicBlocks(list[Any]):
    """The ``atomic()`` blocks of a wrapper that are open, which tells of a ``TestCase``'s."""

    def __init__(self, wrapper: Any) -> None:
        super().__init__()
        self._wrapper = ref(wrapper)  # which is freed without a garbage collection, as Django's is

    def append(self, block: Any) -> None:
        """Add the innermost block."""
        super().append(block)
        if block._from_testcase:
            wrapper: Any = self._wrapper()
            wrapper.test_scope = scope()
            shared_wrappers[wrapper.alias] = wrapper

    def pop(self, *index: Any) -> Any:
        """Remove the innermost block."""
        block = super().pop(*index)
        if not self:
            self.forget()
        return block

    def forget(self) -> None:
        """Let nobody share the wrapper any longer."""
        wrapper: Any = self._wrapper()
        alias: str = "" if wrapper is None else wrapper.alias
        if alias in shared_wrappers and shared_wrappers[alias] is wrapper:
            del shared_wrappers[alias]


class _Savepoint:
    """A savepoint; it has a name once the server knows of it."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.sid = ""


class Savepoints:
    """The savepoints of all but the ``TestCase`` itself, in a transaction that they share."""

    def __init__(self) -> None:
        self._stack: list[_Savepoint] = []
        self._ends = local(on_end=self._end)

    def make(self, save: Callable[[], str]) -> str:
        """Make a savepoint by *save* when it is this job's, call's or greenlet's turn."""
        owner = scope()
        within = _within.get()
        while self._stack and self._stack[-1].owner not in (*within, owner):
            pause(_PAUSE)
        savepoint = _Savepoint(owner)
        self._stack.append(savepoint)
        self._ends.owner = owner
        if owner not in within:
            _within.set((*within, owner))
        try:
            savepoint.sid = save()
        except BaseException:
            self._stack.remove(savepoint)
            raise
        return savepoint.sid

    def remove(self, sid: str) -> None:
        """Remove a savepoint, and those within it, as the server does."""
        for index, savepoint in enumerate(self._stack):
            if savepoint.sid == sid:
                del self._stack[index:]
                break

    def _end(self, attributes: dict[str, Any]) -> None:
        """Remove what a job, call or greenlet has left."""
        owner = attributes["owner"]
        self._stack = [savepoint for savepoint in self._stack if savepoint.owner != owner]
