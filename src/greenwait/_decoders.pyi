import codecs
from typing import Any

__all__: list[str] = []

def _decode_utf_8(data: Any, errors: str = "strict") -> tuple[str, int]: ...

class _Name(str): ...

def _search(name: str) -> codecs.CodecInfo | None: ...
