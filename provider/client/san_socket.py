"""``SanSocket``: a ``socket.socket`` whose descriptor is the process end of a data channel.

The kernel does what it is good at: send, recv, timeouts, readiness and half close act on the AF_UNIX pair. What
belongs to the SAN (names, connect, accept, options, sharing, closing) is asked of the agent. When the kernel reports
that the channel is gone (end of file, reset, broken pipe), the agent is asked what happened, and the caller gets the
documented error, or, when control has come back to this descriptor, a fresh channel under the same descriptor number.
"""

import contextlib
import errno
import operator
import os
import select
import socket as stdlib
import time
import weakref
from collections.abc import Callable
from socket import socket as _Stdlib  # as it was when we were imported: ``provider.run`` replaces it
from typing import Any, TypeVar

from provider import ipc
from provider.client.addresses import ANY, is_loopback, is_on_san, resolve
from provider.client.agent_connection import Agent, agent
from provider.client.channel_table import ChannelEntry, find_entry
from provider.client.inheritance import Inheritable
from provider.client.leaving import Leaver
from provider.client.options import WithOptions
from provider.client.sharing import Shareable
from provider.client.urgent import UrgentData
from provider.errors import WsaErrno, WsaError

T = TypeVar("T")
Address = tuple[str, int]
_UNUSABLE = (BrokenPipeError, ConnectionResetError)


class SanSocket(Shareable, Inheritable, UrgentData, WithOptions, Leaver):
    """See the module text; the interface is that of :class:`socket.socket`."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        if fileno is not None:
            entry = find_entry(fileno)
            if entry is None:
                raise WsaError(WsaErrno.WSAENOTSOCK, f"descriptor {fileno} leads to no SAN socket")
            self._adopt(entry, fileno)
            return
        family = stdlib.AF_INET if family == -1 else family
        kind = (stdlib.SOCK_STREAM if type == -1 else int(type)) & ~(stdlib.SOCK_NONBLOCK | stdlib.SOCK_CLOEXEC)
        found = agent()
        result, fd = found.call_fd(
            "WSPSocket", af=int(family), type=kind, protocol=0 if proto in (-1, 0) else int(proto)
        )
        self._adopt(ChannelEntry(found, int(result["s"]), fd), fd)
        if int(type) != -1 and int(type) & stdlib.SOCK_NONBLOCK:
            self.setblocking(False)

    @classmethod
    def from_info(cls, info: bytes) -> "SanSocket":
        """WSPSocket with a special WSAPROTOCOL_INFOW."""
        found = agent()
        result, fd = found.call_fd("WSPSocket", info=ipc.to_text(info))
        made = cls._wrap(found, int(result["s"]), fd)
        made._entry.connected = result["state"] == "connected"
        return made

    @classmethod
    def _wrap(cls, found: Agent, s: int, fd: int) -> "SanSocket":
        self = cls.__new__(cls)
        self._adopt(ChannelEntry(found, s, fd), fd)
        return self

    def _adopt(self, entry: ChannelEntry, fd: int) -> None:
        _Stdlib.__init__(self, stdlib.AF_UNIX, stdlib.SOCK_STREAM, 0, fileno=fd)
        self._entry = entry
        self._readers = weakref.WeakSet()
        entry.members.add(self)
        self.settimeout(stdlib.getdefaulttimeout())

    # ----------------------------------------------------------------- identity

    @property
    def family(self) -> stdlib.AddressFamily:
        """AF_INET: the address family of the SAN."""
        return stdlib.AF_INET

    @property
    def type(self) -> stdlib.SocketKind:
        """SOCK_STREAM."""
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        """As the standard module reports it for a stream socket made without one."""
        return 0

    @property
    def descriptor(self) -> int:
        """The sockets switch's handle, as ``sanloom ps`` shows it."""
        return self._entry.s

    def __repr__(self) -> str:
        state = "closed" if self.fileno() == -1 else f"fd={self.fileno()}, s={self._entry.s}"
        return f"<provider.socket.socket {state}>"

    # --------------------------------------------------------------- connections

    def bind(self, address: Any) -> None:
        """As the original; the address is one of this host, by number or by the topology's name."""
        host, port = resolve(address, self._names)
        self._call_controlled("WSPBind", address=[host, port])
        self._entry.named = True
        self._entry.bound_to = host if is_loopback(host) else ""

    def listen(self, backlog: int = 128) -> None:
        """As the original."""
        self._call_controlled("WSPListen", backlog=max(0, int(backlog)))

    def connect(self, address: Any) -> None:
        """As the original, with the socket's timeout; non-blocking sockets raise BlockingIOError.

        A destination off the SAN is TCP/IP's: the socket becomes one of the operating system. So it does when the
        destination is this host, nobody listens on the SAN, and somebody does on TCP/IP; a non-blocking socket stays.
        """
        host, port = resolve(address, self._names)
        this_host = is_loopback(host) or host == ANY
        if not (this_host or is_on_san(host, self._names.values())):
            self._leave_the_san()
            self.connect((host, port))
            return
        self._call_controlled("WSPConnect", address=[host, port])
        timeout = self.gettimeout()
        if timeout == 0:
            raise WsaError(WsaErrno.WSAEWOULDBLOCK, "the connection is being set up", in_progress=True)
        self._wait(select.POLLOUT, timeout)
        error = self.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR)
        if error == errno.ECONNREFUSED and this_host and self._connect_over_tcpip((host, port)):
            return
        if error:
            raise self._failure(error)

    def connect_ex(self, address: Any) -> int:
        """As the original: the POSIX error number instead of an exception."""
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or 0
        return 0

    def accept(self) -> tuple["SanSocket", Address]:
        """As the original."""
        timeout = self.gettimeout()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if timeout != 0:
                self._wait(select.POLLIN, None if deadline is None else max(0.0, deadline - time.monotonic()))
            if self._claim_waiting():
                continue  # control was away; this is a fresh channel
            try:
                result, fd = self._entry.agent.call_fd("WSPAccept", s=self._entry.s)
            except BlockingIOError:
                if timeout == 0:
                    raise
                continue  # another thread was quicker
            accepted = type(self)._wrap(self._entry.agent, int(result["s"]), fd)
            accepted._entry.connected = True
            if stdlib.getdefaulttimeout() is None and timeout is not None:
                accepted.setblocking(True)
            return accepted, (result["peer"][0], result["peer"][1])

    def _claim_waiting(self) -> bool:
        """Take the sign of one of the connections that wait; true if the channel had to be replaced."""
        try:
            ended = not _Stdlib.recv(self, 1, stdlib.MSG_DONTWAIT)
        except BlockingIOError:
            ended = False
        except _UNUSABLE:
            ended = True
        if not ended or not self._explain("end"):
            return False
        if self._entry.watching:
            self._take(reading=True)  # that is, the channel of the relative that has the listener now
        return True

    def getsockname(self) -> Address:
        """As the original."""
        self._require_open()
        self._require_own()
        return self._entry.own_name()

    def getpeername(self) -> Address:
        """As the original; WSAENOTCONN when not connected."""
        self._require_open()
        self._require_own()
        return self._entry.peer_name()

    # ----------------------------------------------------------------------- data

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """As the original."""
        if flags & stdlib.MSG_OOB:
            return self._receive_urgent(bufsize, bool(flags & stdlib.MSG_PEEK))
        return self._receive(lambda: _Stdlib.recv(self, bufsize, flags), bufsize)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As the original."""
        size = nbytes or memoryview(buffer).nbytes
        if flags & stdlib.MSG_OOB:
            found = self.recv(size, flags)
            memoryview(buffer).cast("B")[: len(found)] = found
            return len(found)
        return self._receive(lambda: _Stdlib.recv_into(self, buffer, nbytes, flags), size)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """As the original on a connected stream: the address is None."""
        return self.recv(bufsize, flags), None

    def send(self, data: Any, flags: int = 0) -> int:
        """As the original."""
        if flags & stdlib.MSG_OOB:
            return self._send_urgent(data)
        return self._transmit(lambda: _Stdlib.send(self, data, flags | stdlib.MSG_NOSIGNAL))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As the original."""
        view = memoryview(data).cast("B")
        timeout = self.gettimeout()
        deadline = None if not timeout else time.monotonic() + timeout
        while view:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("timed out")
            view = view[self.send(view, flags) :]

    def sendto(self, data: Any, *flags_and_address: Any) -> int:
        """As the original on a stream: the address is not looked at."""
        if not 1 <= len(flags_and_address) <= 2:
            raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(flags_and_address)} given)")
        return self.send(data, flags_and_address[0] if len(flags_and_address) == 2 else 0)

    def shutdown(self, how: int) -> None:
        """As the original: SHUT_WR ends our direction after all that was sent; SHUT_RD is local."""
        if not -(1 << 31) <= operator.index(how) < 1 << 31:
            raise OverflowError("signed integer is greater than maximum")
        if how not in (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            raise WsaError(WsaErrno.WSAEINVAL, f"{how} is no direction")
        status = self._call("status")
        if status["state"] != "connected":
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        if status["control"] == "relative":
            self._take(reading=False)
        if how in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._call("WSPShutdown")
        if how in (stdlib.SHUT_RD, stdlib.SHUT_RDWR):
            _Stdlib.shutdown(self, stdlib.SHUT_RD)

    # ------------------------------------------------------- duplicates and the end

    def dup(self) -> "SanSocket":
        """As the original: one more socket object of this process for the same connection."""
        made = type(self)(fileno=os.dup(self.fileno()))
        made.settimeout(self.gettimeout())
        return made

    def detach(self) -> int:
        """As the original: the descriptor goes on without an object; closing it ends the connection.

        From then on the connection cannot be handed over, also not through a new object for the descriptor.
        """
        if self.fileno() != -1:
            self._call("detach")
            self._entry.detach(self)
        return _Stdlib.detach(self)

    def _real_close(self, *arguments: Any) -> None:
        if self.fileno() != -1 and self._entry.pid == os.getpid() and self._entry.leave(self):
            with contextlib.suppress(OSError):
                self._entry.agent.call("WSPCloseSocket", s=self._entry.s)
        _Stdlib._real_close(self, *arguments)  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------- private

    def _require_open(self) -> None:
        if self.fileno() == -1:
            raise WsaError(WsaErrno.WSAENOTSOCK, "the socket is closed")

    def _call(self, operation: str, **members: Any) -> dict[str, Any]:
        self._require_open()
        if self._entry.pid != os.getpid():
            raise WsaError(WsaErrno.WSAEINVAL, "the socket belongs to the parent process; share it with a ticket")
        return self._entry.agent.call(operation, s=self._entry.s, **members)

    @property
    def _names(self) -> dict[str, str]:
        names: dict[str, str] = self._entry.agent.host["names"]
        return names

    def _wait(self, events: int, timeout: float | None) -> None:
        poller = select.poll()
        poller.register(self.fileno(), events)
        if not poller.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError("timed out")

    def _receive(self, operation: Callable[[], T], size: int) -> T:
        self._require_connection()
        while True:
            self._require_own()
            if self._entry.watching:
                self._await_turn()
            try:
                result = operation()
            except _UNUSABLE:
                if self._explain(None):
                    continue
                raise AssertionError from None  # _explain raised
            if result or size == 0:
                return result
            if not self._explain("end"):
                return result

    def _transmit(self, operation: Callable[[], int]) -> int:
        self._require_connection()
        while True:
            self._require_own()
            if self._entry.watching:
                self._take(reading=False)
            try:
                return operation()
            except _UNUSABLE:
                self._explain(None)
            except BlockingIOError:
                status = self._call("status")
                if status["state"] in ("connected", "connecting"):
                    raise
                raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected") from None

    def _require_connection(self) -> None:
        """A socket that was never connected says so instead of waiting for ever."""
        if self._entry.connected:
            return
        status = self._call("status")
        if status["state"] == "connected":
            self._entry.connected = True
        elif status["state"] != "connecting":
            error = WsaErrno(status["error"]) if status["error"] else WsaErrno.WSAENOTCONN
            raise WsaError(error, "the socket is not connected")

    def _require_own(self) -> None:
        if self._entry.pid != os.getpid():
            raise WsaError(WsaErrno.WSAEINVAL, "the socket belongs to the parent process; share it with a ticket")

    def _explain(self, what: str | None) -> bool:
        """The channel has ended: true when there is a fresh one; false when it was the stream's own end; else
        raises.
        """
        status = self._call("status")
        if status["returned"]:
            self._fetch_control()
            return True
        if status["control"] == "relative":
            self._entry.watching = True
            return True
        if status["control"] in ("transfer", "other"):
            holder = status["controller"]
            text = f"process {holder} controls the socket" if holder else "the socket is being handed over"
            raise WsaError(WsaErrno.WSAEINVAL, text)
        if status["error"]:
            raise WsaError(WsaErrno(status["error"]), "the connection is gone")
        if what == "end":
            return False
        if status["state"] == "connected":
            raise WsaError(WsaErrno.WSAESHUTDOWN, "this direction has been shut down")
        raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")

    def _fetch_control(self, wait: int = 0) -> None:
        """Get the fresh channel of a descriptor that control has come back to, or comes back to within ``wait`` ms."""
        self._require_open()
        self._require_own()
        _, descriptors = self._entry.agent.call_fds("reattach", s=self._entry.s, wait=wait)
        self._entry.watching = False
        for fd in descriptors:
            self._entry.replace(fd)
            os.close(fd)

    def _failure(self, error: int) -> OSError:
        return OSError(error, os.strerror(error))
