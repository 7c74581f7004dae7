__all__ = ["POLLERS", "DeadlinePassed", "HandlerRaised"]

POLLERS: tuple[str, ...]

class DeadlinePassed(BaseException): ...

class HandlerRaised(BaseException):
    @property
    def exception(self) -> BaseException: ...
