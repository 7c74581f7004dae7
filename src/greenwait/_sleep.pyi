from typing import Literal

__all__ = ["POLLERS"]

POLLERS: tuple[Literal["poll", "epoll"], ...]
