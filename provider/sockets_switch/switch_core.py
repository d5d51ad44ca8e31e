"""The tables that the parts of the agent half share, and the one place where its events leave.

``SwitchCore`` has no behaviour of its own beyond look-ups and bookkeeping: connections live in ``connections``,
hand-overs in ``transfers``, and :class:`provider.sockets_switch.agent_half.AgentHalf` puts them together.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fabric.ids import CatalogEntryId, ProcessInstance, SocketHandle
from fabric.rng import Stream
from fabric.units import MILLISECOND, SECOND, Duration, Instant
from provider.catalog import SAN_ENTRY, TCPIP_ENTRY
from provider.errors import WsaErrno, WsaError
from provider.handoff.fault_points import FaultPoints
from provider.handoff.registry import HandoffRegistry
from provider.protocol_info import GUID
from provider.san_provider.parking import ParkingTable
from provider.san_provider.proxy_driver import ProxyDriver
from provider.san_provider.service_provider import VERSION_2_2, SanServiceProvider
from provider.session.session import Session, SessionConfig
from provider.sockets_switch.events import SwitchEvent
from provider.sockets_switch.quotas import Quotas
from provider.sockets_switch.routing import Routing
from provider.sockets_switch.shared_socket import AttachedProcess, Descriptor, SharedSocket
from provider.spi import CallLog, Overlapped, UpcallTable, proc_table

Report = Callable[..., None]
"""report(event, **members): a journal record, without time and node, which the caller knows."""

_QUOTAS = Quotas()
AT_ONCE = 8
"""Connections that one input ends at once, at a millisecond each or two; see :meth:`SwitchCore.spread`."""


@dataclass(frozen=True, slots=True)
class SwitchConfig:
    """Numbers of the agent half; durations in nanoseconds."""

    ip: str
    names: dict[str, str]
    """Host names of the topology and their addresses."""
    session: SessionConfig
    default_mode: str = "suspend"
    tcp_on_san: tuple[GUID, ...] = (SAN_ENTRY.info.ProviderId,)
    """ProviderIds of the providers that the switch may use beside TCP/IP."""
    ticket_lifetime: Duration = 5 * SECOND
    suspend_deadline: Duration = 10 * SECOND
    close_linger: Duration = 30 * SECOND
    """How long a closed connection may take to deliver what was accepted and to hear the peer finish."""
    suspend_retry: Duration = 250 * MILLISECOND
    spread_interval: Duration = MILLISECOND
    """Between the parts of what is too much to be done at once."""
    quotas: Quotas = _QUOTAS


class SwitchCore:
    """Shared tables of the agent half."""

    def __init__(
        self, config: SwitchConfig, proxy: ProxyDriver, registry: HandoffRegistry, rng: Stream, report: Report
    ) -> None:
        self.config = config
        self.proxy = proxy
        self.registry = registry
        self.parking = ParkingTable(rng)
        self.routing = Routing(config.tcp_on_san, config.names)
        self.report = report
        self.faults = FaultPoints(report)
        self.rng = rng
        self.now: Instant = 0
        self.processes: dict[ProcessInstance, AttachedProcess] = {}
        self.sockets: dict[int, SharedSocket] = {}
        self.descriptors: dict[SocketHandle, Descriptor] = {}
        self.companions: dict[SocketHandle, SharedSocket] = {}
        """Handles that the provider got from WPUCreateSocketHandle."""
        self.sessions: dict[Session, SharedSocket] = {}
        self.events: deque[SwitchEvent] = deque()
        self.dirty: dict[int, SharedSocket] = {}
        """Sockets whose session may have something to say; flushed at the end of each input."""
        self.signalled: deque[SharedSocket] = deque()
        self.lingering: dict[int, SharedSocket] = {}
        """Sockets that no process has any more and that still deliver; each has ``linger_until``."""
        self._spread: deque[Callable[[Instant], object]] = deque()
        self._spread_at: Instant | None = None
        self._creating: SharedSocket | None = None
        self._next_handle = 0
        self._next_socket = 0

    # -------------------------------------------------------------- processes

    def attach(self, process: ProcessInstance, name: str, now: Instant) -> AttachedProcess:
        """A process instance begins to use the provider: WSPStartupEx, once per process."""
        attached = self.processes.get(process)
        if attached is None:
            provider = SanServiceProvider(process, self.proxy, self.parking)
            log = CallLog(process, self._report_call)
            attached = AttachedProcess(process, provider, log.trace_calls(proc_table(provider)), log, name)
            self.processes[process] = attached
            if self.routing.is_installed:
                self.start_provider(attached, now)
        return attached

    def start_provider(self, attached: AttachedProcess, now: Instant) -> None:
        """WSPStartupEx, and the question for the provider's addresses."""
        upcalls = UpcallTable(
            WPUCreateSocketHandle=self._create_socket_handle,
            WPUCloseSocketHandle=self._close_socket_handle,
            WPUQuerySocketHandleContext=self._query_socket_handle_context,
            WPUCompleteOverlappedRequest=self._complete_overlapped_request,
            WPUSetEvent=self._signal_event,
        )
        attached.table.WSPStartupEx(VERSION_2_2, attached.log.trace_upcalls(upcalls), TCPIP_ENTRY.info, now)
        with _Creating(self, SharedSocket(0)):
            self.routing.query(attached.table, now)

    def process(self, process: ProcessInstance) -> AttachedProcess:
        """The attached process; WSANOTINITIALISED if it never attached."""
        attached = self.processes.get(process)
        if attached is None:
            raise WsaError(WsaErrno.WSANOTINITIALISED, f"process {process.pid} is not attached to this host")
        return attached

    def descriptor(self, process: ProcessInstance, s: SocketHandle) -> Descriptor:
        """The process's own descriptor ``s``; WSAENOTSOCK for any other number."""
        descriptor = self.process(process).descriptors.get(s)
        if descriptor is None or descriptor.closing:
            raise WsaError(WsaErrno.WSAENOTSOCK, f"{s} is not a socket of process {process.pid}")
        return descriptor

    # ---------------------------------------------------------------- sockets

    def new_socket(self) -> SharedSocket:
        """A shared socket without descriptors."""
        self._next_socket += 1
        socket = SharedSocket(self._next_socket)
        self.sockets[socket.number] = socket
        return socket

    def require_room(self, owner: AttachedProcess) -> None:
        """WSAEMFILE or WSAENOBUFS if one more socket of ``owner`` would be beyond the quotas."""
        quotas = self.config.quotas
        if len(owner.descriptors) + owner.waiting >= quotas.sockets_per_process:
            raise WsaError(WsaErrno.WSAEMFILE, f"process {owner.process.pid} has {quotas.sockets_per_process} sockets")
        if len(self.descriptors) >= quotas.sockets:
            raise WsaError(WsaErrno.WSAENOBUFS, f"{quotas.sockets} sockets are in use on this host")

    def new_descriptor(self, owner: AttachedProcess, socket: SharedSocket) -> Descriptor:
        """A descriptor of ``owner`` for ``socket``; the caller has asked for room."""
        descriptor = Descriptor(self._new_handle(), owner, socket)
        owner.descriptors[descriptor.s] = descriptor
        self.descriptors[descriptor.s] = descriptor
        socket.descriptors.append(descriptor)
        return descriptor

    def drop_descriptor(self, descriptor: Descriptor) -> None:
        """Forget a descriptor."""
        descriptor.socket.descriptors.remove(descriptor)
        descriptor.owner.descriptors.pop(descriptor.s, None)
        self.descriptors.pop(descriptor.s, None)

    def companion_socket(self, descriptor: Descriptor, now: Instant) -> None:
        """WSPSocket on the provider: the SAN socket beside the application's (statement 27)."""
        with _Creating(self, descriptor.socket):
            descriptor.san = descriptor.owner.table.WSPSocket(2, 1, 6, None, 1, now)

    def creating(self, socket: SharedSocket) -> "_Creating":
        """Handles that the provider asks for inside this context belong to ``socket``."""
        return _Creating(self, socket)

    def controlling(self, socket: SharedSocket) -> Descriptor | None:
        """The descriptor that may use the socket now, if any."""
        holder = self.registry.controlling(socket.number)
        return None if holder is None else self.descriptors.get(SocketHandle(int(holder.descriptor)))

    def emit(self, event: SwitchEvent) -> None:
        """Give an event to the driver."""
        self.events.append(event)

    def linger(self, socket: SharedSocket, now: Instant) -> bool:
        """No process has the socket any more; false if so many linger already that it has to go at once."""
        if len(self.lingering) >= self.config.quotas.lingering:
            return False
        socket.linger_until = now + self.config.close_linger
        self.lingering[socket.number] = socket
        return True

    def forget(self, socket: SharedSocket) -> None:
        """Nothing is left of the socket."""
        self.sockets.pop(socket.number, None)
        self.lingering.pop(socket.number, None)

    def spread(self, work: Iterable[Callable[[Instant], object]], now: Instant) -> None:
        """Do what may be much, such as ending the thousand connections of a killed process: a little of it now and
        every millisecond. A host that does nothing else for a second loses its other connections to timers.
        """
        self._spread.extend(work)
        if self._spread_at is None:
            self._spread_at = now
            self.go_on_spreading(now)

    def go_on_spreading(self, now: Instant) -> None:
        """The next little of that, if it is due."""
        if self._spread_at is not None and now >= self._spread_at:
            self.do_some(now)

    def do_some(self, now: Instant) -> None:
        """The next little, due or not: for a driver that knows how busy it is."""
        for _ in range(min(AT_ONCE, len(self._spread))):
            self._spread.popleft()(now)
        self._spread_at = now + self.config.spread_interval if self._spread else None

    @property
    def spreads_at(self) -> Instant | None:
        """When ``go_on_spreading`` is wanted."""
        return self._spread_at

    def touch(self, socket: SharedSocket) -> None:
        """The socket's session may have something to say."""
        self.dirty[socket.number] = socket

    # ---------------------------------------------------------------- upcalls

    def _new_handle(self) -> SocketHandle:
        self._next_handle += 1
        return SocketHandle(self._next_handle)

    def _create_socket_handle(self, entry: CatalogEntryId, context: object) -> SocketHandle:
        assert self._creating is not None, "the provider creates sockets only inside WSPSocket and WSPAccept"
        handle = self._new_handle()
        self.companions[handle] = self._creating
        return handle

    def _close_socket_handle(self, handle: SocketHandle) -> None:
        if self.companions.pop(handle, None) is None:
            raise WsaError(WsaErrno.WSAENOTSOCK, f"{handle} is not a socket handle")

    def _query_socket_handle_context(self, handle: SocketHandle) -> object:
        return self.companions.get(handle)

    def _complete_overlapped_request(
        self, handle: SocketHandle, overlapped: Overlapped, error: int, transferred: int
    ) -> None:
        socket = self.companions[handle]
        if socket.pump is not None:
            socket.pump.on_complete(overlapped, error, transferred, self.now)
            self.dirty[socket.number] = socket

    def _signal_event(self, handle: SocketHandle) -> None:
        self.signalled.append(self.companions[handle])

    def _report_call(self, name: str, process: ProcessInstance, outcome: str) -> None:
        self.report(f"spi.{name}", pid=process.pid, outcome=outcome)


class _Creating:
    """Remembers for which shared socket the provider is asking for a handle."""

    def __init__(self, core: SwitchCore, socket: SharedSocket) -> None:
        self._core, self._socket = core, socket

    def __enter__(self) -> None:
        self._outer, self._core._creating = self._core._creating, self._socket

    def __exit__(self, *_: object) -> None:
        self._core._creating = self._outer
