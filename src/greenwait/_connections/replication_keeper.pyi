from greenwait._connections.replication_stream import Stream

__all__ = ["keep_alive"]

def keep_alive(stream: Stream, seconds: float) -> None: ...
