__all__ = ["POLLERS"]

POLLERS: tuple[str, ...]
