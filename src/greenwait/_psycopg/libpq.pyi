__all__ = ["FAST_PATHS"]

FAST_PATHS: dict[str, str]
