"""What shows that no descriptor was lost."""

import contextlib
import os
import time
from collections.abc import Iterator

from tests.lab.bounds import bound


@contextlib.contextmanager
def no_leaked_descriptors() -> Iterator[None]:
    """Assert that as many descriptors are open after the block as before."""

    def links() -> dict[str, str]:
        found = {}
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of the listing itself
                found[number] = os.readlink(f"/proc/self/fd/{number}")
        return found

    before = links()
    yield
    give_up = time.monotonic() + bound(5)  # a thread that was given up closes its own
    while len(links()) > len(before) and time.monotonic() < give_up:
        time.sleep(0.01)
    after = links()
    new = {number: link for number, link in after.items() if before.get(number) != link}
    assert len(after) <= len(before), new
