__all__ = ["outranks", "time_limits"]

time_limits: list[type[BaseException]]

def outranks(exc: BaseException, other: BaseException) -> bool: ...
