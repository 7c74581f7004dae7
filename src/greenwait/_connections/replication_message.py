"""A message of a replication stream, of a subclass of psycopg2's class.

psycopg2's own attributes can't be set from outside, so that the subclass has them once more.
"""

from datetime import datetime

from psycopg2.extras import ReplicationMessage as _ReplicationMessage

__all__ = ["ReplicationMessage"]

# PostgreSQL counts microseconds from the year 2000 on.
_EPOCH = 946_684_800


class ReplicationMessage(_ReplicationMessage):
    """A message of a replication stream."""

    __slots__ = ("data_size", "data_start", "sent", "wal_end")

    #: The size of the message, in bytes.
    data_size: int
    #: The position of its beginning in the WAL.
    data_start: int
    #: The position of the WAL's end on the server.
    wal_end: int
    #: When the server sent it, as the protocol has it.
    sent: int

    @property
    def send_time(self) -> datetime:
        """When the server sent it, in local time."""
        return datetime.fromtimestamp(self.sent / 1e6 + _EPOCH)

    def __repr__(self) -> str:
        return (
            f"<ReplicationMessage object at {id(self):#x}; data_size: {self.data_size}; "
            f"data_start: {_lsn(self.data_start)}; wal_end: {_lsn(self.wal_end)}; "
            f"send_time: {self.sent}>"
        )


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:08X}"
