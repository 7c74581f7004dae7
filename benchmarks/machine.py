"""Where it was measured, and with what: machine, versions, and who runs on which core."""

import importlib.metadata
import os
import platform
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import psycopg2
from psycopg2.extensions import connection, libpq_version

import greenwait

_PEERS = (
    "aiopg",
    "asyncpg",
    "eventlet",
    "gevent",
    "psqlpy",
    "psycogreen",
    "psycopg",
    "psycopg-pool",
    "uvloop",
)
_NOT_KNOWN = "not known"
_LOOK_SECONDS = 0.5
Pinning = Literal["free", "same", "apart"]


def machine() -> dict[str, str]:
    """Describe the machine; nothing in it names the host."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.exists() else ""
    facts = dict(re.findall(r"^(model name|flags)\s*:\s*(.+)$", text, re.MULTILINE))
    virtual = "yes" if "hypervisor" in facts.get("flags", "").split() else "no"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "CPU": facts.get("model name") or platform.processor() or platform.machine(),
        "CPUs": _cpu_count(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "virtual machine": virtual if "flags" in facts else _NOT_KNOWN,
        "load before": f"{load:.1f}",
        "CPUs in use before": _share_in_use(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def is_busy(found: dict[str, str]) -> bool:
    """Whether others had a quarter of the CPUs of that machine, so that times on it are rough.

    The load is of the minute before, in which `make bench` may have compiled: it tells only where
    nothing else does.
    """
    share = found.get("CPUs in use before", _NOT_KNOWN)
    if share != _NOT_KNOWN:
        return float(share.rstrip(" %")) > 25
    return float(found["load before"]) > int(found["CPUs"].split(",")[0]) / 2


def _share_in_use() -> str:
    """Look for half a second, in which this process does nothing, how much the CPUs do."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return _NOT_KNOWN

    def spent() -> tuple[int, int]:
        ticks = [int(each) for each in stat.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # idle and iowait, proc(5)

    used, total = spent()
    time.sleep(_LOOK_SECONDS)
    used_later, total_later = spent()
    return f"{100 * (used_later - used) / max(1, total_later - total):.0f} %"


def _cpu_count() -> str:
    count = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return str(count) if usable == count else f"{count}, {usable} of them for this process"


def versions(conn: connection) -> dict[str, str]:
    """Return the version of everything that may take part; *conn* says which server."""
    psycopg2_builds = filter(_installed, ("psycopg2-binary", "psycopg2"))
    found = {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "greenwait": greenwait.__version__,
        "psycopg2": f"{vars(psycopg2)['__version__'].split()[0]} "
        f"({next(psycopg2_builds, 'build not known')})",
        "libpq": f"{libpq_version() // 10000}.{libpq_version() % 10000}",
        "PostgreSQL": (conn.info.parameter_status("server_version") or "not known").split()[0],
    }
    return found | {name: version for name in _PEERS if (version := _installed(name))}


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


class Cores:
    """Who runs where: wherever the kernel puts them, on the same core, or on a core each.

    On the same core no time goes by in waking another, which on a virtual machine costs more
    than the query, and the ratios are stable.
    """

    def __init__(self, pinning: Pinning) -> None:
        self._pinning = pinning
        self.title = "cores left free"
        if pinning == "free":
            return
        if not hasattr(os, "sched_setaffinity"):
            sys.exit(f"{sys.platform} can't pin a process to a core")
        self._usable = os.sched_getaffinity(0)
        # The last one: the first is where Linux serves most interrupts.
        self._core = max(self._usable)
        self._others = self._usable - {self._core}
        if pinning == "apart" and not self._others:
            sys.exit("client and server need a core each, and there is one")
        self.title = f"client and server on core {self._core}"
        if pinning == "apart":
            self.title = f"the server on core {self._core}, the client elsewhere"

    def pin_server(self, conn: connection) -> None:
        """Pin the server process behind *conn*."""
        if self._pinning == "free":
            return
        pid = conn.info.backend_pid
        try:
            # Of a server elsewhere, that is another program's number here.
            if not Path(f"/proc/{pid}/comm").read_text().startswith("postgres"):
                raise ProcessLookupError
            os.sched_setaffinity(pid, {self._core})
        except OSError as exc:
            sys.exit(
                f"the server's process {pid} can't be pinned ({exc}): it is another user's, or on "
                "another machine; measure with a server started here"
            )

    def release_client(self) -> None:
        """Let this thread use again what it could use before."""
        if self._pinning != "free":
            os.sched_setaffinity(0, self._usable)

    def place_client(self) -> None:
        """Put this thread where it belongs; to be called before each block.

        Apart from the server it stays free to use two cores, since with a single one greenwait
        does not spin. Of two, one is the server's, and the kernel may move the thread there.
        """
        if self._pinning == "same":
            os.sched_setaffinity(0, {self._core})
        elif self._pinning == "apart":
            os.sched_setaffinity(0, self._others)
            if len(self._others) == 1:
                os.sched_setaffinity(0, self._usable)
