# cython: overflowcheck=False
"""One defect of each kind that ``make sanitize`` and ``make memcheck`` must find.

Built by these two only, with our own flags: a search that does not find these finds nothing.
"""

from libc.stdlib cimport free, malloc


def read_beyond(size_t size):
    """Read the byte after a block of *size* bytes."""
    cdef volatile unsigned char *block = <unsigned char *>malloc(size)
    if block == NULL:
        raise MemoryError
    cdef size_t place
    for place in range(size):
        block[place] = 1
    cdef int beyond = block[size]
    free(<void *>block)
    return beyond


def depend_on_nothing(size_t size):
    """Decide by a byte that was never written."""
    cdef volatile unsigned char *block = <unsigned char *>malloc(size)
    if block == NULL:
        raise MemoryError
    cdef bint is_great = False
    if block[0] > 100:
        is_great = True
    free(<void *>block)
    return is_great


def overflow(int number):
    """Add one to the greatest int."""
    return number + 1


cdef void _lose(size_t size) noexcept:
    cdef volatile unsigned char *block = <unsigned char *>malloc(size)
    if block != NULL:
        block[0] = 1


def lose(size_t size, int times):
    """Allocate blocks and forget where they are."""
    for _ in range(times):
        _lose(size)
