"""The soak: minutes of everything at the same time, in every context, while faults strike.

    python -m tests.soak [--minutes N] [--seed N] [--only CONTEXT]

Each context is a process of its own, ``client.py``, which runs rounds of random jobs
(``jobs.py``, ``operations.py``) as that context does (``contexts.py``) and interrupts some of
them. The parent (``__main__.py``) strikes at connections and at the server (``trouble.py``).

There are two kinds of connections. The mortal ones lead through a proxy that misbehaves, or
their server processes are terminated: what is done on them succeeds, with the right answer, or
fails with an error that the documentation names, and then the connection is closed. The sound
ones are struck by nothing but their own time limits and interrupts, and a restart of the server:
so each other failure is a defect, and what was interrupted must be usable afterwards.

Beside them is a hostile server (``hostile.py``), which breaks the protocol wherever it can: each
call to it ends in time, with an error of psycopg2's, and leaves the others alone.

The seed decides what is done and what strikes, in each context by itself. When that happens is
up to the machine, so that a seed repeats a run's kind, not its moments.
"""
