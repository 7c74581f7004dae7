"""Django's refusal of synchronous code beside a running event loop, except below ``aio.run()``.

There the code may wait: the event loop runs meanwhile. Everywhere else a query would stop it, and
Django goes on to raise ``SynchronousOnlyOperation``.
"""

from asyncio import AbstractEventLoop
from importlib import import_module
from typing import Any

from greenwait.aio._call import in_call

__all__ = ["let_calls_through"]


def let_calls_through() -> None:
    """Make Django find no event loop below ``aio.run()``."""
    module: Any = import_module("django.utils.asyncio")
    running_loop = module.get_running_loop
    if getattr(running_loop, "_lets_calls_through", False):
        return

    def get_running_loop() -> AbstractEventLoop:
        found: AbstractEventLoop = running_loop()
        if in_call():
            raise RuntimeError("below greenwait.aio.run() synchronous code may wait")
        return found

    vars(get_running_loop)["_lets_calls_through"] = True
    module.get_running_loop = get_running_loop
