"""Interrupts at moments that nobody has chosen."""

import gc
import signal


class Interrupted(Exception):
    """What the handler raises."""


def interrupted(function, *, microseconds, times=3000):
    """Call *function* so many times, each interrupted once, unless it has ended before.

    The timer's delay goes from none to *microseconds*, again and again. Returns how many
    were interrupted.
    """

    def handler(*_):
        raise Interrupted

    count = 0
    gc.disable()  # it calls Python functions of others, hypothesis's, that are not to be struck
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for number in range(times):
            try:
                signal.setitimer(signal.ITIMER_REAL, (1 + number % 97 * microseconds / 96) * 1e-6)
                function()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                count += 1
            finally:
                while True:
                    try:  # not suppress(), Python code in which the last one may come
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        break
                    except Interrupted:
                        continue
    finally:
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    return count
