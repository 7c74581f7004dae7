"""How long something may take: longer where the tests' processor is emulated.

``GREENWAIT_TEST_SLOWNESS=5``, as `make aarch64-full` has it: so many times as long. It is for what
this process and its children compute, and not for what greenwait promises where it can be kept.
"""

import os

__all__ = ["bound"]

_SLOWNESS = float(os.environ.get("GREENWAIT_TEST_SLOWNESS", "1"))


def bound(seconds: float) -> float:
    """Return how long may take here what takes at most so many seconds on a busy machine."""
    return seconds * _SLOWNESS
