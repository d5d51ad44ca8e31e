"""A drop-in for the standard :mod:`socket` module whose stream sockets live on the SAN.

Use it in place of ``import socket`` in a program that runs on a host of a lab (``sanloom exec HOST -- python
app.py``), or leave the program as it is and run it with ``python -m provider.run app.py``. AF_INET stream sockets are
SAN sockets, until they are told to connect to a place off the SAN; other sockets are the operating system's, and
every other name of the standard module is there unchanged. A SAN socket is a real ``socket.socket`` subclass with a
real descriptor, so select, selectors, asyncio and trio wait on it as usual.

``share(pid)`` and ``fromshare(info)`` hand a live connection to another process of the host; the 628 bytes in between
are a WSAPROTOCOL_INFOW, good once, for that process, for a few seconds. After ``share`` this socket is dormant: it
can be closed, and asked for its names and options; reading and writing fail with WSAEINVAL (``OSError``,
``errno.EINVAL``) until control returns (``wait_for_return``). What a child inherits over fork, and what multiprocessing
passes, works as with the standard module: control follows use (docs/decisions/0010-fork.md). A socket of the operating
system (a stream or datagrams of IPv4 or IPv6) is shared instead of handed over: nobody controls it, and this one stays
usable.
"""

# mypy: disable-error-code="misc, assignment, no-redef"
import os
import socket as _stdlib
from socket import _GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from provider.client import pickling as _pickling  # noqa: F401 - sockets as arguments of multiprocessing
from provider.client.agent_connection import agent
from provider.client.any_socket import AnySocket, SystemSocket
from provider.client.san_socket import SanSocket
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import SIZE as SHARE_SIZE
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.tcpip_provider.entries import is_ours

if not TYPE_CHECKING:
    from socket import *  # noqa: F403 - a drop-in offers what the original offers

_getaddrinfo, _gethostbyname, _getfqdn = _stdlib.getaddrinfo, _stdlib.gethostbyname, _stdlib.getfqdn
_socketpair = _stdlib.socketpair  # as they were when we were imported: ``provider.run`` replaces them

SHUT_RD, SHUT_WR, SHUT_RDWR = _stdlib.SHUT_RD, _stdlib.SHUT_WR, _stdlib.SHUT_RDWR
socket = AnySocket
SocketType = AnySocket
error = OSError
timeout = TimeoutError

__all__ = [
    *_stdlib.__all__,
    "SHARE_SIZE",
    "create_connection",
    "create_server",
    "fromfd",
    "fromshare",
    "getaddrinfo",
    "getfqdn",
    "gethostbyname",
    "gethostname",
    "socket",
]


def fromshare(info: bytes) -> AnySocket:
    """Take over the connection that ``info`` stands for, or share it if it is one of TCP/IP; ValueError unless it has
    628 bytes, else WSAEINVAL if not good.
    """
    if len(info) != SHARE_SIZE:
        raise ValueError(f"socket descriptor string has wrong size, should be {SHARE_SIZE} bytes.")
    described = WSAPROTOCOL_INFOW.unpack(info)
    return SystemSocket.from_info(described) if is_ours(described) else SanSocket.from_info(info)


def gethostname() -> str:
    """The name of this host in the topology."""
    return str(agent().host["host"])


def gethostbyname(hostname: str) -> str:
    """The address of a host of the topology; other names are the operating system's business."""
    return str(agent().host["names"].get(hostname) or _gethostbyname(hostname))


def getfqdn(name: str = "") -> str:
    """As the original; the topology's names are complete."""
    names = agent().host["names"]
    if not name or name in ("0.0.0.0", "::"):
        return gethostname()
    for host, address in names.items():
        if name in (host, address):
            return str(host)
    return _getfqdn(name)


def getaddrinfo(
    host: Any,
    port: Any,
    family: int = 0,
    type: int = 0,  # noqa: A002
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[Any, ...]]:
    """As the original, with the names of the topology."""
    names = agent().host["names"]
    text = host.decode() if isinstance(host, bytes) else host
    if text in names:
        host = names[text]
    elif text == "localhost":
        host = "127.0.0.1"
    return list(_getaddrinfo(host, port, family or _stdlib.AF_INET, type, proto, flags))


def create_connection(
    address: tuple[str, int],
    timeout: Any = _GLOBAL_DEFAULT_TIMEOUT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> AnySocket:
    """As the original: connect to (host, port) and return the socket."""
    host, port = address
    failures: list[Exception] = []
    for family, kind, proto, _, name in getaddrinfo(host, port, 0, _stdlib.SOCK_STREAM):
        sock = None
        try:
            sock = socket(family, kind, proto)
            if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(name)
        except OSError as failure:
            if sock is not None:
                sock.close()
            failures.append(failure)
        else:
            return sock
    if all_errors and failures:
        raise ExceptionGroup("create_connection failed", failures)
    if failures:
        raise failures[0]
    raise WsaError(WsaErrno.WSAEHOSTUNREACH, f"no address for {host}")


def create_server(
    address: tuple[str, int],
    *,
    family: int = _stdlib.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> AnySocket:
    """As the original: a socket that is bound to ``address`` and listens."""
    if dualstack_ipv6 and family != _stdlib.AF_INET6:
        raise ValueError("dualstack_ipv6 requires AF_INET6 family")
    sock = socket(family, _stdlib.SOCK_STREAM)
    try:
        if reuse_port:
            sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_REUSEPORT, 1)
        if family == _stdlib.AF_INET6:
            sock.setsockopt(_stdlib.SOL_SOCKET, _stdlib.SO_REUSEADDR, 1)
            sock.setsockopt(_stdlib.IPPROTO_IPV6, _stdlib.IPV6_V6ONLY, int(not dualstack_ipv6))
        sock.bind(address)
        sock.listen(backlog if backlog is not None else 128)
    except BaseException:
        sock.close()
        raise
    return sock


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> AnySocket:  # noqa: A002
    """As the original: a socket for a duplicate of the descriptor, a SAN socket if it leads to one."""
    return socket(family, type, proto, fileno=os.dup(fd))


def socketpair(
    family: int | None = None,
    type: int = _stdlib.SOCK_STREAM,  # noqa: A002
    proto: int = 0,
) -> tuple[AnySocket, AnySocket]:
    """As the original: two sockets of the operating system."""
    return tuple(  # type: ignore[return-value]
        SystemSocket(end.family, end.type, end.proto, fileno=end.detach()) for end in _socketpair(family, type, proto)
    )


def __getattr__(name: str) -> Any:
    """What the original has beyond ``__all__``, as some programs use it."""
    return getattr(_stdlib, name)
