"""The sleep of a plain thread, in poll(2) or epoll_wait(2), without the GIL.

No other module sleeps for a plain thread. This one runs Python's signal handlers, and turns
the kernel's errors into exceptions.

Every step of every wait, in every context, calls ``sleep_until_ready()``, which checks the
clock before it sleeps. So a server that never stops sending can't delay a deadline or a
signal, and no loop above this one needs a clock of its own.
"""

from typing import Literal

__all__ = ["POLLERS"]

POLLERS: tuple[Literal["poll", "epoll"], ...]
