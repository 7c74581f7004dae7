"""``connect()``: psycopg2's, with a time limit for silent hosts and slow name servers."""

import ipaddress
import random
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, overload

import psycopg2

from greenwait._callback import wait_at_most
from greenwait._connections.connect_options import check_factories, checked_dsn
from greenwait._connections.connection import Connection
from greenwait._connections.lookup import Lookup
from greenwait._deadline import deadline_after
from greenwait._errors import HostTimeout, QueryTimeout
from greenwait._psycopg.conninfo import connection_options
from greenwait._psycopg.psycopg2 import OperationalError, connection, make_dsn

__all__ = ["connect"]

_Connection = TypeVar("_Connection", bound=connection)
_LONGEST_TIMEOUT = 2**31 - 1  # libpq has an int for it, and refuses more by itself


class _Host(NamedTuple):
    """A host that libpq shall try; the fields are libpq's options."""

    host: str
    hostaddr: str
    port: str

    @property
    def is_name(self) -> bool:
        """Is it a name to look up, neither an address nor a directory of Unix sockets?"""
        if self.hostaddr or not self.host or self.host.startswith(("/", "@")):
            return False
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return True
        return False

    def is_at(self, place: tuple[str, str, int]) -> bool:
        """Is it the host that libpq reports by this name, address and port?"""
        name, address, port = place
        return (
            self.host in (name, "")
            and (self.hostaddr in (address, "") or not address)  # psycopg2 alone can't tell
            and self.port in (str(port), "")
        )


@overload
def connect(
    dsn: str | None = None,
    connection_factory: None = None,
    cursor_factory: None = None,
    **kwargs: Any,
) -> Connection: ...
@overload
def connect(
    dsn: str | None = None,
    *,
    connection_factory: Callable[..., _Connection],
    cursor_factory: None = None,
    **kwargs: Any,
) -> _Connection: ...
@overload
def connect(
    dsn: str | None,
    connection_factory: Callable[..., _Connection],
    cursor_factory: None = None,
    **kwargs: Any,
) -> _Connection: ...
@overload
def connect(  # no type knows the class of its cursors
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Any: ...
def connect(
    dsn: str | None = None,
    connection_factory: Callable[..., Any] | None = None,
    cursor_factory: Callable[..., Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Connect as ``psycopg2.connect()`` does, to the first host that answers in time.

    :param dsn: the connection string, as a list of options or a URI.
    :param connection_factory: the connection's class, ``greenwait.Connection`` by default.
    :param cursor_factory: the class of its cursors.
    :param kwargs: further libpq options; and ``async_``, with which the connection is
        returned before it is made, as psycopg2 does.
    :returns: the connection.
    :raises psycopg2.OperationalError: no host has accepted the connection. The message says
        how far each host got that was silent for ``connect_timeout`` seconds.
    :raises greenwait.QueryTimeout: an outer ``greenwait.timeout()`` has expired.
    :raises ValueError: the connection string contains a NUL.

    ``connect_timeout`` comes from the connection string, ``PGCONNECT_TIMEOUT`` or a service
    file. It applies to each host and address, and to the lookup of a name. Without it a
    silent host is waited for without limit. Names are looked up in threads, all at the same
    time, before the first host is tried: by getaddrinfo(3), or by a function with which the
    program, but not gevent or eventlet, has replaced ``socket.getaddrinfo``. libpq's other
    rules for several hosts are unchanged.

    With greenwait's callback registered, ``psycopg2.connect()`` does the same, with two
    exceptions. It does not try the next host after one that accepted and fell silent, nor,
    except on Linux, after one that did not accept; and it looks up names with the GIL held.

    May be called from any thread. A signal handler runs at once; if it raises, its exception
    is raised here, and nothing is left of the connection.
    """
    if connection_factory is None:
        connection_factory = Connection

    flags = {name: kwargs.pop(name) for name in ("async", "async_") if name in kwargs}

    def connect_to(dsn: str) -> Any:
        try:
            # By keyword, so that a wrapper of psycopg2.connect() can change them.
            found = psycopg2.connect(
                dsn, connection_factory=connection_factory, cursor_factory=cursor_factory, **flags
            )
        except OperationalError as exc:
            if str(exc).strip():
                raise
            raise OperationalError(_why_no_socket()) from exc  # libpq does not say
        # A library that traces may have put a proxy around it.
        out_of_proxy = getattr(connection_factory, "_out_of_proxy", None)
        return found if out_of_proxy is None else out_of_proxy(found)

    dsn = checked_dsn(dsn, kwargs)
    check_factories(connection_factory, cursor_factory)
    if any(flags.values()):
        return connect_to(dsn)
    options = connection_options(dsn)
    hosts = _hosts(options)
    complaints: list[str] = []
    if any(host.is_name for host in hosts):
        hosts = _looked_up(hosts, options, complaints)
        if not hosts:
            raise OperationalError("\n".join(complaints))
    elif len(hosts) < 2:
        return connect_to(dsn)
    if options.get("load_balance_hosts") == "random":
        dsn = make_dsn(dsn, load_balance_hosts="disable")  # it has been done
    while True:
        try:
            return connect_to(_dsn_for(dsn, hosts))
        except HostTimeout as exc:
            complaints.append(str(exc))
            cause: OperationalError = exc
            hosts = _left(hosts, exc, options)
        except QueryTimeout:
            raise
        except OperationalError as exc:
            complaints.append(str(exc).strip())
            cause = exc
            hosts = []
        if not hosts:
            if len(complaints) > 1:
                raise OperationalError("\n".join(complaints)) from cause
            raise cause


def _why_no_socket() -> str:
    try:
        socket.socket().close()
    except OSError as exc:
        return f"could not create a socket: {exc}"
    return "the connection failed, and libpq does not say why"


def _hosts(options: dict[str, str]) -> list[_Host]:
    """Return the hosts that libpq would try, in order; none where it will reject the options."""
    names, addresses, ports = (options.get(name, "").split(",") for name in _Host._fields)
    count = max(len(names), len(addresses))
    for column in (names, addresses, ports):
        if column == [""] or (column is ports and len(ports) == 1):
            column *= count
        elif len(column) != count:
            return []
    hosts = [_Host(*row) for row in zip(names, addresses, ports, strict=True)]
    if options.get("load_balance_hosts") == "random":
        random.shuffle(hosts)
    return hosts


def _looked_up(
    hosts: Sequence[_Host], options: dict[str, str], complaints: list[str]
) -> list[_Host]:
    """Return *hosts* with an address for each name; without those that have none."""
    addresses = _addresses([host.host for host in hosts if host.is_name], options, complaints)
    return [
        host._replace(hostaddr=address)
        for host in hosts
        for address in (addresses[host.host] if host.is_name else [host.hostaddr])
    ]


def _addresses(
    names: Sequence[str], options: dict[str, str], complaints: list[str]
) -> dict[str, list[str]]:
    """Look up all *names*, and add a complaint for each that has no address."""
    seconds = _connect_timeout(options)
    lookups: dict[str, Lookup] = {}
    try:
        for name in dict.fromkeys(names):
            try:
                lookups[name] = Lookup(name)
            except (OSError, RuntimeError) as exc:  # there is no descriptor or no thread for it
                raise OperationalError(f'could not look up host name "{name}": {exc}') from exc
        # All of them begin together, and so have one deadline.
        deadline = deadline_after("connect_timeout", seconds)
        for name, lookup in lookups.items():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            # Not by the registered callback, whose timeout is for statements.
            wait_at_most(lookup, left, hears_blocks=False)
            if not lookup.addresses:
                reason = lookup.error or f"no answer within {seconds} s (connect_timeout)"
                complaints.append(f'could not translate host name "{name}" to address: {reason}')
    finally:
        for lookup in lookups.values():
            lookup.close()
    is_random = options.get("load_balance_hosts") == "random"
    return {
        name: random.sample(lookup.addresses, len(lookup.addresses))
        if is_random
        else lookup.addresses
        for name, lookup in lookups.items()
    }


def _connect_timeout(options: dict[str, str]) -> int | None:
    try:
        seconds = int(options.get("connect_timeout", 0))
    except ValueError:  # libpq will report it
        return None
    return min(seconds, _LONGEST_TIMEOUT) if seconds > 0 else None


def _dsn_for(dsn: str, hosts: Sequence[_Host]) -> str:
    """Return *dsn* with these hosts, and no others."""
    columns = zip(_Host._fields, zip(*hosts, strict=True), strict=True)
    return make_dsn(dsn, **{name: ",".join(column) for name, column in columns if any(column)})


def _left(hosts: Sequence[_Host], exc: HostTimeout, options: dict[str, str]) -> list[_Host]:
    """Return the hosts that are still to be tried, now that one of them was silent."""
    silent = next((i for i, host in enumerate(hosts) if host.is_at(exc.places[-1])), None)
    if silent is None:  # libpq reports another name; retrying the same hosts would never end
        return []
    if options.get("target_session_attrs") != "prefer-standby":
        return list(hosts[silent + 1 :])
    # The hosts before it were only put off: libpq comes back to a primary.
    return [host for host in hosts if not any(host.is_at(place) for place in exc.places)]
