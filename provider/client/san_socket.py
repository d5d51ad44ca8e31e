"""``SanSocket``: a ``socket.socket`` whose descriptor is the process end of a data channel.

The kernel does what it is good at: send, recv, timeouts, readiness and half close act on the AF_UNIX pair. What
belongs to the SAN (names, connect, accept, options, sharing, closing) is asked of the agent. When the kernel reports
that the channel is gone (end of file, reset, broken pipe), the agent is asked what happened, and the caller gets the
documented error, or, when control has come back to this descriptor, a fresh channel under the same descriptor number.
"""

import contextlib
import io
import os
import select
import socket as stdlib
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from provider import ipc
from provider.client.agent_connection import Agent, agent
from provider.client.options import TO_WINSOCK
from provider.errors import WsaErrno, WsaError

T = TypeVar("T")
Address = tuple[str, int]
_UNUSABLE = (BrokenPipeError, ConnectionResetError)


class SanSocket(stdlib.socket):
    """See the module text; the interface is that of :class:`socket.socket`."""

    _agent: Agent
    _s: int
    _readers: "weakref.WeakSet[io.BufferedReader]"
    _connected = False
    """Known to have been connected; until then the agent is asked before bytes move."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002
        if fileno is not None:
            raise WsaError(WsaErrno.WSAEOPNOTSUPP, "a SAN socket cannot be made of a file descriptor; use fromshare")
        family = stdlib.AF_INET if family == -1 else family
        kind = (stdlib.SOCK_STREAM if type == -1 else int(type)) & ~(stdlib.SOCK_NONBLOCK | stdlib.SOCK_CLOEXEC)
        found = agent()
        result, fd = found.call_fd(
            "WSPSocket", af=int(family), type=kind, protocol=0 if proto in (-1, 0) else int(proto)
        )
        self._adopt(found, int(result["s"]), fd)
        if int(type) != -1 and int(type) & stdlib.SOCK_NONBLOCK:
            self.setblocking(False)

    @classmethod
    def from_info(cls, info: bytes) -> "SanSocket":
        """WSPSocket with a special WSAPROTOCOL_INFOW."""
        found = agent()
        result, fd = found.call_fd("WSPSocket", info=ipc.to_text(info))
        made = cls._wrap(found, int(result["s"]), fd)
        made._connected = result["state"] == "connected"
        return made

    @classmethod
    def _wrap(cls, found: Agent, s: int, fd: int) -> "SanSocket":
        self = cls.__new__(cls)
        self._adopt(found, s, fd)
        return self

    def _adopt(self, found: Agent, s: int, fd: int) -> None:
        super().__init__(stdlib.AF_UNIX, stdlib.SOCK_STREAM, 0, fileno=fd)
        self._agent, self._s = found, s
        self._readers = weakref.WeakSet()
        self._pid = os.getpid()
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
        return self._s

    def __repr__(self) -> str:
        state = "closed" if self.fileno() == -1 else f"fd={self.fileno()}, s={self._s}"
        return f"<provider.socket.socket {state}>"

    # --------------------------------------------------------------- connections

    def bind(self, address: Any) -> None:
        """As the original; the address is one of this host, by number or by the topology's name."""
        self._call("WSPBind", address=self._resolve(address))

    def listen(self, backlog: int = 128) -> None:
        """As the original."""
        self._call("WSPListen", backlog=max(0, int(backlog)))

    def connect(self, address: Any) -> None:
        """As the original, with the socket's timeout; non-blocking sockets raise BlockingIOError."""
        self._call("WSPConnect", address=self._resolve(address))
        timeout = self.gettimeout()
        if timeout == 0:
            raise WsaError(WsaErrno.WSAEWOULDBLOCK, "the connection is being set up", in_progress=True)
        self._wait(select.POLLOUT, timeout)
        error = self.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR)
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
                result, fd = self._agent.call_fd("WSPAccept", s=self._s)
            except BlockingIOError:
                if timeout == 0:
                    raise
                continue  # another thread was quicker
            accepted = type(self)._wrap(self._agent, int(result["s"]), fd)
            accepted._connected = True
            if stdlib.getdefaulttimeout() is None and timeout is not None:
                accepted.setblocking(True)
            return accepted, (result["peer"][0], result["peer"][1])

    def _claim_waiting(self) -> bool:
        """Take the sign of one of the connections that wait; true if the channel had to be replaced."""
        try:
            ended = not stdlib.socket.recv(self, 1, stdlib.MSG_DONTWAIT)
        except BlockingIOError:
            ended = False
        except _UNUSABLE:
            ended = True
        return ended and self._explain("end")

    def getsockname(self) -> Address:
        """As the original."""
        local = self._call("status")["local"]
        return (local[0], local[1]) if local else ("0.0.0.0", 0)

    def getpeername(self) -> Address:
        """As the original; WSAENOTCONN when not connected."""
        status = self._call("status")
        if status["state"] != "connected" or not status["peer"]:
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        return status["peer"][0], status["peer"][1]

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """As the original, for options with a number as their value; SO_ERROR is a POSIX error number."""
        known = TO_WINSOCK.get((level, optname))
        if known is None:
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {optname} of level {level}")
        value = int(self._call("WSPGetSockOpt", level=known[0], name=known[1])["value"])
        if optname == stdlib.SO_ERROR and level == stdlib.SOL_SOCKET and value:
            value = WsaError(WsaErrno(value), "").errno or value
        return value.to_bytes(4, "little", signed=True)[:buflen] if buflen else value

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int = 0) -> None:
        """As the original, for options with a number as their value."""
        known = TO_WINSOCK.get((level, optname))
        if known is None or not isinstance(value, int):
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {optname} of level {level}")
        self._call("WSPSetSockOpt", level=known[0], name=known[1], value=value)

    # ----------------------------------------------------------------------- data

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """As the original."""
        return self._receive(lambda: stdlib.socket.recv(self, bufsize, flags), bufsize)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As the original."""
        size = nbytes or memoryview(buffer).nbytes
        return self._receive(lambda: stdlib.socket.recv_into(self, buffer, nbytes, flags), size)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """As the original on a connected stream: the address is None."""
        return self.recv(bufsize, flags), None

    def send(self, data: Any, flags: int = 0) -> int:
        """As the original."""
        return self._transmit(lambda: stdlib.socket.send(self, data, flags | stdlib.MSG_NOSIGNAL))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As the original."""
        view = memoryview(data).cast("B")
        timeout = self.gettimeout()
        deadline = None if not timeout else time.monotonic() + timeout
        while view:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError("timed out")
            view = view[self.send(view, flags) :]

    def shutdown(self, how: int) -> None:
        """As the original: SHUT_WR ends our direction after all that was sent; SHUT_RD is local."""
        if how not in (stdlib.SHUT_RD, stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            raise WsaError(WsaErrno.WSAEINVAL, f"{how} is no direction")
        status = self._call("status")
        if status["state"] != "connected":
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        if how in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._call("WSPShutdown")
        if how in (stdlib.SHUT_RD, stdlib.SHUT_RDWR):
            super().shutdown(stdlib.SHUT_RD)

    # ------------------------------------------------------------------- handing over

    def share(self, process_id: int, mode: str | None = None, *, back: bool = False) -> bytes:
        """WSPDuplicateSocket: hand the connection to the process ``process_id``; returns the 628 bytes to send it.

        ``mode`` is ``"suspend"`` or ``"local"``, by default the host's. ``back`` marks the return trip (step 10) in the
        journal. Raises one of WSAENETDOWN, WSAEINVAL, WSAEMFILE, WSAENOBUFS, WSAENOTSOCK; the socket stays usable then.
        """
        for reader in list(self._readers):
            if not reader.closed and _has_read_ahead(reader):
                raise WsaError(
                    WsaErrno.WSAEINVAL, "a file object of this socket has read ahead; its bytes would be lost"
                )
        members = {} if mode is None else {"mode": mode}
        return ipc.from_text(self._call("WSPDuplicateSocket", pid=int(process_id), back=back, **members)["info"])

    def makefile(self, mode: str = "r", buffering: int | None = None, **options: Any) -> Any:
        """As the original; a file that has read ahead keeps the socket from being shared."""
        made = super().makefile(mode, buffering, **options)  # type: ignore[call-overload]
        reader = getattr(made, "buffer", made)
        if isinstance(reader, io.BufferedRWPair):
            return made
        if isinstance(reader, io.BufferedReader):
            self._readers.add(reader)
        return made

    def dup(self) -> "SanSocket":
        """Not offered: a second descriptor of one process is what ``share`` to one's own pid gives."""
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, "use fromshare(sock.share(os.getpid()))")

    def _real_close(self, *arguments: Any) -> None:
        if self._pid == os.getpid() and stdlib.socket.fileno(self) != -1:
            with contextlib.suppress(OSError):
                self._agent.call("WSPCloseSocket", s=self._s)
        super()._real_close(*arguments)  # type: ignore[misc]

    def detach(self) -> int:
        """Not offered: a data channel without its socket would be no connection."""
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, "a SAN socket cannot be detached; use share")

    # ------------------------------------------------------------------------- private

    def _call(self, operation: str, **members: Any) -> dict[str, Any]:
        if stdlib.socket.fileno(self) == -1:
            raise WsaError(WsaErrno.WSAENOTSOCK, "the socket is closed")
        if self._pid != os.getpid():
            raise WsaError(WsaErrno.WSAEINVAL, "the socket belongs to the parent process; share it with a ticket")
        return self._agent.call(operation, s=self._s, **members)

    def _resolve(self, address: Any) -> list[Any]:
        if not isinstance(address, tuple) or len(address) != 2:
            raise TypeError(f"AF_INET address must be a pair (host, port), not {address!r}")
        host, port = address
        if not isinstance(host, str) or not isinstance(port, int):
            raise TypeError("AF_INET address must be (str, int)")
        if not 0 <= port <= 65_535:
            raise OverflowError("port must be 0-65535.")
        if host in ("", "0.0.0.0"):
            return ["0.0.0.0", port]
        name = self._agent.host["names"].get(host) or ("127.0.0.1" if host == "localhost" else host)
        try:
            stdlib.inet_aton(name)
        except OSError:
            name = stdlib.gethostbyname(host)
        return [name, port]

    def _wait(self, events: int, timeout: float | None) -> None:
        poller = select.poll()
        poller.register(self.fileno(), events)
        if not poller.poll(None if timeout is None else timeout * 1000):
            raise TimeoutError("timed out")

    def _receive(self, operation: Callable[[], T], size: int) -> T:
        self._require_connection()
        while True:
            self._require_own()
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
        if self._connected:
            return
        status = self._call("status")
        if status["state"] == "connected":
            self._connected = True
        elif status["state"] != "connecting":
            error = WsaErrno(status["error"]) if status["error"] else WsaErrno.WSAENOTCONN
            raise WsaError(error, "the socket is not connected")

    def _require_own(self) -> None:
        if self._pid != os.getpid():
            raise WsaError(WsaErrno.WSAEINVAL, "the socket belongs to the parent process; share it with a ticket")

    def _explain(self, what: str | None) -> bool:
        """The channel has ended: true when there is a fresh one; false when it was the stream's own end; else
        raises.
        """
        status = self._call("status")
        if status["returned"]:
            _, fd = self._agent.call_fd("reattach", s=self._s)
            os.dup2(fd, self.fileno(), inheritable=False)
            os.close(fd)
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

    def _failure(self, error: int) -> OSError:
        return OSError(error, os.strerror(error))


def _has_read_ahead(reader: io.BufferedReader) -> bool:
    """Whether a buffered reader holds bytes that its user has not had, found without reading any from the socket."""
    raw = reader.raw
    sock = getattr(raw, "_sock", None)
    if sock is None:
        return False
    original = raw.readinto
    try:
        raw.readinto = lambda _buffer: None  # type: ignore[method-assign]
    except AttributeError:
        return False
    try:
        return bool(reader.peek(1))
    except (BlockingIOError, ValueError):
        return False
    finally:
        raw.readinto = original  # type: ignore[method-assign]
