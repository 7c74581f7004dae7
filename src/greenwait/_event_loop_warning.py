"""The warning that a wait stops the event loop of its thread."""

import sys
import warnings
from asyncio.events import _get_running_loop as running_loop

__all__ = ["tell"]

_told: set[tuple[str, int]] = set()


def tell(is_raised: bool, only_in_debug_mode: bool) -> None:
    """Warn that a wait stops the event loop, once for each line, or raise RuntimeError."""
    event_loop = running_loop()
    if event_loop is None or (only_in_debug_mode and not event_loop.get_debug()):
        return
    message = (
        "this query stops the event loop that runs in this thread: write await "
        "greenwait.aio.run(function, ...), or use greenwait.aio.connect() and await its methods"
    )
    if is_raised:
        raise RuntimeError(message)
    try:
        # Compiled modules have no frames: this is the frame of the query's caller.
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    except ValueError:  # pragma: no cover: not traced where no Python code called
        return
    place = (frame.f_code.co_filename, frame.f_lineno)
    if place not in _told:
        _told.add(place)
        warnings.warn_explicit(message, RuntimeWarning, *place)
