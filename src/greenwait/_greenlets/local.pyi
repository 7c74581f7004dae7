"""``local()``: attributes of the job, call, greenlet or thread that sets them.

A *scope* is one of these. A job and a call end their own when their function is over: the
greenlet in which it ran goes on with the next one, and a copy of its context may be kept. A
framework tells of the end of its greenlets. A thread's scope is in its dict, which is freed with
it. Any other greenlet's is in the greenlet's dict; it is ended when the greenlet is freed, or
found dead when the next one makes a scope.

A local keeps no scope alive, nor a scope a local: the attributes are the local's, by the number
of the scope.
"""

from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar, final

from greenlet import greenlet

__all__ = ["call_in_scope", "local", "scope", "tell_ends"]

_Result = TypeVar("_Result")
_Greenlet = TypeVar("_Greenlet", bound=greenlet)

@final
class local:  # noqa: N801, named as threading.local is
    """Attributes of the job, call, greenlet or thread that sets them, and of no other.

    :param on_end: a function that is called with the dict of these attributes when the job, call,
        greenlet or thread ends; None: they are just dropped.
    :raises TypeError: *on_end* is not callable.

    The job of a hub, of ``gather()`` or ``map()``, the call of ``aio.run()`` or ``trio.run()``, or
    else the greenlet, of gevent and eventlet for instance, or else the thread. It ends when its
    function returns, raises or is cancelled, whoever keeps a copy of its context variables; the
    next job of the same greenlet begins without attributes, and so does a forked child.

    *on_end* runs in the job or call itself, before its result is there; in a greenlet of its own
    after one of gevent's; in a thread that ends. It should not wait for the server: close a
    connection, do not commit. An Exception that it raises goes to ``sys.unraisablehook()``; an
    interrupt is raised by the job or call. It is not called at interpreter exit. A greenlet of no
    framework ends when it is freed, or soon after it is dead.

    It may be used in any thread.
    """
    def __new__(cls, *, on_end: Callable[[dict[str, Any]], object] | None = None) -> local: ...
    def __getattribute__(self, name: str, /) -> Any: ...
    def __setattr__(self, name: str, value: Any, /) -> None: ...
    def __delattr__(self, name: str, /) -> None: ...

def scope() -> int:
    """Return the identity of the job, call, greenlet or thread that runs, an integer.

    :returns: a number that no other one has or had: jobs which run one after another in the same
        greenlet have different ones, and a forked child has another one than its parent.

    It is what SQLAlchemy's ``scoped_session(..., scopefunc=greenwait.scope)`` needs.
    """

def call_in_scope(context: Context, function: Callable[[], _Result]) -> _Result:
    """Call the function in the context, with a scope of its own below a job."""

def tell_ends(
    cls: type[_Greenlet], link: Callable[[_Greenlet, Callable[[_Greenlet], None]], object]
) -> None:
    """Make the end of each greenlet of a class known.

    *link* is called as ``link(greenlet, function)``, in the greenlet, and calls the function with
    the greenlet at its end.
    """
