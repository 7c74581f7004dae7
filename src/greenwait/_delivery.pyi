from typing import Any

__all__: list[str] = []

def _new(cls: type[Any], /, *args: Any, **keywords: Any) -> Any: ...
