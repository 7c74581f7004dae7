from greenwait._counts import Stats

__all__ = ["stats"]

def stats(*, reset: bool = ...) -> Stats: ...
