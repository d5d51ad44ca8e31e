"""One instance of the TCP/IP provider: the operating system's sockets as a process uses them through the SPI.

As with :mod:`provider.spi`, a failing call raises :class:`provider.errors.WsaError`, and out parameters are return
values. Other than a SAN provider this one blocks while a socket is in blocking mode; time is the kernel's. A handle is
the descriptor's own number, unless the sockets switch makes another of it (WPUModifyIFSHandle). Blocking mode, options
and the end of a direction belong to the socket, not to a descriptor, so every duplicate shares them, in whatever
process it is (winsock-direct.md 4.2). Nothing here keeps two processes from using a socket at once.
"""

import errno
import fcntl
import os
import socket as stdlib
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket as _Stdlib  # as it was when we were imported: ``provider.run`` replaces it
from typing import Any

from fabric.ids import SocketDescriptor
from provider import constants as c
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.spi import CallerId, Condition, ConditionResult
from provider.tcpip_provider import duplication
from provider.tcpip_provider.entries import ENTRIES, entry_of, system_family
from provider.tcpip_provider.options import get_option, linger, set_option
from provider.tcpip_provider.spi_tables import GenericProcTable, IfsUpcallTable
from provider.tcpip_provider.winsock_errors import as_winsock_errors

VERSION_2_2 = 0x0202
Name = tuple[Any, ...]
"""(ip, port), and for IPv6 (ip, port, flow, scope)."""
_ABORTIVE = struct.pack("ii", 1, 0)
_DIRECTIONS = {c.SD_RECEIVE: stdlib.SHUT_RD, c.SD_SEND: stdlib.SHUT_WR, c.SD_BOTH: stdlib.SHUT_RDWR}
_PEER_STILL_OPEN = (1, 4, 5)
"""States of ``struct tcp_info``: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, in which no FIN of the peer has come."""
_WE_FINISHED = (4, 5, 6, 9, 11)
"""FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING."""


class TcpIpServiceProvider:
    """See the module text."""

    def __init__(self, ticket_lifetime: float = duplication.LIFETIME) -> None:
        self._ticket_lifetime = ticket_lifetime
        self._upcalls: IfsUpcallTable | None = None
        self._starts = 0
        self._sockets: dict[SocketDescriptor, _Stdlib] = {}

    # ------------------------------------------------------------- start and end

    def startup(self, version: int, info: WSAPROTOCOL_INFOW, upcalls: IfsUpcallTable) -> GenericProcTable:
        """WSPStartup: returns lpProcTable. WSAVERNOTSUPPORTED below 2.2, WSAEINVAL for another provider's entry."""
        if (version & 0xFF, version >> 8) < (2, 2):
            raise WsaError(WsaErrno.WSAVERNOTSUPPORTED, f"{version & 0xFF}.{version >> 8} is below 2.2")
        if all(entry.info.ProviderId != info.ProviderId for entry in ENTRIES):
            raise WsaError(WsaErrno.WSAEINVAL, "this catalogue entry is another provider's")
        self._upcalls = upcalls
        self._starts += 1
        return proc_table(self)

    def cleanup(self) -> None:
        """WSPCleanup: the last one closes what is open, without a wait. Tickets that are out stay good."""
        self._require_start()
        self._starts -= 1
        if not self._starts:
            while self._sockets:
                _, sock = self._sockets.popitem()
                sock.close()

    # ------------------------------------------------------------------- sockets

    def socket(
        self,
        family: int,
        kind: int,
        protocol: int,
        info: WSAPROTOCOL_INFOW | None = None,
        flags: int = c.WSA_FLAG_OVERLAPPED,
    ) -> SocketDescriptor:
        """WSPSocket: a new socket, or with a special structure a descriptor of the one that was duplicated.

        FROM_PROTOCOL_INFO takes family, type and protocol from ``info``. ``flags`` is for overlapped use, which this
        provider does not have. WSAEAFNOSUPPORT, WSAEPROTOTYPE, WSAEPROTONOSUPPORT; WSAEINVAL for a ticket that is
        not good.
        """
        upcalls = self._require_start()
        if info is not None:
            family, kind, protocol = _from_info(info, family, kind, protocol)
        system = system_family(family)
        if system is None:
            raise WsaError(WsaErrno.WSAEAFNOSUPPORT, f"address family {family}")
        of_family = [entry.info for entry in ENTRIES if entry.info.iAddressFamily == family]
        found = [entry for entry in of_family if entry.iSocketType == kind]
        if not found:
            raise WsaError(WsaErrno.WSAEPROTOTYPE, f"socket type {kind}")
        if protocol not in (0, found[0].iProtocol):
            raise WsaError(WsaErrno.WSAEPROTONOSUPPORT, f"protocol {protocol}")
        if info is not None and info.dwProviderReserved:
            return duplication.redeem(info, lambda fd: self._adopt(fd, upcalls))
        with as_winsock_errors():
            fd = _Stdlib(system, kind, found[0].iProtocol).detach()
        try:
            os.set_blocking(fd, True)  # whatever socket.setdefaulttimeout says
            return self._adopt(fd, upcalls)
        except BaseException:
            os.close(fd)
            raise

    def duplicate_socket(self, s: SocketDescriptor, process_id: int) -> WSAPROTOCOL_INFOW:
        """WSPDuplicateSocket: see :func:`provider.tcpip_provider.duplication.duplicate`."""
        return duplication.duplicate(self._find(s), process_id, self._ticket_lifetime)

    def close_socket(self, s: SocketDescriptor) -> None:
        """WSPCloseSocket: release the descriptor; the socket's last one ends the connection, in the background.

        With SO_LINGER and no time the peer is reset at once; with a time a blocking socket waits so long for the
        graceful end, and for a non-blocking one the call fails with WSAEWOULDBLOCK, and the socket stays open.
        """
        sock = self._find(s)
        with as_winsock_errors():
            on, seconds = linger(sock)
            if on and seconds and not os.get_blocking(sock.fileno()) and _is_connected(sock):
                raise WsaError(WsaErrno.WSAEWOULDBLOCK, "the close would wait; the socket is still open")
            del self._sockets[s]
            sock.close()

    # --------------------------------------------------------------- connections

    def bind(self, s: SocketDescriptor, name: Name) -> None:
        """WSPBind."""
        with self._using(s) as sock:
            sock.bind(name)

    def listen(self, s: SocketDescriptor, backlog: int) -> None:
        """WSPListen. WSAEINVAL for a socket without a name."""
        with self._using(s) as sock:
            if not sock.getsockname()[1]:
                raise WsaError(WsaErrno.WSAEINVAL, "the socket is not bound")
            sock.listen(max(0, backlog))

    def accept(self, s: SocketDescriptor, condition: Condition | None = None) -> tuple[SocketDescriptor, Name]:
        """WSPAccept: (descriptor, the peer's name); the new socket is blocking or not as the listener is.

        The kernel has answered the caller before ``condition`` is asked, so a rejected caller sees a reset.
        WSAECONNREFUSED when it was rejected.
        """
        upcalls = self._require_start()
        with self._using(s) as sock:
            fd, peer = sock._accept()  # type: ignore[attr-defined]
            try:
                os.set_blocking(fd, os.get_blocking(sock.fileno()))
                if condition is not None:
                    with _Stdlib(fileno=os.dup(fd)) as accepted:
                        decision = condition(CallerId(peer[:2], b"", accepted.getsockname()[:2]))
                        if decision.result is not ConditionResult.CF_ACCEPT:
                            accepted.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _ABORTIVE)
                            raise WsaError(WsaErrno.WSAECONNREFUSED, "the condition function rejected the caller")
                return self._adopt(fd, upcalls), peer
            except BaseException:
                os.close(fd)
                raise

    def connect(self, s: SocketDescriptor, name: Name) -> None:
        """WSPConnect. WSAEWOULDBLOCK from a non-blocking socket: SO_ERROR tells the outcome once it is writable."""
        with self._using(s) as sock:
            sock.connect(name)

    def get_sock_name(self, s: SocketDescriptor) -> Name:
        """WSPGetSockName. WSAEINVAL for a socket without a name."""
        with self._using(s) as sock:
            name: Name = sock.getsockname()
            if not name[1]:
                raise WsaError(WsaErrno.WSAEINVAL, "the socket is not bound")
            return name

    def get_peer_name(self, s: SocketDescriptor) -> Name:
        """WSPGetPeerName. WSAENOTCONN."""
        with self._using(s) as sock:
            name: Name = sock.getpeername()
            return name

    def shutdown(self, s: SocketDescriptor, how: int) -> None:
        """WSPShutdown: ends a direction, for every descriptor. WSAEINVAL for a bad ``how``, WSAENOTCONN."""
        with self._using(s) as sock:
            if how not in _DIRECTIONS:
                raise WsaError(WsaErrno.WSAEINVAL, f"{how} is no direction")
            sock.getpeername()  # the kernel would end a listener by it
            sock.shutdown(_DIRECTIONS[how])

    # ---------------------------------------------------------------------- data

    def send(self, s: SocketDescriptor, data: bytes, flags: int = 0) -> int:
        """WSPSend: how many bytes were taken. WSAESHUTDOWN after our direction was ended."""
        with self._using(s) as sock:
            try:
                return sock.send(data, _flags(flags) | stdlib.MSG_NOSIGNAL)
            except BrokenPipeError:
                if _tcp_state(sock) in _WE_FINISHED:
                    raise WsaError(WsaErrno.WSAESHUTDOWN, "this direction has been shut down") from None
                raise

    def recv(self, s: SocketDescriptor, length: int, flags: int = 0) -> bytes:
        """WSPRecv: up to ``length`` bytes; none at the peer's graceful end. WSAESHUTDOWN after SD_RECEIVE."""
        with self._using(s) as sock:
            data = sock.recv(length, _flags(flags))
            if not data and length and _tcp_state(sock) in _PEER_STILL_OPEN:
                raise WsaError(WsaErrno.WSAESHUTDOWN, "this direction has been shut down")
            return data

    def send_to(self, s: SocketDescriptor, data: bytes, name: Name, flags: int = 0) -> int:
        """WSPSendTo."""
        with self._using(s) as sock:
            return sock.sendto(data, _flags(flags) | stdlib.MSG_NOSIGNAL, name)

    def recv_from(self, s: SocketDescriptor, length: int, flags: int = 0) -> tuple[bytes, Name]:
        """WSPRecvFrom: (bytes, the sender's name). WSAEMSGSIZE for a datagram that is longer; the rest is lost."""
        with self._using(s) as sock:
            data, _, outcome, name = sock.recvmsg(length, 0, _flags(flags))
            if outcome & stdlib.MSG_TRUNC:
                raise WsaError(WsaErrno.WSAEMSGSIZE, f"the datagram is longer than {length} bytes")
            return data, name

    # ------------------------------------------------------------------- options

    def get_sock_opt(self, s: SocketDescriptor, level: int, name: int) -> int:
        """WSPGetSockOpt, with Winsock's numbers. WSAENOPROTOOPT."""
        with self._using(s) as sock:
            return get_option(sock, level, name)

    def set_sock_opt(self, s: SocketDescriptor, level: int, name: int, value: int) -> None:
        """WSPSetSockOpt: for every descriptor of the socket. WSAENOPROTOOPT."""
        with self._using(s) as sock:
            set_option(sock, level, name, value)

    def ioctl(self, s: SocketDescriptor, code: int, value: int = 0) -> int:
        """WSPIoctl: FIONBIO (0 is blocking mode) and FIONREAD. WSAEOPNOTSUPP for any other code."""
        with self._using(s) as sock:
            if code == c.FIONBIO:
                os.set_blocking(sock.fileno(), not value)
                return 0
            if code == c.FIONREAD:
                return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0])
            raise WsaError(WsaErrno.WSAEOPNOTSUPP, f"ioctl {code:#x}")

    # ------------------------------------------------------------------- private

    def _require_start(self) -> IfsUpcallTable:
        if not self._starts or self._upcalls is None:
            raise WsaError(WsaErrno.WSANOTINITIALISED, "WSPStartup has not been called")
        return self._upcalls

    def _find(self, s: SocketDescriptor) -> _Stdlib:
        self._require_start()
        found = self._sockets.get(s)
        if found is None:
            raise WsaError(WsaErrno.WSAENOTSOCK, f"{s} is no socket of this provider")
        return found

    @contextmanager
    def _using(self, s: SocketDescriptor) -> Iterator[_Stdlib]:
        sock = self._find(s)
        with as_winsock_errors():
            yield sock

    def _adopt(self, fd: int, upcalls: IfsUpcallTable) -> SocketDescriptor:
        """A socket for a descriptor of the kernel; the caller closes the descriptor if this raises."""
        with as_winsock_errors():
            blocking = os.get_blocking(fd)
            sock = _Stdlib(fileno=fd)
        try:
            if sock.gettimeout() is not None:  # socket.setdefaulttimeout; here the kernel's mode rules
                sock.settimeout(None)
                os.set_blocking(fd, blocking)
            entry = entry_of(sock)
            assert entry is not None
            s = upcalls.WPUModifyIFSHandle(entry.entry_id, SocketDescriptor(fd))
            if s in self._sockets:
                raise WsaError(WsaErrno.WSAENOBUFS, f"handle {s} is in use")
        except BaseException:
            sock.detach()
            raise
        self._sockets[s] = sock
        return s


def proc_table(provider: TcpIpServiceProvider) -> GenericProcTable:
    """The provider's entry points under the SPI's names."""
    return GenericProcTable(
        WSPAccept=provider.accept,
        WSPBind=provider.bind,
        WSPCleanup=provider.cleanup,
        WSPCloseSocket=provider.close_socket,
        WSPConnect=provider.connect,
        WSPDuplicateSocket=provider.duplicate_socket,
        WSPGetPeerName=provider.get_peer_name,
        WSPGetSockName=provider.get_sock_name,
        WSPGetSockOpt=provider.get_sock_opt,
        WSPIoctl=provider.ioctl,
        WSPListen=provider.listen,
        WSPRecv=provider.recv,
        WSPRecvFrom=provider.recv_from,
        WSPSend=provider.send,
        WSPSendTo=provider.send_to,
        WSPSetSockOpt=provider.set_sock_opt,
        WSPShutdown=provider.shutdown,
        WSPSocket=provider.socket,
    )


def _from_info(info: WSAPROTOCOL_INFOW, *asked: int) -> tuple[int, int, int]:
    """Family, type and protocol; WSAEAFNOSUPPORT, WSAEPROTOTYPE, WSAEPROTONOSUPPORT where they contradict ``info``."""
    has = (info.iAddressFamily, info.iSocketType, info.iProtocol)
    errors = (WsaErrno.WSAEAFNOSUPPORT, WsaErrno.WSAEPROTOTYPE, WsaErrno.WSAEPROTONOSUPPORT)
    for ask, own, error in zip(asked, has, errors, strict=True):
        if ask not in (c.FROM_PROTOCOL_INFO, own):
            raise WsaError(error, f"{ask} was asked for, the structure says {own}")
    return has


def _is_connected(sock: _Stdlib) -> bool:
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return False
        raise
    return True


def _tcp_state(sock: _Stdlib) -> int:
    """The state in ``struct tcp_info``; 0 for a socket that has none."""
    if sock.type != stdlib.SOCK_STREAM:
        return 0
    return int(sock.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_INFO, 1)[0])


_SYSTEM_FLAGS = {
    c.MSG_OOB: stdlib.MSG_OOB,
    c.MSG_PEEK: stdlib.MSG_PEEK,
    c.MSG_DONTROUTE: stdlib.MSG_DONTROUTE,
}


def _flags(flags: int) -> int:
    """Winsock's MSG_* as the kernel's; WSAEOPNOTSUPP for one that it does not have."""
    if flags & ~(c.MSG_OOB | c.MSG_PEEK | c.MSG_DONTROUTE):
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, f"flags {flags:#x}")
    return sum(system for winsock, system in _SYSTEM_FLAGS.items() if flags & winsock)
