"""Many waits on one thread: the scheduler, the hub, and gather()."""
