from typing import NamedTuple

__all__ = ["Stats", "stats"]

class Stats(NamedTuple):
    waits: int
    sleeps: int
    seconds_asleep: float
    spin_hits: int
    spin_misses: int
    seconds_spinning: float
    results_plain: int
    results_libpq: int
    cancels: int
    timeouts: int

def stats(*, reset: bool = ...) -> Stats: ...
