"""The service provider interface: what the sockets switch calls down (``ProcTable``) and what a provider calls up
(``UpcallTable``).

The tables carry the SPI's own names; the methods behind them are snake_case and their docstrings start with that name.
Where the C function returns ``SOCKET_ERROR`` and stores a number at ``lpErrno``, the Python function raises
:class:`provider.errors.WsaError`; out parameters are return values; an address is ``(ip, port)``.

The methods here are those that Windows Sockets Direct requires of a SAN provider (winsock-direct.md 1.3). All are
synchronous: what takes time is *overlapped*. A provider accepts the operation (``WSA_IO_PENDING``) and completes it
later through ``WPUCompleteOverlappedRequest``. Nothing here blocks, which is why ``WSAEINPROGRESS`` does not exist at
this boundary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum, IntFlag
from typing import Any, NewType, Protocol, TypeVar

from fabric.ids import CatalogEntryId, ProcessInstance, SocketDescriptor, SocketHandle
from fabric.rc.memory import Buffer
from fabric.units import Instant
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import GUID, WSAPROTOCOL_INFOW

Address = tuple[str, int]
Table = TypeVar("Table", bound=Any)
MemoryHandle = NewType("MemoryHandle", int)
"""What WSPRegisterMemory returns."""

EXTENSIONS: dict[GUID, str] = {
    GUID.parse("c0b422f5-f58c-11d1-ad6c-00c04fa34a2d"): "WSPRegisterMemory",
    GUID.parse("c0b422f6-f58c-11d1-ad6c-00c04fa34a2d"): "WSPDeregisterMemory",
    GUID.parse("c0b422f7-f58c-11d1-ad6c-00c04fa34a2d"): "WSPRegisterRdmaMemory",
    GUID.parse("c0b422f8-f58c-11d1-ad6c-00c04fa34a2d"): "WSPDeregisterRdmaMemory",
    GUID.parse("c0b422f9-f58c-11d1-ad6c-00c04fa34a2d"): "WSPRdmaWrite",
    GUID.parse("c0b422fa-f58c-11d1-ad6c-00c04fa34a2d"): "WSPRdmaRead",
    GUID.parse("e5da4af8-d824-48cd-a799-6337a98ed2af"): "WSPMemoryRegistrationCacheCallback",
}
"""Functions outside the table, which WSPIoctl finds by their GUID (winsock-direct.md 1.11, ws2san.h). The last two are
optional; :class:`ExtensionFunctions` says what they take.
"""


class NetworkEvent(IntFlag):
    """The FD_* bits that reach a SAN provider (statement 75: no others do)."""

    FD_ACCEPT = 0x08
    FD_CONNECT = 0x10


class ConditionResult(IntEnum):
    """What the condition function of WSPAccept answers."""

    CF_ACCEPT = 0
    CF_REJECT = 1


@dataclass(slots=True, eq=False)
class Overlapped:
    """WSAOVERLAPPED: one operation under way; compared by identity.

    ``data`` stands for the buffer: the bytes to send, or the bytes received once a receive has completed.
    ``notify`` is the low bit of ``hEvent`` turned round: false asks the provider not to make the upcall.
    """

    data: bytes = b""
    length: int = 0
    """Room of a receive; bytes that an RDMA operation moves."""
    handles: tuple[MemoryHandle, ...] = ()
    """The memory that an RDMA operation uses; the provider's."""
    notify: bool = True
    done: bool = False
    error: int = 0
    transferred: int = 0


class MemoryFlags(IntFlag):
    """dwFlags of a registration: what the adapter, or with RDMA memory the peer, may do with it (ws2san.h)."""

    MEM_READ = 1
    MEM_WRITE = 2
    MEM_READWRITE = 3


@dataclass(frozen=True, slots=True)
class WSABUFEX:
    """``length`` bytes of registered memory, ``offset`` bytes into it (where the C structure has a pointer)."""

    length: int
    offset: int
    handle: MemoryHandle


@dataclass(slots=True)
class DescriptorLength:
    """*lpdwDescriptorLength: the room for an RDMA buffer descriptor going in, what it takes coming out."""

    value: int


@dataclass(frozen=True, slots=True)
class NetworkEvents:
    """WSANETWORKEVENTS: which events were recorded, and the error of each."""

    events: NetworkEvent
    errors: dict[NetworkEvent, int] = field(default_factory=dict)
    callee_data: bytes = b""
    """What the accepting side sent back with the connection (lpCalleeData of WSPConnect)."""


@dataclass(frozen=True, slots=True)
class CallerId:
    """What the condition function is told about a connection request: lpCallerId, lpCallerData, lpCalleeId."""

    caller: Address
    caller_data: bytes
    callee: Address


@dataclass(frozen=True, slots=True)
class ConditionDecision:
    """The condition function's answer and the data for the caller (lpCalleeData)."""

    result: ConditionResult
    callee_data: bytes = b""


Condition = Callable[[CallerId], ConditionDecision]


def _not_served(*_arguments: object) -> Any:
    raise WsaError(WsaErrno.WSAEOPNOTSUPP, "the sockets switch does not serve this upcall: no SAN provider makes it")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpcallTable:
    """WSPUPCALLTABLEEX: the 15 entries of WSPUPCALLTABLE and one more, in the original's order (ws2spi.h, ws2san.h).

    Those without a description belong to providers with event objects, IFS handles or windows; they raise
    WSAEOPNOTSUPP unless a switch serves them.
    """

    WPUCloseEvent: Callable[..., Any] = _not_served
    WPUCloseSocketHandle: Callable[[SocketHandle], None]
    """The provider's last word about a socket; WSAENOTSOCK for an unknown handle."""
    WPUCreateEvent: Callable[..., Any] = _not_served
    WPUCreateSocketHandle: Callable[[CatalogEntryId, object], SocketHandle]
    """(dwCatalogEntryId, lpContext) -> the switch's handle; WSAENOBUFS when there is none left."""
    WPUFDIsSet: Callable[..., Any] = _not_served
    WPUGetProviderPath: Callable[..., Any] = _not_served
    WPUModifyIFSHandle: Callable[..., Any] = _not_served
    WPUPostMessage: Callable[..., Any] = _not_served
    WPUQueryBlockingCallback: Callable[..., Any] = _not_served
    WPUQuerySocketHandleContext: Callable[[SocketHandle], object]
    """The context given at creation; WSAENOTSOCK for an unknown handle."""
    WPUQueueApc: Callable[..., Any] = _not_served
    WPUResetEvent: Callable[..., Any] = _not_served
    WPUSetEvent: Callable[[SocketHandle], None]
    """The event object of WSPEventSelect, which is named by its socket's handle here, becomes signalled."""
    WPUOpenCurrentThread: Callable[..., Any] = _not_served
    WPUCloseThread: Callable[..., Any] = _not_served
    WPUCompleteOverlappedRequest: Callable[[SocketHandle, Overlapped, int, int], None]
    """(s, lpOverlapped, dwError, cbTransferred)."""


class ServiceProvider(Protocol):
    """One provider instance: the provider as one process sees it."""

    process: ProcessInstance

    def startup_ex(self, version: int, upcalls: UpcallTable, base: WSAPROTOCOL_INFOW, now: Instant) -> None: ...
    def cleanup(self, now: Instant) -> None: ...
    def socket(
        self,
        family: int,
        kind: int,
        protocol: int,
        info: WSAPROTOCOL_INFOW | None,
        flags: int,
        now: Instant,
        group: int = 0,
    ) -> SocketDescriptor: ...
    def bind(self, s: SocketDescriptor, name: Address, now: Instant) -> None: ...
    def listen(self, s: SocketDescriptor, backlog: int, now: Instant) -> None: ...
    def accept(self, s: SocketDescriptor, condition: Condition, now: Instant) -> tuple[SocketDescriptor, Address]: ...
    def connect(self, s: SocketDescriptor, name: Address, caller_data: bytes, now: Instant) -> None: ...
    def send(self, s: SocketDescriptor, overlapped: Overlapped, now: Instant) -> None: ...
    def recv(self, s: SocketDescriptor, overlapped: Overlapped, now: Instant) -> None: ...
    def event_select(self, s: SocketDescriptor, events: NetworkEvent, now: Instant) -> None: ...
    def enum_network_events(self, s: SocketDescriptor, now: Instant) -> NetworkEvents: ...
    def get_overlapped_result(self, s: SocketDescriptor, overlapped: Overlapped, wait: bool, now: Instant) -> int: ...
    def get_sock_opt(self, s: SocketDescriptor, level: int, name: int, now: Instant) -> int: ...
    def set_sock_opt(self, s: SocketDescriptor, level: int, name: int, value: int, now: Instant) -> None: ...
    def get_qos_by_name(self, s: SocketDescriptor, name: bytes, now: Instant) -> object: ...
    def ioctl(self, s: SocketDescriptor, code: int, value: bytes, now: Instant) -> object: ...
    def duplicate_socket(self, s: SocketDescriptor, target: ProcessInstance, now: Instant) -> WSAPROTOCOL_INFOW: ...
    def close_socket(self, s: SocketDescriptor, now: Instant) -> None: ...


class ExtensionFunctions(Protocol):
    """The functions of ``EXTENSIONS``; a buffer is anything with the buffer protocol and counts by identity."""

    def register_memory(
        self, s: SocketDescriptor, buffer: Buffer, flags: MemoryFlags, now: Instant
    ) -> MemoryHandle: ...
    def deregister_memory(self, s: SocketDescriptor, handle: MemoryHandle, now: Instant) -> None: ...
    def register_rdma_memory(
        self, s: SocketDescriptor, buffer: Buffer, flags: MemoryFlags, length: DescriptorLength, now: Instant
    ) -> bytes: ...
    def deregister_rdma_memory(self, s: SocketDescriptor, descriptor: bytes, now: Instant) -> None: ...
    def rdma_write(
        self,
        s: SocketDescriptor,
        buffers: Sequence[WSABUFEX],
        target: bytes,
        offset: int,
        flags: int,
        overlapped: Overlapped,
        now: Instant,
    ) -> None: ...
    def rdma_read(
        self,
        s: SocketDescriptor,
        buffers: Sequence[WSABUFEX],
        target: bytes,
        offset: int,
        flags: int,
        overlapped: Overlapped,
        now: Instant,
    ) -> None: ...
    def memory_registration_cache_callback(self, buffer: Buffer, now: Instant) -> None: ...


@dataclass(frozen=True, slots=True)
class ProcTable:
    """WSPPROC_TABLE: the entries that Windows Sockets Direct requires, in the original's order."""

    WSPAccept: Callable[..., Any]
    WSPBind: Callable[..., Any]
    WSPCleanup: Callable[..., Any]
    WSPCloseSocket: Callable[..., Any]
    WSPConnect: Callable[..., Any]
    WSPDuplicateSocket: Callable[..., Any]
    WSPEnumNetworkEvents: Callable[..., Any]
    WSPEventSelect: Callable[..., Any]
    WSPGetOverlappedResult: Callable[..., Any]
    WSPGetSockOpt: Callable[..., Any]
    WSPGetQOSByName: Callable[..., Any]
    WSPIoctl: Callable[..., Any]
    WSPListen: Callable[..., Any]
    WSPRecv: Callable[..., Any]
    WSPSend: Callable[..., Any]
    WSPSetSockOpt: Callable[..., Any]
    WSPSocket: Callable[..., Any]
    WSPStartupEx: Callable[..., Any]


def proc_table(provider: ServiceProvider) -> ProcTable:
    """The provider's entry points under the SPI's names."""
    return ProcTable(
        WSPAccept=provider.accept,
        WSPBind=provider.bind,
        WSPCleanup=provider.cleanup,
        WSPCloseSocket=provider.close_socket,
        WSPConnect=provider.connect,
        WSPDuplicateSocket=provider.duplicate_socket,
        WSPEnumNetworkEvents=provider.enum_network_events,
        WSPEventSelect=provider.event_select,
        WSPGetOverlappedResult=provider.get_overlapped_result,
        WSPGetSockOpt=provider.get_sock_opt,
        WSPGetQOSByName=provider.get_qos_by_name,
        WSPIoctl=provider.ioctl,
        WSPListen=provider.listen,
        WSPRecv=provider.recv,
        WSPSend=provider.send,
        WSPSetSockOpt=provider.set_sock_opt,
        WSPSocket=provider.socket,
        WSPStartupEx=provider.startup_ex,
    )


@dataclass(slots=True)
class CallLog:
    """Counts every call and upcall by its SPI name, and reports those that are not per-message data calls.

    ``report`` gets (name, the process, the outcome: ``"ok"`` or the error's name).
    """

    process: ProcessInstance
    report: Callable[[str, ProcessInstance, str], None]
    counts: dict[str, int] = field(default_factory=dict)

    _DATA_CALLS = (
        "WSPSend",
        "WSPRecv",
        "WSPRdmaWrite",
        "WSPRdmaRead",
        "WPUCompleteOverlappedRequest",
        "WPUQuerySocketHandleContext",
    )

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, counted and reported under ``name``."""
        counts, report, process = self.counts, self.report, self.process
        counts.setdefault(name, 0)
        if name in self._DATA_CALLS:

            def counted(*arguments: Any) -> Any:
                counts[name] += 1
                return function(*arguments)

            return counted

        def reported(*arguments: Any) -> Any:
            counts[name] += 1
            try:
                result = function(*arguments)
            except OSError as error:
                report(name, process, getattr(error, "name", type(error).__name__))
                raise
            report(name, process, "ok")
            return result

        return reported

    def trace_calls(self, table: Table) -> Table:
        """The same table (any provider's dataclass of entries) with every entry wrapped, and so the extension functions
        that its WSPIoctl gives out.
        """
        wrapped = {f.name: self.wrap(f.name, getattr(table, f.name)) for f in fields(table)}
        found = wrapped.get("WSPIoctl")
        if found is not None:

            def ioctl(*arguments: Any) -> Any:
                result = found(*arguments)
                return self.wrap(EXTENSIONS[GUID(arguments[2])], result) if callable(result) else result

            wrapped["WSPIoctl"] = ioctl
        traced: Table = type(table)(**wrapped)
        return traced

    def trace_upcalls(self, table: Table) -> Table:
        """The same, for what a provider calls up."""
        return self.trace_calls(table)
