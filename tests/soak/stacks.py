"""Where is everybody? The stacks of a process that has come to a standstill."""

import faulthandler
import gc
import sys
import threading
import time
import traceback

from greenlet import greenlet

_FIRST = 60  # seconds without a sign of life until the greenlets' stacks are written,
_LAST = 70  # and until the threads' are, and the process ends


class Watchdog:
    """Writes the stacks and ends the process, unless it is told that there is progress."""

    def __init__(self):
        faulthandler.enable()  # SIGABRT, the parent's, writes them too
        self._told = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()
        self.renew()

    def renew(self):
        self._told = time.monotonic()
        faulthandler.dump_traceback_later(_LAST, exit=True)  # which needs no GIL

    def _watch(self):
        while time.monotonic() < self._told + _FIRST:
            time.sleep(1)
        write_greenlets()


def write_greenlets():
    """Write where each greenlet is that does not run; faulthandler knows of threads only."""
    for each in gc.get_objects():
        if isinstance(each, greenlet) and each.gr_frame is not None:
            print(f"\n{each!r}", file=sys.stderr)
            traceback.print_stack(each.gr_frame, file=sys.stderr)
    sys.stderr.flush()
