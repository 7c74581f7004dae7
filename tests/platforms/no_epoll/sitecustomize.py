"""Has Python have neither epoll(7) nor eventfd(2), as on macOS and the BSDs: `make no-epoll`.

``site`` imports it in every process, before anything else asks what there is.
"""

import os
import select
import sys
from typing import Any

_epoll = select.epoll
# trio goes by sys.platform, and has kqueue(2) on those systems; the proxy is the tests' network.
_KEEP_IT = ("trio._core._io_epoll", "tests.lab.step_proxy")


def _not_for_us(name: str) -> Any:
    if name == "epoll" and sys._getframe(1).f_globals["__name__"] in _KEEP_IT:
        return _epoll
    raise AttributeError(f"module 'select' has no attribute {name!r}")


del select.epoll
select.__dict__["__getattr__"] = _not_for_us
for _name in [name for name in vars(os) if name.startswith("eventfd")]:
    delattr(os, _name)
