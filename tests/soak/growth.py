"""Does the process grow? What it has when nothing is under way, early and late."""

import ctypes
import gc
import os
from dataclasses import dataclass, fields

from greenlet import greenlet


@dataclass(frozen=True)
class Sample:
    """What it has now. How many greenlets: those that are not through."""

    descriptors: int
    threads: int
    greenlets: int
    resident_kb: int

    @staticmethod
    def take():
        gc.collect()
        _give_back()
        return Sample(
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=len(os.listdir("/proc/self/task")),
            greenlets=sum(
                isinstance(each, greenlet) and not each.dead for each in gc.get_objects()
            ),
            resident_kb=_resident_kb(),
        )


#: By so much the least of the last third may exceed the most of the first third.
MARGINS = Sample(descriptors=2, threads=1, greenlets=2, resident_kb=16 * 1024)


def _give_back():
    """Have malloc give free memory back, so that what is left is in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident_kb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def growth(samples):
    """Return what has grown from the first third to the last, in words."""
    third = max(1, len(samples) // 3)
    found = []
    for field in fields(Sample):
        early = max(getattr(each, field.name) for each in samples[:third])
        late = min(getattr(each, field.name) for each in samples[-third:])
        if late > early + getattr(MARGINS, field.name):
            found.append(
                f"{field.name}: at most {early} in the first third, {late} at least at last"
            )
    return found
