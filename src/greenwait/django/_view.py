"""Synchronous views that Django calls on the event loop's thread."""

from collections.abc import Awaitable, Callable
from functools import update_wrapper
from importlib import import_module
from typing import Any, Concatenate, ParamSpec

from asgiref.sync import iscoroutinefunction
from django.http import (  # pyright: ignore[reportMissingTypeStubs]  # Django has no types
    HttpRequest,
    HttpResponseBase,
)

from greenwait.aio import run

__all__ = ["view"]

_Parameters = ParamSpec("_Parameters")


class _Everything(set[str]):
    """The databases whose ``ATOMIC_REQUESTS`` Django shall not heed, which would refuse the view.

    It contains all of them; the elements are those that ``non_atomic_requests()`` has named.
    """

    def __contains__(self, alias: object) -> bool:
        return True

    def named(self) -> list[str]:
        """Return those that were named."""
        return list(self)


def view(
    function: Callable[Concatenate[HttpRequest, _Parameters], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, _Parameters], Awaitable[HttpResponseBase]]:
    """Make a synchronous view an asynchronous one, which runs by ``greenwait.aio.run()``.

    :param function: the view; one of ``View.as_view()``, too.
    :returns: a view that is awaited: the event loop goes on while it waits for the database.
    :raises TypeError: it is asynchronous already, or can't be called.

    Use it as a decorator, below others that take asynchronous views, or in a URLconf. The
    view has a database connection of its own, which is closed or given back to the pool when it
    returns. ``ATOMIC_REQUESTS`` applies to it, which Django refuses for other asynchronous views.
    When the client disconnects, Django cancels the request: the query under way is cancelled on
    the server, and the transaction rolled back.
    """
    if not callable(function):
        raise TypeError(f"a view is a function, not {type(function).__name__!r}")
    if iscoroutinefunction(function):
        raise TypeError("this view is asynchronous: await greenwait.aio.run() in it")
    database: Any = import_module("django.db")
    everything = _Everything(getattr(function, "_non_atomic_requests", ()))

    async def called(
        request: HttpRequest, /, *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> HttpResponseBase:
        synchronous = function
        for alias, settings in database.connections.settings.items():
            if settings["ATOMIC_REQUESTS"] and alias not in everything.named():
                synchronous = database.transaction.atomic(using=alias)(synchronous)
        return await run(synchronous, request, *args, **kwargs)

    update_wrapper(called, function)
    vars(called)["_non_atomic_requests"] = everything
    return called
