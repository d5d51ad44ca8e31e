"""A drop-in for the standard :mod:`socket` module whose stream sockets live on the SAN.

Use it in place of ``import socket`` in a program that runs on a host of a lab (``sanloom exec HOST -- python
app.py``). AF_INET stream sockets are SAN sockets; every other name of the standard module is there unchanged. A SAN
socket is a real ``socket.socket`` subclass with a real descriptor, so select, selectors, asyncio and trio wait on it
as usual.

``share(pid)`` and ``fromshare(info)`` hand a live connection to another process of the host; the 628 bytes in between
are a WSAPROTOCOL_INFOW, good once, for that process, for a few seconds. After ``share`` this socket is dormant: it
can be closed, and asked for its names and options; reading and writing fail with WSAEINVAL (``OSError``,
``errno.EINVAL``) until control returns.
"""

# mypy: disable-error-code="misc, assignment, no-redef"
import socket as _stdlib
from socket import _GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any

from provider.client.agent_connection import agent
from provider.client.san_socket import SanSocket
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import SIZE as SHARE_SIZE

if not TYPE_CHECKING:
    from socket import *  # noqa: F403 - a drop-in offers what the original offers

SHUT_RD, SHUT_WR, SHUT_RDWR = _stdlib.SHUT_RD, _stdlib.SHUT_WR, _stdlib.SHUT_RDWR
socket = SanSocket
SocketType = SanSocket
error = OSError
timeout = TimeoutError

__all__ = [
    *_stdlib.__all__,
    "create_connection",
    "create_server",
    "fromfd",
    "fromshare",
    "getaddrinfo",
    "gethostbyname",
    "gethostname",
    "socket",
]


def fromshare(info: bytes) -> SanSocket:
    """Take over the connection that ``info`` stands for; ValueError unless it has 628 bytes, else WSAEINVAL if not
    good.
    """
    if len(info) != SHARE_SIZE:
        raise ValueError(f"socket descriptor string has wrong size, should be {SHARE_SIZE} bytes.")
    return SanSocket.from_info(info)


def gethostname() -> str:
    """The name of this host in the topology."""
    return str(agent().host["host"])


def gethostbyname(hostname: str) -> str:
    """The address of a host of the topology; other names are the operating system's business."""
    return str(agent().host["names"].get(hostname) or _stdlib.gethostbyname(hostname))


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
    return list(_stdlib.getaddrinfo(host, port, family or _stdlib.AF_INET, type, proto, flags))


def create_connection(
    address: tuple[str, int],
    timeout: Any = _GLOBAL_DEFAULT_TIMEOUT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> SanSocket:
    """As the original: connect to (host, port) and return the socket."""
    host, port = address
    failures: list[Exception] = []
    for family, kind, proto, _, name in getaddrinfo(host, port, 0, _stdlib.SOCK_STREAM):
        sock = SanSocket(family, kind, proto)
        try:
            if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(name)
        except OSError as failure:
            sock.close()
            failures.append(failure)
        else:
            return sock
    if all_errors:
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
) -> SanSocket:
    """As the original: a socket that is bound to ``address`` and listens."""
    if reuse_port:
        raise ValueError("SO_REUSEPORT not supported on this platform")
    if dualstack_ipv6:
        raise ValueError("dualstack_ipv6 not supported on this platform")
    sock = SanSocket(family, _stdlib.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen(backlog if backlog is not None else 128)
    except BaseException:
        sock.close()
        raise
    return sock


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> _stdlib.socket:  # noqa: A002
    """As the original, for descriptors of the operating system; a SAN socket is shared with ``share`` instead."""
    if family == _stdlib.AF_INET and type == _stdlib.SOCK_STREAM:
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, "a SAN socket is duplicated with share(pid), not by its descriptor")
    return _stdlib.fromfd(fd, family, type, proto)
