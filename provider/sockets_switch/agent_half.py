"""The agent half of the sockets switch: what the process halves of a host ask for, carried out for one process at a
time.

Commands raise :class:`provider.errors.WsaError`; what takes time is answered by events (``events.py``). The rules of
access:

* every command names the process instance that asks (the kernel's word, not the process's) and finds only its own
  descriptors;
* bytes move only through the descriptor that the registry says is controlling, and only while its channel is open;
* a descriptor that does not control its socket may be closed and asked for names and options, nothing else:
  WSAEINVAL.
"""

from functools import partial

from fabric.ids import ProcessInstance, SocketHandle
from fabric.units import Instant
from provider import constants as c
from provider.errors import WsaErrno, WsaError
from provider.handoff import registry as handoff
from provider.protocol_info import GUID
from provider.sockets_switch import events
from provider.sockets_switch.connections import Connections
from provider.sockets_switch.listeners import holder_of
from provider.sockets_switch.moving_bytes import MovingBytes
from provider.sockets_switch.options import DEFAULTS, READ_ONLY, apply_options
from provider.sockets_switch.relatives import Relatives
from provider.sockets_switch.shared_socket import AttachedProcess, Descriptor, SharedSocket, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore
from provider.sockets_switch.transfers import Transfers
from provider.spi import Address


class AgentHalf(MovingBytes):
    """See the module text."""

    def __init__(self, core: SwitchCore) -> None:
        self.core = core
        self._connections = Connections(core)
        self._transfers = Transfers(core, self._connections)
        self.relatives = Relatives(core, self._transfers)
        self._exited: list[AttachedProcess] = []
        self._deadlines: dict[int, Instant] = {}
        """Of the sockets that wait for something, which are few; every change of a socket touches it."""

    # --------------------------------------------------------------- processes

    def attach(self, process: ProcessInstance, name: str, now: Instant) -> AttachedProcess:
        """WSPStartupEx for a process instance; attaching again changes nothing."""
        return self.core.attach(process, name, now)

    def install_provider(self, provider_id: GUID, now: Instant) -> None:
        """A provider comes into the list "TCP on SAN": it is started for every process, and listens where it must."""
        if self.core.routing.install(provider_id):
            for attached in self.core.processes.values():
                self.core.start_provider(attached, now)
            self._connections.listeners.provider_installed(now)

    def detach(self, process: ProcessInstance, now: Instant) -> None:
        """The process has ended: release all that it held (statement 126), and give back what waited for it."""
        attached = self.core.processes.pop(process, None)
        if attached is None:
            self.core.registry.process_exited(process, now)
            return
        attached.exited = True
        self._exited.append(attached)
        self.core.report("process.exited", pid=process.pid)
        descriptors = list(attached.descriptors.values())
        for descriptor in descriptors:
            descriptor.exited = True
        self.core.spread((partial(self._release, descriptor) for descriptor in descriptors), now)
        self.core.registry.process_exited(process, now)

    # ----------------------------------------------------------------- commands

    def socket(self, process: ProcessInstance, family: int, kind: int, protocol: int, now: Instant) -> Descriptor:
        """A new socket of the process. WSAEAFNOSUPPORT, WSAESOCKTNOSUPPORT, WSAEPROTONOSUPPORT, WSAEMFILE."""
        attached = self.core.process(process)
        if family not in (c.AF_INET, 0):
            raise WsaError(WsaErrno.WSAEAFNOSUPPORT, f"address family {family}; this fabric carries AF_INET")
        if kind != c.SOCK_STREAM:
            raise WsaError(WsaErrno.WSAESOCKTNOSUPPORT, f"socket type {kind}; the SAN carries SOCK_STREAM")
        if protocol not in (0, c.IPPROTO_TCP):
            raise WsaError(WsaErrno.WSAEPROTONOSUPPORT, f"protocol {protocol}")
        self.core.require_room(attached)
        socket = self.core.new_socket()
        descriptor = self.core.new_descriptor(attached, socket)
        self.core.registry.open(socket.number, holder_of(descriptor), now)
        return descriptor

    def redeem(self, process: ProcessInstance, info: bytes, now: Instant) -> Descriptor:
        """WSPSocket with the 628 bytes of a special WSAPROTOCOL_INFOW; see :meth:`Transfers.redeem`."""
        return self._transfers.redeem(process, info, now)

    def bind(self, process: ProcessInstance, s: SocketHandle, name: Address, now: Instant) -> Address:
        """WSPBind; returns the address with its port."""
        return self._connections.bind(self._controlled(process, s).socket, name)

    def listen(self, process: ProcessInstance, s: SocketHandle, backlog: int, now: Instant) -> None:
        """WSPListen."""
        self._connections.listeners.listen(self._served(process, s), backlog, now)

    def connect(self, process: ProcessInstance, s: SocketHandle, name: Address, now: Instant) -> None:
        """WSPConnect; ``ChannelOpened`` or ``ConnectFailed`` follows."""
        self._connections.connect(self._controlled(process, s), name, now)

    def accept(self, process: ProcessInstance, s: SocketHandle, now: Instant) -> Descriptor:
        """WSPAccept; WSAEWOULDBLOCK when no connection waits."""
        return self._connections.listeners.accept(self._served(process, s), now)

    def require_control(self, process: ProcessInstance, s: SocketHandle) -> None:
        """WSAEINVAL unless the process's descriptor controls its socket now."""
        self._controlled(process, s)

    def shutdown_send(self, process: ProcessInstance, s: SocketHandle, now: Instant) -> None:
        """The process sends no more; its channel has been read to the end."""
        descriptor = self._controlled(process, s)
        session = descriptor.socket.session
        if session is None:
            raise WsaError(WsaErrno.WSAENOTCONN, "the socket is not connected")
        session.shutdown_send(now)
        self.core.touch(descriptor.socket)

    def close(self, process: ProcessInstance, s: SocketHandle, now: Instant) -> None:
        """WSPCloseSocket: end the descriptor; the last one ends the socket. Gone at once for the process."""
        descriptor = self.core.descriptor(process, s)
        descriptor.closing = True
        self.core.report("descriptor.close", s=s, pid=process.pid)
        if descriptor.has_channel:
            self.core.emit(events.RevokeChannel(s))
        else:
            self._finish_close(descriptor, False, now)

    def duplicate(
        self, process: ProcessInstance, s: SocketHandle, target: ProcessInstance, mode: str | None, now: Instant
    ) -> int:
        """WSPDuplicateSocket; returns the operation, ``DuplicateDone`` or ``DuplicateFailed`` ends it."""
        descriptor = self.core.descriptor(process, s)
        return self._transfers.duplicate(descriptor, target, mode or self.core.config.default_mode, now)

    def get_option(self, process: ProcessInstance, s: SocketHandle, level: int, name: int, now: Instant) -> int:
        """WSPGetSockOpt, through any descriptor; WSAENOPROTOOPT for an unknown one. SO_ERROR clears itself."""
        socket = self.core.descriptor(process, s).socket
        if (level, name) == (c.SOL_SOCKET, c.SO_ERROR):
            error, socket.error = socket.error, None
            return int(error or 0)
        if (level, name) == (c.SOL_SOCKET, c.SO_ACCEPTCONN):
            return int(socket.phase is SocketPhase.LISTENING)
        if (level, name) not in DEFAULTS:
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {name:#x} of level {level:#x}")
        return socket.options.get((level, name), DEFAULTS[level, name])

    def set_option(
        self, process: ProcessInstance, s: SocketHandle, level: int, name: int, value: int, now: Instant
    ) -> None:
        """WSPSetSockOpt, by the controlling process; seen through every descriptor of the socket."""
        socket = self._served(process, s).socket
        if (level, name) not in DEFAULTS or (level, name) in READ_ONLY:
            raise WsaError(WsaErrno.WSAENOPROTOOPT, f"option {name:#x} of level {level:#x} cannot be set")
        if not -(2**31) <= value < 2**32:
            raise WsaError(WsaErrno.WSAEINVAL, f"{value} does not fit an option")
        socket.options[level, name] = value
        if socket.session is not None:
            apply_options(socket.options, socket.session)
        self.core.registry.used(socket.number)

    # ---------------------------------------------------------- data, by the driver

    def channel_revoked(
        self,
        s: SocketHandle,
        accepted: bytes,
        unread: bytes,
        finished: bool,
        now: Instant,
        *,
        overflow: bool = False,
    ) -> None:
        """The answer to ``RevokeChannel``.

        ``accepted``: what the process wrote and we had not read; ``unread``: what it had not read, in stream order;
        ``finished``: it had shut its sending direction down itself; ``overflow``: it tampered with its channel and
        wrote more than a driver keeps, so that the stream cannot go on.
        """
        core = self.core
        descriptor = core.descriptors.get(s)
        if descriptor is None:
            return
        descriptor.has_channel = False
        given, descriptor.given = descriptor.given, 0
        socket = descriptor.socket
        session = socket.session
        if accepted or len(unread) < given:
            core.registry.used(socket.number)
        if overflow:
            self._connections.abort(socket, WsaErrno.WSAECONNABORTED, now)
        if session is not None and not socket.ended:
            if accepted:
                session.send(accepted, now, beyond_limit=True)
            if unread:
                session.push_front(unread)
            if finished:
                session.shutdown_send(now)
            core.touch(socket)
        if descriptor.closing:
            self._finish_close(descriptor, bool(unread), now)
        elif descriptor.exited:
            self._exit_descriptor(descriptor, now)
        else:
            self._transfers.on_revoked(descriptor, now)

    def claimed(self, s: SocketHandle) -> None:
        """The process has fetched the channel of a socket that control came back to."""
        self.core.descriptors[s].closed_before = False

    def is_in_transfer(self, socket: SharedSocket) -> bool:
        """Whether no process may use the socket now because it is being handed over."""
        return self._transfers.in_transfer(socket)

    # ------------------------------------------------------------------- settling

    def settle(self, now: Instant) -> None:
        """After every input: carry signals, sessions' words and the registry's decisions until nothing moves."""
        core = self.core
        while True:
            if core.signalled:
                self._connections.on_signal(core.signalled.popleft(), now)
            elif core.dirty:
                number = next(iter(core.dirty))
                socket = core.dirty.pop(number)
                self._settle_socket(socket, now)
                self._note_deadline(socket)
            elif (event := core.registry.poll_event()) is not None:
                self._on_registry_event(event, now)
            else:
                break
        if self._exited:
            self._retire_processes(now)

    def handle_timeout(self, now: Instant) -> None:
        """Overdue deadlines of tickets, suspensions, sessions and lingering closes."""
        core = self.core
        core.registry.handle_timeout(now)
        core.go_on_spreading(now)
        self._transfers.handle_timeout(now)
        for number in [number for number, deadline in self._deadlines.items() if now >= deadline]:
            socket = core.sockets.get(number)
            if socket is None or socket.session is None:
                del self._deadlines[number]
                continue
            deadline = socket.session.poll_timeout()
            if deadline is not None and now >= deadline:
                socket.session.handle_timeout(now)
            core.touch(socket)

    @property
    def has_more_to_do(self) -> bool:
        """Whether there is work that was too much to be done at once; ``do_some`` goes on with it."""
        return self.core.spreads_at is not None

    def do_some(self, now: Instant) -> None:
        """A driver that is busy should not wait for the timer, which is due whatever else there is to do."""
        self.core.do_some(now)

    def poll_timeout(self) -> Instant | None:
        """The earliest of all those deadlines."""
        core = self.core
        deadlines = [core.registry.poll_timeout(), self._transfers.poll_timeout(), core.spreads_at]
        deadlines += self._deadlines.values()
        return min((d for d in deadlines if d is not None), default=None)

    # -------------------------------------------------------------------- private

    def _controlled(self, process: ProcessInstance, s: SocketHandle) -> Descriptor:
        """The process's descriptor, if it controls its socket now; WSAEINVAL otherwise."""
        descriptor = self.core.descriptor(process, s)
        if not self.core.registry.may_use(descriptor.socket.number, holder_of(descriptor)):
            raise WsaError(WsaErrno.WSAEINVAL, self._who_controls(descriptor.socket))
        return descriptor

    def _served(self, process: ProcessInstance, s: SocketHandle) -> Descriptor:
        """The same, or a descriptor of a listener whose relative controls it: they serve it side by side."""
        descriptor = self.core.descriptor(process, s)
        listening = descriptor.socket.phase is SocketPhase.LISTENING
        if listening and descriptor.is_relative(self.core.controlling(descriptor.socket)):
            return descriptor
        return self._controlled(process, s)

    def _who_controls(self, socket: SharedSocket) -> str:
        controlling = self.core.controlling(socket)
        if controlling is None or self._transfers.in_transfer(socket):
            return "the socket is being handed over; no process may use it now"
        return f"control of the socket is with process {controlling.owner.process.pid}"

    def _settle_socket(self, socket: SharedSocket, now: Instant) -> None:
        session, pump = socket.session, socket.pump
        if session is None:
            return
        while (event := session.poll_event()) is not None:
            if not self._transfers.on_session_event(socket, event, now):
                self._connections.on_session_event(socket, event, now)
        if pump is not None:
            if pump.lost is not None and not socket.ended and not session.is_closed:
                self._transfers.on_lost(socket, now)
                self._connections.lose(socket, pump.lost, now)
            pump.flush(now)
            if (event := session.poll_event()) is not None:
                self.core.touch(socket)  # flushing made news
                if not self._transfers.on_session_event(socket, event, now):
                    self._connections.on_session_event(socket, event, now)
        self._transfers.on_settled(socket, now)
        self._connections.settle_end(socket, now)

    def _note_deadline(self, socket: SharedSocket) -> None:
        session = socket.session
        wanted = [socket.linger_until, None if session is None else session.poll_timeout()]
        known = [deadline for deadline in wanted if deadline is not None]
        if known and session is not None and socket.number in self.core.sockets:
            self._deadlines[socket.number] = min(known)
        else:
            self._deadlines.pop(socket.number, None)

    def _on_registry_event(self, event: object, now: Instant) -> None:
        core = self.core
        if isinstance(event, handoff.ControlReturned):
            socket = core.sockets.get(event.socket_id)
            if socket is not None:
                descriptor = core.descriptors.get(SocketHandle(int(event.to.descriptor)))
                if descriptor is not None:
                    descriptor.closed_before = event.reason is handoff.CLOSED
                self._transfers.on_control_returned(socket, descriptor, event.epoch, now)
        elif isinstance(event, handoff.SocketAborted):
            socket = core.sockets.get(event.socket_id)
            if socket is not None:
                self._transfers.on_aborted(socket, now)
        elif isinstance(event, handoff.LastReferenceClosed):
            core.report("socket.last_reference", socket=event.socket_id)

    def _finish_close(self, descriptor: Descriptor, unread: bool, now: Instant) -> None:
        """The descriptor ends; the socket too if it was the last reference."""
        core, socket = self.core, descriptor.socket
        ticket_out = self._transfers.in_transfer(socket)
        core.registry.close(holder_of(descriptor), now)
        core.drop_descriptor(descriptor)
        last = not socket.descriptors and not ticket_out
        pump = socket.pump
        current = pump is not None and pump.table is descriptor.owner.table and pump.san == descriptor.san
        if descriptor.san is not None and not current:  # the one that carries the connection goes with it, or moves
            descriptor.owner.table.WSPCloseSocket(descriptor.san, now)
        if last:
            self._connections.close_last(socket, unread, now)

    def _release(self, descriptor: Descriptor, now: Instant) -> None:
        """One of the descriptors of a process that has ended."""
        if self.core.descriptors.get(descriptor.s) is not descriptor or descriptor.closing:
            return
        if descriptor.has_channel:
            self.core.emit(events.RevokeChannel(descriptor.s))
        else:
            self._exit_descriptor(descriptor, now)

    def _exit_descriptor(self, descriptor: Descriptor, now: Instant) -> None:
        """A dead process's descriptor; the registry has decided or will decide what becomes of the socket."""
        core, socket = self.core, descriptor.socket
        core.emit(events.DescriptorGone(descriptor.s))
        if socket.phase is SocketPhase.LISTENING:
            self._finish_close(descriptor, False, now)
            return
        holder = holder_of(descriptor)
        controlled = core.registry.may_use(socket.number, holder)
        relative = self.relatives.heir(descriptor)
        heir = None if relative is None else holder_of(relative)
        died_in_use = controlled and not descriptor.closed_before
        returned = died_in_use and core.registry.owner_died(holder, now, heir)
        if died_in_use and not returned and socket.session is not None and not socket.session.is_closed:
            self._connections.abort(socket, WsaErrno.WSAECONNRESET, now)
        self._finish_close(descriptor, False, now)

    def _retire_processes(self, now: Instant) -> None:
        """WSPCleanup for processes that have exited, once what they had accepted is delivered."""
        for attached in [a for a in self._exited if not len(a.provider)]:
            self._exited.remove(attached)
            if attached.provider.is_started:
                attached.table.WSPCleanup(now)
