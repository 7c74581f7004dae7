from typing import final

from greenwait._waiter import Adapter

__all__ = ["GeventAdapter"]

@final
class GeventAdapter(Adapter): ...
