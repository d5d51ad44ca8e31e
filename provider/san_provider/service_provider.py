"""The SAN service provider as one process sees it: the SPI of Windows Sockets Direct on top of the proxy driver.

What it keeps per descriptor is :class:`provider.san_provider.san_socket.SanSocket`.
"""

from collections.abc import Callable
from itertools import count

from fabric.ids import ProcessInstance, SocketDescriptor, SocketHandle
from fabric.units import Instant
from fabric.wire.cm import sdp_service_id
from provider import constants as c
from provider.catalog import SAN_ENTRY
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.san_provider.addresses import ip_text
from provider.san_provider.endpoint import Endpoint
from provider.san_provider.extensions import Extensions
from provider.san_provider.parking import Parked, ParkingTable
from provider.san_provider.proxy_driver import ProxyDriver
from provider.san_provider.remaking import RemakingProvider
from provider.san_provider.san_socket import SanSocket, SocketState
from provider.spi import (
    Address,
    CallerId,
    Condition,
    ConditionResult,
    NetworkEvent,
    NetworkEvents,
    Overlapped,
    UpcallTable,
)

VERSION_2_2 = 0x0202
DESCRIPTORS_MAX = 4096
"""Descriptors of one provider instance; WSAEMFILE beyond."""


class SanServiceProvider(RemakingProvider):
    """One instance of the SAN provider (:class:`provider.spi.ServiceProvider`)."""

    def __init__(self, process: ProcessInstance, proxy: ProxyDriver, parking: ParkingTable) -> None:
        self.process = process
        self._proxy = proxy
        self._parking = parking
        self._sockets: dict[SocketDescriptor, SanSocket] = {}
        self._numbers = count(1)
        self._started = 0
        self._extensions = Extensions(self._socket, lambda: list(self._sockets.values()), proxy)
        self.upcalls: UpcallTable

    # ------------------------------------------------------ start and clean-up

    def startup_ex(self, version: int, upcalls: UpcallTable, base: WSAPROTOCOL_INFOW, now: Instant) -> None:
        """WSPStartupEx: counted; WSAVERNOTSUPPORTED below 2.2."""
        if version < VERSION_2_2:
            raise WsaError(WsaErrno.WSAVERNOTSUPPORTED, "the SAN provider needs Winsock 2.2")
        self.upcalls = upcalls
        self._started += 1

    def cleanup(self, now: Instant) -> None:
        """WSPCleanup: the last one closes every socket; WSANOTINITIALISED without a start."""
        if not self._started:
            raise WsaError(WsaErrno.WSANOTINITIALISED, "WSPCleanup without WSPStartupEx")
        if self._started == 1:
            for descriptor in list(self._sockets):
                self.close_socket(descriptor, now)
        self._started -= 1

    # ------------------------------------------------------------ descriptors

    def socket(
        self,
        family: int,
        kind: int,
        protocol: int,
        info: WSAPROTOCOL_INFOW | None,
        flags: int,
        now: Instant,
        group: int = 0,
    ) -> SocketDescriptor:
        """WSPSocket: a new socket, or the shared one that ``info`` stands for (then control moves here)."""
        self._require_started()
        if group:
            raise WsaError(WsaErrno.WSAEINVAL, f"there is no socket group {group}: groups belong to quality of service")
        if family not in (c.AF_INET, c.FROM_PROTOCOL_INFO):
            raise WsaError(WsaErrno.WSAEAFNOSUPPORT, f"address family {family}")
        if kind not in (c.SOCK_STREAM, c.FROM_PROTOCOL_INFO):
            raise WsaError(WsaErrno.WSAEPROTOTYPE, f"socket type {kind}")
        if protocol not in (c.IPPROTO_TCP, 0, c.FROM_PROTOCOL_INFO):
            raise WsaError(WsaErrno.WSAEPROTONOSUPPORT, f"protocol {protocol}")
        if not flags & c.WSA_FLAG_OVERLAPPED:
            raise WsaError(WsaErrno.WSAEINVAL, "the SAN provider serves overlapped sockets only")
        if len(self._sockets) >= DESCRIPTORS_MAX:
            raise WsaError(WsaErrno.WSAEMFILE, f"{DESCRIPTORS_MAX} descriptors are open")
        parked = None
        if info is not None and info.dwProviderReserved:
            parked = self._parking.find(info.dwProviderReserved, self.process)
        san = self._create()
        if parked is not None:
            self._parking.take(parked)
            self._adopt(san, parked, now)
        return san.descriptor

    def close_socket(self, s: SocketDescriptor, now: Instant) -> None:
        """WSPCloseSocket: end the descriptor, and the connection unless its control is elsewhere. Never blocks."""
        san = self._socket(s)
        if san.listener is not None:
            self._proxy.unlisten(san.listener, now)
        self.stop_expecting(s, now)
        endpoint = san.endpoint
        if endpoint is not None and san.state is not SocketState.DUPLICATED:
            pending = [*endpoint.sends, *endpoint.waiting]
            endpoint.sends.clear()
            endpoint.waiting.clear()
            self._proxy.disconnect(endpoint, now)
            for overlapped in pending:
                san.on_complete(overlapped, WsaErrno.WSA_OPERATION_ABORTED, 0, now)
        del self._sockets[s]
        self.upcalls.WPUCloseSocketHandle(san.handle)

    def duplicate_socket(self, s: SocketDescriptor, target: ProcessInstance, now: Instant) -> WSAPROTOCOL_INFOW:
        """WSPDuplicateSocket: take the receives back and leave the connection for ``target`` to adopt.

        WSAEINVAL unless the socket is connected; WSAENOBUFS when too many sockets wait to be adopted.
        """
        san = self._socket(s)
        endpoint = san.endpoint
        if san.state is not SocketState.CONNECTED or endpoint is None:
            raise WsaError(WsaErrno.WSAEINVAL, f"a socket in state {san.state.value} cannot be duplicated")
        parked = Parked(endpoint, target, san.local, san.remote, dict(san.options))
        token = self._parking.add(parked)
        self._proxy.take_back_receives(endpoint, now)
        endpoint.owner = None
        san.state = SocketState.DUPLICATED
        self._extensions.release(san, now)
        san.endpoint = None
        return SAN_ENTRY.duplicate(token)

    def reclaim(self, s: SocketDescriptor, info: WSAPROTOCOL_INFOW, now: Instant) -> None:
        """Our extension for RETURN: the source's dormant descriptor takes the unredeemed connection back."""
        san = self._socket(s)
        parked = self._parking.find(info.dwProviderReserved, None)
        self._parking.take(parked)
        self._adopt(san, parked, now)

    def discard(self, info: WSAPROTOCOL_INFOW, now: Instant) -> None:
        """Our extension for ABORT: nobody will adopt the connection; tear it down."""
        parked = self._parking.find(info.dwProviderReserved, None)
        self._parking.take(parked)
        self._proxy.disconnect(parked.endpoint, now)

    # ------------------------------------------------------------- connections

    def bind(self, s: SocketDescriptor, name: Address, now: Instant) -> None:
        """WSPBind: WSAEINVAL when already bound; address reuse is the switch's business."""
        san = self._socket(s)
        if san.state is not SocketState.CREATED:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is bound already")
        san.local = name
        san.state = SocketState.BOUND

    def listen(self, s: SocketDescriptor, backlog: int, now: Instant) -> None:
        """WSPListen: WSAEINVAL when not bound, WSAEISCONN when connected."""
        san = self._socket(s)
        if san.state in (SocketState.CONNECTED, SocketState.CONNECTING):
            raise WsaError(WsaErrno.WSAEISCONN, "the socket is connected")
        if san.state is not SocketState.BOUND or san.local is None:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is not bound")
        service_id = sdp_service_id(san.local[1])
        san.listener = self._proxy.listen(service_id, backlog, lambda _now: san.record(NetworkEvent.FD_ACCEPT, 0))
        san.state = SocketState.LISTENING

    def accept(self, s: SocketDescriptor, condition: Condition, now: Instant) -> tuple[SocketDescriptor, Address]:
        """WSPAccept: take the oldest waiting request; WSAEWOULDBLOCK when there is none, WSAECONNREFUSED on
        CF_REJECT.
        """
        san = self._socket(s)
        if san.listener is None or san.local is None:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is not listening")
        if not san.listener.requests:
            raise WsaError(WsaErrno.WSAEWOULDBLOCK, "no connection request waits")
        request = san.listener.requests.popleft()
        if san.listener.requests:
            san.record(NetworkEvent.FD_ACCEPT, 0)  # the next request signals anew (statement 48)
        caller: Address = (ip_text(request.remote_ip), 0)
        decision = condition(CallerId(caller, request.caller_data, san.local))
        if decision.result is ConditionResult.CF_REJECT:
            self._proxy.refuse(request, now)
            raise WsaError(WsaErrno.WSAECONNREFUSED, "the condition function rejected the request")
        try:
            child = self._create()
        except WsaError:
            self._proxy.refuse(request, now)
            raise
        child.local, child.remote, child.state = san.local, caller, SocketState.CONNECTED
        child.endpoint = self._proxy.accept(request, child, decision.callee_data, now)
        return child.descriptor, caller

    def connect(self, s: SocketDescriptor, name: Address, caller_data: bytes, now: Instant) -> None:
        """WSPConnect: begins and always raises WSAEWOULDBLOCK; FD_CONNECT tells the outcome."""
        san = self._socket(s)
        if san.state is SocketState.CONNECTING:
            raise WsaError(WsaErrno.WSAEALREADY, "a connect is under way")
        if san.state is SocketState.CONNECTED:
            raise WsaError(WsaErrno.WSAEISCONN, "the socket is connected")
        if san.state is not SocketState.BOUND:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is not bound")
        san.remote = name
        ip = bytes(int(part) for part in name[0].split("."))
        san.endpoint = self._proxy.connect(ip, sdp_service_id(name[1]), san, caller_data, now)
        san.state = SocketState.CONNECTING
        raise WsaError(WsaErrno.WSAEWOULDBLOCK, "the connection is being set up")

    def send(self, s: SocketDescriptor, overlapped: Overlapped, now: Instant) -> None:
        """WSPSend: one message, overlapped; WSAENOTCONN when not connected, WSAEMSGSIZE beyond SO_MAX_MSG_SIZE."""
        san = self._socket(s)
        if san.state is not SocketState.CONNECTED or san.endpoint is None:
            raise WsaError(WsaErrno.WSAENOTCONN, f"the socket is {san.state.value}")
        if len(overlapped.data) > self._proxy.config.message_size:
            raise WsaError(WsaErrno.WSAEMSGSIZE, f"{len(overlapped.data)} bytes are more than SO_MAX_MSG_SIZE")
        self._proxy.send(san.endpoint, overlapped, now)

    def recv(self, s: SocketDescriptor, overlapped: Overlapped, now: Instant) -> None:
        """WSPRecv: post one receive, overlapped; WSAENOTCONN when not connected."""
        san = self._socket(s)
        if san.endpoint is None or san.state not in (SocketState.CONNECTED, SocketState.CONNECTING):
            raise WsaError(WsaErrno.WSAENOTCONN, f"the socket is {san.state.value}")
        self._proxy.receive(san.endpoint, overlapped, now)

    # -------------------------------------------------------- events and options

    def event_select(self, s: SocketDescriptor, events: NetworkEvent, now: Instant) -> None:
        """WSPEventSelect: a later call replaces an earlier one. WSAEINVAL for events that are not a provider's."""
        san = self._socket(s)
        if int(events) & ~int(NetworkEvent.FD_ACCEPT | NetworkEvent.FD_CONNECT):
            raise WsaError(WsaErrno.WSAEINVAL, "a SAN provider tells of FD_ACCEPT and FD_CONNECT alone")
        san.selected = events

    def enum_network_events(self, s: SocketDescriptor, now: Instant) -> NetworkEvents:
        """WSPEnumNetworkEvents: copies, clears and resets at once."""
        san = self._socket(s)
        recorded, san.recorded = san.recorded, {}
        events = NetworkEvent(0)
        for event in recorded:
            events |= event
        return NetworkEvents(events, recorded, san.callee_data)

    def get_overlapped_result(self, s: SocketDescriptor, overlapped: Overlapped, wait: bool, now: Instant) -> int:
        """WSPGetOverlappedResult: bytes transferred; WSA_IO_INCOMPLETE while unfinished (nothing here waits)."""
        self._socket(s)
        if not overlapped.done:
            raise WsaError(WsaErrno.WSA_IO_INCOMPLETE, "the operation has not finished")
        if overlapped.error:
            raise WsaError(WsaErrno(overlapped.error), "the operation failed")
        return overlapped.transferred

    def get_sock_opt(self, s: SocketDescriptor, level: int, name: int, now: Instant) -> int:
        """WSPGetSockOpt: SO_DEBUG and the sizes of messages and RDMA; WSAENOPROTOOPT for all else, which the switch
        answers.
        """
        san, config = self._socket(s), self._proxy.config
        known = {
            c.SO_DEBUG: san.options.get(c.SO_DEBUG, 0),
            c.SO_MAX_MSG_SIZE: config.message_size,
            c.SO_MAX_RDMA_SIZE: config.rdma_size,
            c.SO_RDMA_THRESHOLD_SIZE: config.rdma_threshold,
        }
        if level == c.SOL_SOCKET and name in known:
            return known[name]
        raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {name:#x} of level {level:#x}")

    def set_sock_opt(self, s: SocketDescriptor, level: int, name: int, value: int, now: Instant) -> None:
        """WSPSetSockOpt: SO_DEBUG; WSAENOPROTOOPT for all else."""
        san = self._socket(s)
        if level != c.SOL_SOCKET or name != c.SO_DEBUG:
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {name:#x} of level {level:#x}")
        san.options[name] = value

    def ioctl(self, s: SocketDescriptor, code: int, value: bytes, now: Instant) -> object:
        """WSPIoctl: the extension functions and the list of addresses; see :meth:`Extensions.ioctl`."""
        return self._extensions.ioctl(self._socket(s), code, value)

    def get_qos_by_name(self, s: SocketDescriptor, name: bytes, now: Instant) -> object:
        """WSPGetQOSByName: WSAEOPNOTSUPP, there is no quality of service here."""
        self._socket(s)
        raise WsaError(WsaErrno.WSAEOPNOTSUPP, "the SAN provider has no quality of service")

    # ------------------------------------------------------------------ getters

    @property
    def is_started(self) -> bool:
        """Between WSPStartupEx and the last WSPCleanup."""
        return bool(self._started)

    def endpoint(self, s: SocketDescriptor) -> Endpoint | None:
        """The endpoint behind a descriptor, for `ps` and for the switch's close rules."""
        return self._socket(s).endpoint

    def __len__(self) -> int:
        return len(self._sockets)

    # ------------------------------------------------------------------ private

    def _require_started(self) -> None:
        if not self.is_started:
            raise WsaError(WsaErrno.WSANOTINITIALISED, "WSPStartupEx has not been called")

    def _socket(self, s: SocketDescriptor) -> SanSocket:
        self._require_started()
        san = self._sockets.get(s)
        if san is None:
            raise WsaError(WsaErrno.WSAENOTSOCK, f"{s} is not a descriptor of this provider instance")
        return san

    def _create(self) -> SanSocket:
        descriptor = SocketDescriptor(next(self._numbers))
        san = SanSocket(self, descriptor, SocketHandle(0))
        san.handle = self.upcalls.WPUCreateSocketHandle(SAN_ENTRY.entry_id, san)
        self._sockets[descriptor] = san
        return san

    def _adopt(self, san: SanSocket, parked: Parked, now: Instant) -> None:
        """Make ``san`` the controlling socket of a parked connection, as it was before (statement 109)."""
        san.endpoint = parked.endpoint
        san.local, san.remote = parked.local, parked.remote
        san.options.update(parked.options)
        san.state = SocketState.CONNECTED
        parked.endpoint.owner = san
        while parked.endpoint.completed:
            overlapped, error = parked.endpoint.completed.popleft()
            san.on_complete(overlapped, error, len(overlapped.data) or overlapped.length, now)
        if parked.endpoint.lost is not None and not parked.endpoint.arrived:
            san.on_connection_lost(parked.endpoint.lost, now)


SocketFactory = Callable[[ProcessInstance], SanServiceProvider]
