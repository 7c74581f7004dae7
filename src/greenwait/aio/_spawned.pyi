"""Waits in the greenlets of SQLAlchemy's asyncio extension.

SQLAlchemy runs its synchronous code in a greenlet, whose parent is a task's: that awaits the object
which the greenlet switches to it with (``greenlet_spawn()`` and ``await_()`` in
``sqlalchemy/util/concurrency.py``). So psycopg2's waits there need no adapted methods: each one
switches to the task, and the event loop's waiter resumes that when the wait is over.
"""

__all__ = ["register_spawned"]

def register_spawned(cls: type) -> None:
    """Make waits in SQLAlchemy's greenlets suspend their tasks.

    :param cls: SQLAlchemy's class of greenlets, which its first releases did not mark.
    """
