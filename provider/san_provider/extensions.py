"""The provider's extension functions: registered memory and RDMA (winsock-direct.md 1.3, 1.11; statements 18 to 22, 67
to 74), and WSPIoctl, which gives them out.

``WSPRdmaRead`` and ``WSPMemoryRegistrationCacheCallback`` are optional: a provider that is configured without them does
not know their GUIDs. A long read goes out as several RDMA READs, of so many packets each that all that may be under way
together fill the send window.
"""

from collections.abc import Callable, Iterator, Sequence

from fabric.ids import SocketDescriptor
from fabric.rc.memory import Buffer, Segment
from fabric.rc.requester import WINDOW
from fabric.rc.work import ReadWorkRequest, SendQueueRequest, WriteWorkRequest
from fabric.units import Instant
from provider import constants as c
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import GUID
from provider.san_provider.addresses import ip_text
from provider.san_provider.endpoint import Endpoint
from provider.san_provider.memory import RdmaDescriptor, SocketMemory
from provider.san_provider.proxy_driver import ENDS, PART, ProxyDriver
from provider.san_provider.san_socket import SanSocket, SocketState
from provider.spi import (
    EXTENSIONS,
    WSABUFEX,
    DescriptorLength,
    ExtensionFunctions,
    MemoryFlags,
    MemoryHandle,
    Overlapped,
)


class Extensions:
    """See the module text. ``find`` gives the socket of a descriptor or raises; ``sockets`` all of the instance."""

    def __init__(
        self,
        find: Callable[[SocketDescriptor], SanSocket],
        sockets: Callable[[], Sequence[SanSocket]],
        proxy: ProxyDriver,
    ) -> None:
        self._find = find
        self._sockets = sockets
        self._proxy = proxy
        functions = extension_table(self)
        if not proxy.config.rdma_read:
            del functions["WSPRdmaRead"]
        if not proxy.config.registration_cache:
            del functions["WSPMemoryRegistrationCacheCallback"]
        self._functions = functions

    def ioctl(self, san: SanSocket, code: int, value: bytes) -> object:
        """SIO_GET_EXTENSION_FUNCTION_POINTER gives the function whose GUID is ``value``, SIO_ADDRESS_LIST_QUERY the
        addresses on the SAN. WSAEOPNOTSUPP for a function that this provider lacks and for any other code, WSAEINVAL
        for a GUID that names no function at all, WSAEFAULT for bytes that are no GUID.
        """
        if code == c.SIO_ADDRESS_LIST_QUERY:
            return (ip_text(self._proxy.adapter.ip),)
        if code != c.SIO_GET_EXTENSION_FUNCTION_POINTER:
            raise WsaError(WsaErrno.WSAEOPNOTSUPP, f"ioctl {code:#x}")
        if len(value) != 16:
            raise WsaError(WsaErrno.WSAEFAULT, "the function's GUID has 16 bytes")
        name = EXTENSIONS.get(GUID(value))
        if name is None:
            raise WsaError(WsaErrno.WSAEINVAL, f"{GUID(value)} names no extension function")
        if name not in self._functions:
            raise WsaError(WsaErrno.WSAEOPNOTSUPP, f"this provider has no {name}")
        return self._functions[name]

    # ------------------------------------------------------------------ memory

    def register_memory(self, s: SocketDescriptor, buffer: Buffer, flags: MemoryFlags, now: Instant) -> MemoryHandle:
        """WSPRegisterMemory: a handle for WSABUFEX, good for this socket and process. WSAENOTCONN, and the errors of
        :meth:`SocketMemory.register`.
        """
        san, endpoint = self._connected(s)
        return self._memory(san, endpoint).register(buffer, flags)

    def deregister_memory(self, s: SocketDescriptor, handle: MemoryHandle, now: Instant) -> None:
        """WSPDeregisterMemory: WSAEINVAL for an unknown handle, or one that a transfer uses."""
        san = self._find(s)
        busy = san.endpoint is not None and any(handle in operation.handles for operation in san.endpoint.sends)
        if san.memory is None:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket has no registered memory")
        san.memory.deregister(handle, busy)
        self._proxy.settle(now)

    def register_rdma_memory(
        self, s: SocketDescriptor, buffer: Buffer, flags: MemoryFlags, length: DescriptorLength, now: Instant
    ) -> bytes:
        """WSPRegisterRdmaMemory: a descriptor with which the peer may read or write ``buffer``, as ``flags`` say.
        WSAENOTCONN, and the errors of :meth:`SocketMemory.register_rdma`.
        """
        san, endpoint = self._connected(s)
        return self._memory(san, endpoint).register_rdma(buffer, flags, length)

    def deregister_rdma_memory(self, s: SocketDescriptor, descriptor: bytes, now: Instant) -> None:
        """WSPDeregisterRdmaMemory: WSAEINVAL for an unknown descriptor. A peer that is reading just then is refused
        the rest, which ends the connection.
        """
        san = self._find(s)
        if san.memory is None:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket has no registered memory")
        san.memory.deregister_rdma(descriptor)
        self._proxy.settle(now)

    def memory_registration_cache_callback(self, buffer: Buffer, now: Instant) -> None:
        """WSPMemoryRegistrationCacheCallback: the memory of ``buffer`` is about to change its mapping; no socket of
        this process keeps a registration of it that has ended. WSAEFAULT for what is no buffer.
        """
        try:
            memoryview(buffer).release()
        except (TypeError, ValueError) as error:
            raise WsaError(WsaErrno.WSAEFAULT, str(error)) from None
        for san in self._sockets():
            if san.memory is not None:
                san.memory.uncache(buffer)

    def release(self, san: SanSocket, now: Instant) -> None:
        """All memory of the socket is this process's no more; another is going to control the socket."""
        if san.release_memory():
            self._proxy.settle(now)

    # -------------------------------------------------------------------- RDMA

    def rdma_write(
        self,
        s: SocketDescriptor,
        buffers: Sequence[WSABUFEX],
        target: bytes,
        offset: int,
        flags: int,
        overlapped: Overlapped,
        now: Instant,
    ) -> None:
        """WSPRdmaWrite: ``buffers`` to the peer's memory ``target``, from its byte ``offset`` on; overlapped.

        WSAENOTCONN; WSAEFAULT for a buffer that is not registered for reading or a block that is no descriptor;
        WSAEINVAL for flags, or a range outside the descriptor's; WSAEMSGSIZE beyond SO_MAX_RDMA_SIZE.
        """
        endpoint, segments, peer = self._operation(s, buffers, target, offset, flags, overlapped, MemoryFlags.MEM_READ)
        request = WriteWorkRequest(ENDS, tuple(segments), peer.address + offset, peer.rkey)
        self._proxy.post(endpoint, overlapped, [request], now)

    def rdma_read(
        self,
        s: SocketDescriptor,
        buffers: Sequence[WSABUFEX],
        target: bytes,
        offset: int,
        flags: int,
        overlapped: Overlapped,
        now: Instant,
    ) -> None:
        """WSPRdmaRead: the peer's memory ``target``, from its byte ``offset`` on, into ``buffers``; overlapped.

        Errors as :meth:`rdma_write`, for buffers not registered for writing; WSAEOPNOTSUPP if the peer takes no reads.
        """
        endpoint, segments, peer = self._operation(s, buffers, target, offset, flags, overlapped, MemoryFlags.MEM_WRITE)
        if not endpoint.read_depth:
            raise WsaError(WsaErrno.WSAEOPNOTSUPP, "the peer answers no RDMA reads")
        address, requests = peer.address + offset, list[SendQueueRequest]()
        left = overlapped.length
        for parts in _cut(segments, max(1, WINDOW // endpoint.read_depth) * endpoint.path_mtu):
            size = sum(part.length for part in parts)
            left -= size
            requests.append(ReadWorkRequest(PART if left else ENDS, tuple(parts), address, peer.rkey))
            address += size
        self._proxy.post(endpoint, overlapped, requests, now)

    # ----------------------------------------------------------------- private

    def _connected(self, s: SocketDescriptor) -> tuple[SanSocket, Endpoint]:
        san = self._find(s)
        if san.state is not SocketState.CONNECTED or san.endpoint is None:
            raise WsaError(WsaErrno.WSAENOTCONN, f"the socket is {san.state.value}")
        return san, san.endpoint

    def _memory(self, san: SanSocket, endpoint: Endpoint) -> SocketMemory:
        if san.memory is None:
            san.memory = SocketMemory(
                self._proxy.adapter, endpoint.queue_pair.qpn, cache=self._proxy.config.registration_cache
            )
        return san.memory

    def _operation(
        self,
        s: SocketDescriptor,
        buffers: Sequence[WSABUFEX],
        target: bytes,
        offset: int,
        flags: int,
        overlapped: Overlapped,
        need: MemoryFlags,
    ) -> tuple[Endpoint, list[Segment], RdmaDescriptor]:
        """What both directions check; fills in the overlapped structure."""
        san, endpoint = self._connected(s)
        if flags:
            raise WsaError(WsaErrno.WSAEINVAL, f"dwFlags is {flags:#x}, not 0")
        segments = list(self._memory(san, endpoint).segments(buffers, need))
        peer = RdmaDescriptor.unpack(target)
        size = sum(segment.length for segment in segments)
        if offset < 0 or offset + size > peer.length:
            raise WsaError(WsaErrno.WSAEINVAL, f"{size} bytes from {offset} on leave the peer's {peer.length}")
        if size > self._proxy.config.rdma_size:
            raise WsaError(WsaErrno.WSAEMSGSIZE, f"{size} bytes are more than SO_MAX_RDMA_SIZE")
        overlapped.length = size
        overlapped.handles = tuple(buffer.handle for buffer in buffers)
        return endpoint, segments, peer


def extension_table(functions: ExtensionFunctions) -> dict[str, Callable[..., object]]:
    """The functions under the SPI's names."""
    return {
        "WSPRegisterMemory": functions.register_memory,
        "WSPDeregisterMemory": functions.deregister_memory,
        "WSPRegisterRdmaMemory": functions.register_rdma_memory,
        "WSPDeregisterRdmaMemory": functions.deregister_rdma_memory,
        "WSPRdmaWrite": functions.rdma_write,
        "WSPRdmaRead": functions.rdma_read,
        "WSPMemoryRegistrationCacheCallback": functions.memory_registration_cache_callback,
    }


def _cut(segments: Sequence[Segment], size: int) -> Iterator[list[Segment]]:
    """The same bytes in groups of ``size``, the last of what remains; one empty group for no bytes."""
    group, room = list[Segment](), size
    for segment in segments:
        done = 0
        while done < segment.length:
            taken = min(room, segment.length - done)
            group.append(Segment(segment.lkey, segment.address + done, taken))
            done += taken
            room -= taken
            if not room:
                yield group
                group, room = [], size
    if group or not any(segment.length for segment in segments):
        yield group
