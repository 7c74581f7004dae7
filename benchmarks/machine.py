"""Where was it measured, and with what? Machine, versions, and who runs on which core."""

import ctypes
import importlib.metadata
import os
import platform
import re
import sys
from datetime import datetime, timezone
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection, libpq_version

import greenwait

__all__ = [
    "CannotPinError",
    "OtherCore",
    "SameCore",
    "load_average",
    "machine",
    "resident_kb",
    "transport_of",
    "versions",
]


def machine() -> dict[str, str]:
    """Describe the machine; nothing in it names the host."""
    return {
        "CPU": _cpu_model(),
        "CPUs": _cpu_count(),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "virtual machine": _virtual(),
        "load before": f"{load_average():.1f}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def load_average() -> float:
    """Return the load of the last minute; 0 where the system keeps none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def resident_kb() -> int:
    """Return the memory of this process that is not swapped out; Linux only."""
    found = re.search(r"^VmRSS:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "proc_pid_status(5)"
    return int(found[1])


def versions(conn: connection) -> dict[str, str]:
    """Return the version of everything that takes part; *conn* says which server."""
    found = {
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "greenwait": greenwait.__version__,
        "psycopg2": f"{_psycopg2_version()} ({_psycopg2_build()})",
        "libpq": _dotted(libpq_version()),
        "PostgreSQL": (conn.info.parameter_status("server_version") or "not known").split()[0],
    }
    for name in ("gevent", "psycogreen"):
        version = _installed(name)
        if version:
            found[name] = version
    return found


def transport_of(conn: connection) -> str:
    """Return how *conn* reaches its server: ``"unix"``, ``"tcp"`` or ``"tls"``."""
    if conn.info.ssl_in_use:
        return "tls"
    return "unix" if conn.info.host.startswith(("/", "@")) else "tcp"


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _psycopg2_version() -> str:
    version = str(vars(psycopg2)["__version__"])
    return version.split()[0]


def _psycopg2_build() -> str:
    for name in ("psycopg2-binary", "psycopg2"):
        if _installed(name):
            return name
    return "build not known"


def _dotted(number: int) -> str:
    """Return libpq's 170011 as 17.11."""
    return f"{number // 10000}.{number % 10000}"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""


def _cpu_model() -> str:
    model = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine() or "not known"


def _cpu_count() -> str:
    count = os.cpu_count() or 0
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return str(count) if usable == count else f"{count}, {usable} of them for this process"


def _virtual() -> str:
    cpuinfo = _cpuinfo()
    flags = re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if not flags:
        return "not known"
    return "yes" if "hypervisor" in flags[1].split() else "no"


class CannotPinError(Exception):
    """Client and server can't be put on the cores asked for; says why and what to do."""


class _Pinning:
    """Keeps server processes on one core, whose number is ``core``."""

    def __init__(self) -> None:
        if not hasattr(os, "sched_setaffinity"):
            raise CannotPinError(f"{sys.platform} can't pin a process to a core")
        self._usable = os.sched_getaffinity(0)
        # The last one: the first is where Linux serves most interrupts.
        self.core = max(self._usable)

    def pin_server(self, conn: connection) -> None:
        """Pin the server process behind *conn*."""
        pid = conn.info.backend_pid
        try:
            # A server elsewhere has a process id too, and here that number is
            # another program's.
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if not name.startswith("postgres"):
                raise ProcessLookupError
            os.sched_setaffinity(pid, {self.core})
        except (FileNotFoundError, ProcessLookupError):
            raise CannotPinError(
                "the server's process is not on this machine (or is in a container of its own); "
                "measure with a server started here"
            ) from None
        except PermissionError:
            raise CannotPinError(
                f"the system does not let you pin the server's process {pid}, which is another "
                "user's; run this as that user or as root"
            ) from None


class SameCore(_Pinning):
    """Keeps the thread that measures and its server processes on one core.

    There no time goes by in waking another core, which on a virtual machine costs
    more than the query, and the ratios are stable.
    """

    def pin_client(self) -> None:
        """Pin this thread, and with it the threads that it starts from now on."""
        os.sched_setaffinity(0, {self.core})


class OtherCore(_Pinning):
    """Keeps the server processes on one core, and the thread that measures off it.

    That thread stays free to use at least two cores, since with a single one greenwait
    does not spin. Of two, one is then the server's, and the kernel may move the thread
    there: move it off again before each block, and ask ``apart()`` where it ended up.
    """

    def __init__(self) -> None:
        super().__init__()
        self._others = self._usable - {self.core}
        if not self._others:
            raise CannotPinError("client and server need a core each, and there is one")
        self._current_core = ctypes.CDLL(None).sched_getcpu

    def move_client(self) -> None:
        """Move this thread off the server's core; where there are cores enough, it stays off."""
        os.sched_setaffinity(0, self._others)
        if len(self._others) == 1:
            os.sched_setaffinity(0, self._usable)

    def apart(self) -> bool:
        """Return whether this thread runs on another core than the server's, just now."""
        return bool(self._current_core() != self.core)
