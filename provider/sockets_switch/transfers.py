"""Hand-overs: the choreography of WSPDuplicateSocket and of the WSPSocket that redeems it.

The registry decides who controls a socket and holds the one commit record; this file carries its decisions out. One
transfer goes through these stages (SAN steps in brackets):

====================  ===========================================================================================
revoking  [5]         the source's data channel is cut off; what it got accepted goes to the session, what it has
                      not read goes back to the front of the session's receive buffer
remaking  [5]         a connection that an earlier hand-over makes anew is waited for
suspending [5]        modes ``suspend`` and ``rehome``: SuspComm is out, the peer drains and answers SuspCommAck
draining  [5]         what the provider still sends comes to its end; the session says nothing more
ticketed  [5..8]      the provider gave its connection up, the ticket is out; no process may use the socket
resumed   [8]         the target redeemed: commit, receives posted again, Resume to a suspended peer; in mode
                      ``rehome`` a new connection instead (:mod:`provider.sockets_switch.rehoming`)
====================  ===========================================================================================

Every stage has a deadline. Whatever fails before the commit gives the socket back to the source, with a fresh data
channel; the registry says so with ``ControlReturned``.
"""

from fabric.ids import ProcessInstance
from fabric.units import MILLISECOND, Instant
from provider import constants as c
from provider.catalog import SAN_ENTRY
from provider.errors import WsaErrno, WsaError
from provider.handoff.fault_points import Parties
from provider.session.session import Aborted, Remade, Suspended, SuspensionLost
from provider.sockets_switch import events
from provider.sockets_switch.companions import bring_home
from provider.sockets_switch.connections import Connections
from provider.sockets_switch.eligibility import STILL_OUT, require_peer
from provider.sockets_switch.listeners import holder_of
from provider.sockets_switch.shared_socket import Descriptor, SharedSocket, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore
from provider.sockets_switch.transfer import MODES, UNTICKETED, WAITING, WITHOUT_PEER, Transfer


class Transfers:
    """See the module text."""

    def __init__(self, core: SwitchCore, connections: Connections) -> None:
        self._core = core
        self._connections = connections
        self._by_socket: dict[int, Transfer] = {}
        self._next_operation = 0

    # ------------------------------------------------------------- the source

    def duplicate(self, descriptor: Descriptor, target: ProcessInstance, mode: str, now: Instant) -> int:
        """Begin WSPDuplicateSocket; returns the operation that ``DuplicateDone`` or ``DuplicateFailed`` names.

        Raises one of the five documented errors when it cannot even begin; nothing has changed then.
        """
        socket = descriptor.socket
        if mode not in MODES:
            raise WsaError(WsaErrno.WSAEINVAL, f"unknown handoff mode {mode!r}; it is one of {', '.join(MODES)}")
        if socket.phase not in WITHOUT_PEER and socket.number not in self._by_socket:
            require_peer(socket, mode)
            assert socket.session is not None
            if mode == "suspend" and not socket.session.supports_suspension:
                mode = "rehome"  # the standard's way, for a peer that knows no other
        return self._begin(descriptor, target, mode, None, now)

    def take(self, source: Descriptor, taker: Descriptor, now: Instant) -> None:
        """``taker``, a relative, takes control from ``source``, which has it: done when its channel is revoked."""
        self._begin(source, taker.owner.process, "local", taker, now)

    def _begin(
        self, descriptor: Descriptor, target: ProcessInstance, mode: str, taker: Descriptor | None, now: Instant
    ) -> int:
        core, socket = self._core, descriptor.socket
        number = core.registry.begin(
            socket.number,
            holder_of(descriptor),
            target,
            now,
            secret=core.rng.randbytes(20),
            lifetime=core.config.ticket_lifetime,
        )
        self._next_operation += 1
        transfer = Transfer(
            self._next_operation,
            socket,
            descriptor,
            target,
            number,
            mode,
            core.registry.epoch(socket.number) + 1,
            now + core.config.suspend_deadline,
            taker=taker,
        )
        self._by_socket[socket.number] = transfer
        core.report(
            "handoff.begin", socket=socket.number, source=descriptor.owner.process.pid, target=target.pid, mode=mode
        )
        self._reach(transfer, "drain.before")
        core.emit(events.RevokeChannel(descriptor.s))
        return transfer.operation

    def on_revoked(self, descriptor: Descriptor, now: Instant) -> None:
        """The source's channel is cut off and accounted for."""
        transfer = self._by_socket.get(descriptor.socket.number)
        if transfer is None or transfer.source is not descriptor or transfer.stage != "revoking":
            return
        self._reach(transfer, "drain.after")
        self._go_on(transfer, now)

    def _go_on(self, transfer: Transfer, now: Instant) -> None:
        """The channel is accounted for: the peer is next, if there is one that must hold still."""
        core, session = self._core, transfer.socket.session
        if transfer.taker is not None and (session is None or not session.is_remaking):
            self._take(transfer, transfer.taker, now)
            return
        if transfer.socket.phase in WITHOUT_PEER:
            self._issue_ticket(transfer, now)
            return
        assert session is not None
        if transfer.socket.ended:
            self._fail(transfer, WsaErrno.WSAENETDOWN, "the peer is gone", now)
        elif session.is_remaking and not session.is_peer_suspended:
            transfer.stage = "remaking"
        elif session.is_peer_suspended:
            text = "the peer began to hand the connection over at the same time; try again"
            self._fail(transfer, WsaErrno.WSAENOBUFS, text, now)
        elif transfer.mode != "local" and session.is_suspension_given_up:
            self._fail(transfer, WsaErrno.WSAENOBUFS, STILL_OUT, now)
        elif transfer.mode != "local":
            transfer.stage = "suspending"
            if transfer.mode == "rehome":
                transfer.service_id = self._connections.rehoming.new_service_id(transfer.socket)
            self._reach(transfer, "suspend.before")
            core.report("handoff.suspend", socket=transfer.socket.number, epoch=transfer.epoch)
            deadline_ms = core.config.suspend_deadline // MILLISECOND
            session.suspend(transfer.epoch, deadline_ms, now, service_id=transfer.service_id)
            core.touch(transfer.socket)
            self._reach(transfer, "suspend.after")
        else:
            self._drain(transfer, now)

    def _drain(self, transfer: Transfer, now: Instant) -> None:
        """The provider is asked to duplicate when none of its sends is under way (statement 88)."""
        assert transfer.socket.pump is not None
        transfer.stage, transfer.socket.pump.held = "draining", True
        self.on_settled(transfer.socket, now)

    def on_settled(self, socket: SharedSocket, now: Instant) -> None:
        """Something has happened to the socket; a send may have ended."""
        transfer = self._by_socket.get(socket.number)
        if transfer is not None and transfer.stage == "draining" and socket.pump and not socket.pump.sends_under_way:
            self._issue_ticket(transfer, now)

    def _issue_ticket(self, transfer: Transfer, now: Instant) -> None:
        core, socket = self._core, transfer.socket
        self._reach(transfer, "ticket.before")
        core.registry.drained(transfer.number, now)
        if socket.phase in WITHOUT_PEER:
            transfer.template = SAN_ENTRY.duplicate(core.parking.new_token())
        else:
            self._bring_home(transfer.source, now)
            if socket.pump is None or transfer.source.san is None:
                self._fail(transfer, WsaErrno.WSAENETDOWN, "the connection has ended", now)
                return
            table = transfer.source.owner.table
            try:
                transfer.template = table.WSPDuplicateSocket(transfer.source.san, transfer.target, now)
            except WsaError as error:
                self._fail(transfer, error.wsa, str(error), now)
                return
            socket.pump.detach()
        info = core.registry.record_ticket(transfer.number, transfer.template, now)
        transfer.stage = "ticketed"
        core.report("handoff.ticket", socket=socket.number, target=transfer.target.pid, epoch=transfer.epoch)
        core.emit(events.DuplicateDone(transfer.operation, info.pack(), transfer.epoch))
        self._reach(transfer, "ticket.after")

    def _take(self, transfer: Transfer, taker: Descriptor, now: Instant) -> None:
        """The source's channel is revoked: provider and registry follow, within this instant."""
        core, socket, source = self._core, transfer.socket, transfer.source
        core.registry.drained(transfer.number, now)
        try:
            if socket.phase is SocketPhase.LISTENING:
                self._connections.listeners.move(taker, now)
            elif socket.pump is not None:
                if socket.ended or socket.pump.lost is not None:
                    raise WsaError(WsaErrno.WSAENETDOWN, "the peer is gone")
                bring_home(core, taker, now)
        except WsaError as error:
            self._fail(transfer, error.wsa, str(error), now)
            return
        epoch = core.registry.take(transfer.number, holder_of(taker), now)
        core.report("handoff.take", socket=socket.number, source=source.owner.process.pid, pid=taker.owner.process.pid)
        self._resume(transfer, taker, epoch, now)
        core.registry.resumed(transfer.number, now)

    # ------------------------------------------------------------- the target

    def redeem(self, process: ProcessInstance, info: bytes, now: Instant) -> Descriptor:
        """WSPSocket with a special WSAPROTOCOL_INFOW: control moves to a new descriptor of ``process``.

        WSAEINVAL for a ticket that is not good (and nothing changes), WSAEMFILE or WSAENOBUFS when the process or the
        host has no descriptor left (and the ticket stays good).
        """
        core = self._core
        attached = core.process(process)
        grant = core.registry.check(info, process, now)
        transfer = self._by_socket.get(grant.socket_id)
        assert transfer is not None, "the registry granted a ticket that the switch does not know"
        assert transfer.template is not None
        socket = transfer.socket
        core.require_room(attached)
        descriptor = core.new_descriptor(attached, socket)
        try:
            if socket.phase is SocketPhase.LISTENING:
                self._connections.listeners.move(descriptor, now)
            elif socket.phase not in WITHOUT_PEER:
                assert socket.pump is not None
                with core.creating(socket):
                    descriptor.san = attached.table.WSPSocket(
                        c.FROM_PROTOCOL_INFO,
                        c.FROM_PROTOCOL_INFO,
                        c.FROM_PROTOCOL_INFO,
                        transfer.template,
                        c.WSA_FLAG_OVERLAPPED,
                        now,
                    )
        except WsaError:
            core.drop_descriptor(descriptor)
            raise
        self._reach(transfer, "commit.before")
        epoch = core.registry.commit(grant, holder_of(descriptor), now)
        core.report("handoff.commit", socket=socket.number, pid=process.pid, epoch=epoch)
        self._reach(transfer, "commit.after", process)
        self._reach(transfer, "resume.before", process)
        self._resume(transfer, descriptor, epoch, now, committed=True)
        core.registry.resumed(transfer.number, now)
        self._reach(transfer, "resume.after", process)
        return descriptor

    def _resume(
        self, transfer: Transfer, descriptor: Descriptor, epoch: int, now: Instant, *, committed: bool = False
    ) -> None:
        """Let the stream go on under ``descriptor``, on a new connection if that was asked for.

        When control goes back the old one does, unless the peer is one that cannot be told so.
        """
        core, socket = self._core, transfer.socket
        session, pump = socket.session, socket.pump
        self._end(socket)
        descriptor.has_channel = session is not None and not socket.ended
        if session is None or pump is None:
            core.report("handoff.resume", socket=socket.number, epoch=epoch)
            return
        assert descriptor.san is not None
        anew = committed or (transfer.template is not None and not session.supports_suspension)
        if anew and transfer.service_id and session.is_suspended and pump.lost is None:
            pump.restart(descriptor.owner, descriptor.san)
            self._reach(transfer, "rehome.before", descriptor.owner.process)
            self._connections.rehoming.begin(socket, descriptor.owner, epoch, transfer.service_id, now)
            self._reach(transfer, "rehome.after", descriptor.owner.process)
        elif not pump.attached:
            pump.attach(descriptor.owner, descriptor.san, now)
        if session.is_suspended and transfer.mode != "local":
            session.resume(epoch, now)
        core.report("handoff.resume", socket=socket.number, epoch=epoch)
        core.touch(socket)

    # ------------------------------------------------- what may happen on the way

    def on_session_event(self, socket: SharedSocket, event: object, now: Instant) -> bool:
        """Session events that decide a transfer; true if the event was one."""
        transfer = self._by_socket.get(socket.number)
        if isinstance(event, Remade) and transfer is not None and transfer.stage == "remaking":
            self._go_on(transfer, now)
            return True
        if transfer is None or transfer.stage not in WAITING:
            pump, session = socket.pump, socket.session
            if isinstance(event, Suspended) and pump is not None and pump.owner is not None and session is not None:
                # Given up meanwhile, but this peer knows no other way to go on.
                epoch = self._core.registry.epoch(socket.number)
                self._connections.rehoming.begin(socket, pump.owner, epoch, session.service_id, now)
            return isinstance(event, Suspended | SuspensionLost)
        if isinstance(event, Suspended):
            self._core.report("handoff.suspended", socket=socket.number, epoch=transfer.epoch)
            self._reach(transfer, "suspended.before")
            self._drain(transfer, now)
            self._reach(transfer, "suspended.after")
            return True
        if isinstance(event, SuspensionLost):
            text = "the peer began to hand the connection over at the same time and its initiator wins; try again"
            self._fail(transfer, WsaErrno.WSAENOBUFS, text, now)
            return True
        if isinstance(event, Aborted):
            self._fail(transfer, WsaErrno.WSAENETDOWN, "the peer is gone", now)
        return False

    def on_lost(self, socket: SharedSocket, now: Instant) -> None:
        """The connection went away under a transfer."""
        transfer = self._by_socket.get(socket.number)
        if transfer is not None and transfer.stage in UNTICKETED:
            self._fail(transfer, WsaErrno.WSAENETDOWN, "the peer is gone", now)

    def handle_timeout(self, now: Instant) -> None:
        """Give up on peers that do not answer a suspension."""
        for transfer in list(self._by_socket.values()):
            if transfer.stage in WAITING and now >= transfer.deadline:
                what = "what was sent has not arrived" if transfer.stage == "draining" else "the peer has not answered"
                self._fail(transfer, WsaErrno.WSAENETDOWN, f"{what} in time", now)

    def poll_timeout(self) -> Instant | None:
        """The earliest deadline of a peer's."""
        return min((t.deadline for t in self._by_socket.values() if t.stage in WAITING), default=None)

    def _fail(self, transfer: Transfer, error: WsaErrno, text: str, now: Instant) -> None:
        """WSPDuplicateSocket fails; the registry gives the socket back (``ControlReturned`` follows)."""
        core = self._core
        transfer.stage = "failed"
        core.report("handoff.failed", socket=transfer.socket.number, error=error.name)
        core.emit(events.DuplicateFailed(transfer.operation, error, text))
        core.registry.cancel(transfer.number, now)

    # --------------------------------------------------- what the registry decides

    def on_control_returned(
        self, socket: SharedSocket, descriptor: Descriptor | None, epoch: int, now: Instant
    ) -> None:
        """RETURN: the source's descriptor controls the socket again, with a fresh channel."""
        core = self._core
        transfer = self._end(socket)
        if transfer is not None and transfer.stage in UNTICKETED:
            text = "the target process ended"
            core.emit(events.DuplicateFailed(transfer.operation, WsaErrno.WSAEINVAL, text))
        if descriptor is None or descriptor.closing:
            return
        exited = descriptor.exited  # it is about to be released, and then the socket must be as any other
        if not exited and socket.listening is not None and socket.listening[0] is not descriptor.owner:
            self._take_listener_back(descriptor, now)
        if transfer is not None and socket.pump is not None:
            if not socket.pump.attached and transfer.template is not None and descriptor.san is not None:
                descriptor.owner.provider.reclaim(descriptor.san, transfer.template, now)
            self._resume(transfer, descriptor, epoch, now)
        if not exited:
            self._bring_home(descriptor, now)
        descriptor.has_channel = socket.session is not None and not socket.ended and not exited
        core.report("handoff.return", socket=socket.number, pid=descriptor.owner.process.pid, epoch=epoch)
        if not exited:
            core.emit(events.ControlReturned(descriptor.s))
        core.touch(socket)

    def on_aborted(self, socket: SharedSocket, now: Instant) -> None:
        """ABORT: nobody can have the socket; the peer must see a reset."""
        core = self._core
        transfer = self._end(socket)
        pump = socket.pump
        if pump is not None and not pump.attached and transfer is not None and transfer.template is not None:
            transfer.source.owner.provider.discard(transfer.template, now)
            self._connections.lose(socket, WsaErrno.WSAECONNABORTED, now)
            socket.pump = None
        else:
            self._connections.abort(socket, WsaErrno.WSAECONNABORTED, now)
        core.report("handoff.abort", socket=socket.number)
        if not socket.descriptors:
            self._connections.close_last(socket, False, now)

    def _bring_home(self, descriptor: Descriptor, now: Instant) -> None:
        try:
            bring_home(self._core, descriptor, now)
        except WsaError as error:
            descriptor.socket.pump = None
            self._core.report("handoff.connection_lost", socket=descriptor.socket.number, error=error.name)
            self._connections.lose(descriptor.socket, WsaErrno.WSAECONNABORTED, now)

    def _take_listener_back(self, descriptor: Descriptor, now: Instant) -> None:
        try:
            self._connections.listeners.move(descriptor, now)
        except WsaError as error:
            self._core.report("handoff.listener_lost", socket=descriptor.socket.number, error=error.name)

    def _reach(self, transfer: Transfer, point: str, by: ProcessInstance | None = None) -> None:
        """A fault point of the agent; ``self`` there is the source unless ``by`` says otherwise."""
        faults = self._core.faults
        if faults.armed:
            source = transfer.source.owner.process
            faults.reach(f"handoff.{point}", Parties(by or source, source, transfer.target))

    def _end(self, socket: SharedSocket) -> Transfer | None:
        if socket.pump is not None:
            socket.pump.held = False
        return self._by_socket.pop(socket.number, None)

    def in_transfer(self, socket: SharedSocket) -> bool:
        """Whether no process may use the socket now because it is being handed over."""
        return socket.number in self._by_socket
