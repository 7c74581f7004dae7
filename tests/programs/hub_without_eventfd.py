"""What wakes a hub without eventfd(2) is closed with it."""

import os
import sys

os.__dict__.pop("eventfd", None)  # Linux's
import greenwait

greenwait.install()
pool = greenwait.Pool(sys.argv[1], max_size=1)
counts = []
for _ in range(3):
    with greenwait.Hub() as hub:
        conn = pool.getconn()
        job = hub.spawn(pool.getconn)
        hub.sleep(0.01)  # it waits for its turn, which may come from another thread
        pool.putconn(conn)
        pool.putconn(job.result())
    del hub, job
    counts.append(len(os.listdir("/proc/self/fd")))
print(counts[-1] - counts[0])
