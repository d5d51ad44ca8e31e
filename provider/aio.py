"""SAN sockets for trio: streams, listeners, and the hand-over of a live stream to another process.

    async with await open_san_stream("server", 7000) as stream:
        await stream.send_all(b"hello")

    await serve_san(handler, 7000)              # handler(stream), one task per connection

Bytes move by readiness of the socket's own descriptor, without a thread. What is asked of the agent (connect, accept,
share, close) is a short request over AF_UNIX and runs in a worker thread, so that a slow agent stops nobody else.
Errors are trio's: BrokenResourceError (its cause is the :class:`provider.errors.WsaError`), ClosedResourceError,
BusyResourceError; opening, accepting and sharing raise WsaError itself.
"""

import socket as stdlib
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from provider.client.san_socket import SanSocket
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.socket import getaddrinfo

RECEIVE_AT_ONCE = 1 << 16
_UNUSABLE = (BrokenPipeError, ConnectionResetError)


class _Busy:
    """Only one task at a time may use a direction: trio's rule for streams."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._held = False

    def __enter__(self) -> None:
        if self._held:
            raise trio.BusyResourceError(f"another task is {self._what} this stream")
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


class SanStream(trio.abc.HalfCloseableStream):
    """A connected SAN socket; the stream owns it from here on."""

    def __init__(self, sock: SanSocket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._sending, self._receiving = _Busy("sending on"), _Busy("receiving from")
        self._finished = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As trio has it; after ``share`` BrokenResourceError with WSAEINVAL as its cause."""
        with self._sending:
            self._require_open()
            if self._finished:
                raise trio.ClosedResourceError("send_eof was called")
            await trio.lowlevel.checkpoint()
            with memoryview(data).cast("B") as view:
                position = 0
                while position < len(view):
                    await self._claim(reading=False)
                    try:
                        position += stdlib.socket.send(self._socket, view[position:], stdlib.MSG_NOSIGNAL)
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(self._socket)
                    except _UNUSABLE:
                        await self._explain(None)
                    except OSError as error:
                        raise self._broken(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """As trio has it."""
        with self._sending:
            self._require_open()
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.wait_writable(self._socket)

    async def send_eof(self) -> None:
        """Our direction ends after all that was sent; receiving goes on."""
        with self._sending:
            self._require_open()
            if self._finished:
                await trio.lowlevel.checkpoint()
                return
            self._finished = True
            await self._in_thread(lambda: self._socket.shutdown(stdlib.SHUT_WR))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As trio has it: ``b""`` at the end of the stream."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be >= 1")
        with self._receiving:
            self._require_open()
            await trio.lowlevel.checkpoint()
            while True:
                if not await self._claim(reading=True):
                    await trio.lowlevel.wait_readable(self._socket)
                    continue
                try:
                    data = stdlib.socket.recv(self._socket, max_bytes or RECEIVE_AT_ONCE)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self._socket)
                    continue
                except _UNUSABLE:
                    await self._explain(None)
                    continue
                except OSError as error:
                    raise self._broken(error) from error
                if data or not await self._explain("end"):
                    return data

    async def share(self, process_id: int, mode: str | None = None) -> bytes:
        """WSPDuplicateSocket: hand the stream to another process of this host; the 628 bytes to send it.

        WsaError as :meth:`provider.socket.socket.share` has it. Afterwards this stream can only be closed, until
        control returns.
        """
        with self._sending, self._receiving:
            self._require_open()
            return await trio.to_thread.run_sync(self._socket.share, process_id, mode)

    async def aclose(self) -> None:
        """Close the descriptor; the connection ends gracefully with its last one."""
        if self._socket.fileno() == -1:
            await trio.lowlevel.checkpoint()
            return
        trio.lowlevel.notify_closing(self._socket)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._socket.close)
        await trio.lowlevel.checkpoint_if_cancelled()

    async def getpeername(self) -> tuple[str, int]:
        """Address of the other end; WSAENOTCONN when there is none any more."""
        return await trio.to_thread.run_sync(self._socket.getpeername)

    async def getsockname(self) -> tuple[str, int]:
        """Address of this end."""
        return await trio.to_thread.run_sync(self._socket.getsockname)

    @property
    def socket(self) -> SanSocket:
        """The socket below; it is non-blocking, and the stream's."""
        return self._socket

    # ------------------------------------------------------------------ private

    def _require_open(self) -> None:
        if self._socket.fileno() == -1:
            raise trio.ClosedResourceError("the stream was closed")

    async def _claim(self, *, reading: bool) -> bool:
        """After fork a relative may have control: take it. False: there is nothing to read yet."""
        if not self._socket._entry.watching:
            return True
        return bool(await self._in_thread(lambda: self._socket._take(reading)))

    async def _explain(self, what: str | None) -> bool:
        """The descriptor has ended: true if there is a fresh one to go on with, false at the stream's end."""
        return bool(await self._in_thread(lambda: self._socket._explain(what)))

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        try:
            return await trio.to_thread.run_sync(function)
        except WsaError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        if self._socket.fileno() == -1:
            return trio.ClosedResourceError("another task closed the stream")
        return trio.BrokenResourceError(str(error))


class SanListener(trio.abc.Listener[SanStream]):
    """A listening SAN socket; the listener owns it from here on."""

    def __init__(self, sock: SanSocket) -> None:
        sock.setblocking(False)
        self._socket = sock

    async def accept(self) -> SanStream:
        """The next connection."""
        while True:
            if self._socket.fileno() == -1:
                raise trio.ClosedResourceError("the listener was closed")
            await trio.lowlevel.wait_readable(self._socket)
            try:
                # Not cancellable half-way: a connection that was taken is either returned or closed.
                accepted, _ = await trio.to_thread.run_sync(self._socket.accept)
            except BlockingIOError:
                continue
            return SanStream(accepted)

    async def aclose(self) -> None:
        """Close it; connections that nobody accepted are reset."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._socket.close)
        await trio.lowlevel.checkpoint()

    async def getsockname(self) -> tuple[str, int]:
        """The address that is listened on."""
        return await trio.to_thread.run_sync(self._socket.getsockname)


async def open_san_stream(host: str, port: int) -> SanStream:
    """Connect to a host of the topology, by name or address. WsaError as ``socket.connect`` has it."""
    found = await trio.to_thread.run_sync(lambda: getaddrinfo(host, port, stdlib.AF_INET, stdlib.SOCK_STREAM))
    if not found:
        raise WsaError(WsaErrno.WSAEHOSTUNREACH, f"no address for {host}")
    address = found[0][4]
    sock = await trio.to_thread.run_sync(SanSocket)
    try:
        sock.setblocking(False)
        try:
            await trio.to_thread.run_sync(sock.connect, address)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            error = await trio.to_thread.run_sync(sock.getsockopt, stdlib.SOL_SOCKET, stdlib.SO_ERROR)
            if error:
                raise sock._failure(error) from None
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(sock.close)
        raise
    return SanStream(sock)


async def open_san_listener(port: int, *, host: str = "", backlog: int = 128) -> SanListener:
    """Listen on a port of this host; 0 picks one. WSAEADDRINUSE, WSAEADDRNOTAVAIL."""

    def listen() -> SanSocket:
        sock = SanSocket()
        try:
            sock.bind((host, port))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock

    return SanListener(await trio.to_thread.run_sync(listen))


async def serve_san(
    handler: Callable[[SanStream], Awaitable[object]],
    port: int,
    *,
    host: str = "",
    backlog: int = 128,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[list[SanListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen and run ``handler(stream)`` per connection, until cancelled; as :func:`trio.serve_tcp`."""
    listener = await open_san_listener(port, host=host, backlog=backlog)
    await trio.serve_listeners(handler, [listener], handler_nursery=handler_nursery, task_status=task_status)


async def from_share(info: bytes) -> SanStream:
    """Take over the stream that another process shared. ValueError unless 628 bytes, WSAEINVAL if not good."""
    WSAPROTOCOL_INFOW.unpack(info)
    return SanStream(await trio.to_thread.run_sync(SanSocket.from_info, info))
