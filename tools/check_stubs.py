"""Has each compiled module that Python code may use a stub?

``stubtest`` compares the stubs that there are with the extension, but says nothing of a private
module that has none, and all of ours are private.
"""

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "greenwait"

# At the beginning of a line; what is "cdef" is for other compiled modules.
_VISIBLE = re.compile(r"^(?:__all__|(?:async )?def|cpdef|class)\b.*", re.MULTILINE)


def missing() -> list[str]:
    """Return a complaint for each module that has a name for Python code, and no stub."""
    return [
        f"{module.name} has {found[0]!r} and no {module.with_suffix('.pyi').name}"
        for module in sorted(PACKAGE.glob("*.pyx"))
        if (found := _VISIBLE.search(module.read_text()))
        and not module.with_suffix(".pyi").exists()
    ]


if __name__ == "__main__":
    sys.exit("\n".join(missing()) or None)
