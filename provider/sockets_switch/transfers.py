"""Hand-overs: the choreography of WSPDuplicateSocket and of the WSPSocket that redeems it.

The registry decides who controls a socket and holds the one commit record; this file carries its decisions out. One
transfer goes through these stages (SAN steps in brackets):

====================  ===========================================================================================
revoking  [5]         the source's data channel is cut off; what it got accepted goes to the session, what it has
                      not read goes back to the front of the session's receive buffer
suspending [5]        mode ``suspend`` only: SuspComm is out, the peer drains and answers SuspCommAck
ticketed  [5..8]      the provider gave its connection up, the ticket is out; no process may use the socket
resumed   [8]         the target redeemed: commit, receives posted again, Resume to a suspended peer
====================  ===========================================================================================

Every stage has a deadline. Whatever fails before the commit gives the socket back to the source, with a fresh data
channel; the registry says so with ``ControlReturned``.
"""

from dataclasses import dataclass

from fabric.ids import ProcessInstance
from fabric.units import MILLISECOND, Instant
from provider import constants as c
from provider.catalog import SAN_ENTRY
from provider.errors import WsaErrno, WsaError
from provider.handoff import registry as handoff
from provider.protocol_info import WSAPROTOCOL_INFOW
from provider.session.session import Aborted, Suspended, SuspensionLost
from provider.sockets_switch import events
from provider.sockets_switch.connections import Connections
from provider.sockets_switch.listeners import holder_of
from provider.sockets_switch.shared_socket import Descriptor, SharedSocket, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore

MODES = ("suspend", "local")
STILL_OUT = "the peer has not answered an earlier hand-over that was given up; try again"
WITHOUT_PEER = (SocketPhase.CREATED, SocketPhase.BOUND, SocketPhase.LISTENING)
"""Phases in which there is no stream and nobody to hold still: any mode does, and control is all that moves."""


@dataclass(slots=True, eq=False)
class Transfer:
    """One hand-over under way."""

    operation: int
    socket: SharedSocket
    source: Descriptor
    target: ProcessInstance
    number: handoff.TransferId
    mode: str
    epoch: int
    """The epoch that the target will have."""
    deadline: Instant
    stage: str = "revoking"
    taker: Descriptor | None = None
    """A relative of the source that takes control itself, without a ticket and at one instant (``relatives``)."""
    template: WSAPROTOCOL_INFOW | None = None
    """What the provider's WSPDuplicateSocket gave; the ticket is made of it."""


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
        if socket.phase not in WITHOUT_PEER:
            _require_peer(socket, mode)
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
        core.emit(events.RevokeChannel(descriptor.s))
        return transfer.operation

    def on_revoked(self, descriptor: Descriptor, now: Instant) -> None:
        """The source's channel is cut off and accounted for."""
        transfer = self._by_socket.get(descriptor.socket.number)
        if transfer is None or transfer.source is not descriptor or transfer.stage != "revoking":
            return
        core, session = self._core, transfer.socket.session
        if transfer.taker is not None:
            self._take(transfer, transfer.taker, now)
            return
        if transfer.socket.phase in WITHOUT_PEER:
            self._issue_ticket(transfer, now)
            return
        assert session is not None
        if transfer.socket.ended:
            self._fail(transfer, WsaErrno.WSAENETDOWN, "the peer is gone", now)
        elif session.is_peer_suspended:
            text = "the peer began to hand the connection over at the same time; try again"
            self._fail(transfer, WsaErrno.WSAENOBUFS, text, now)
        elif transfer.mode == "suspend" and session.is_suspension_given_up:
            self._fail(transfer, WsaErrno.WSAENOBUFS, STILL_OUT, now)
        elif transfer.mode == "suspend":
            transfer.stage = "suspending"
            core.report("handoff.suspend", socket=transfer.socket.number, epoch=transfer.epoch)
            session.suspend(transfer.epoch, core.config.suspend_deadline // MILLISECOND, now)
            core.touch(transfer.socket)
        else:
            self._issue_ticket(transfer, now)

    def _issue_ticket(self, transfer: Transfer, now: Instant) -> None:
        core, socket, source = self._core, transfer.socket, transfer.source
        core.registry.drained(transfer.number, now)
        if socket.phase in WITHOUT_PEER:
            transfer.template = SAN_ENTRY.duplicate(core.parking.new_token())
        else:
            assert source.san is not None
            assert socket.pump is not None
            try:
                transfer.template = source.owner.table.WSPDuplicateSocket(source.san, transfer.target, now)
            except WsaError as error:
                self._fail(transfer, error.wsa, str(error), now)
                return
            socket.pump.detach()
        info = core.registry.record_ticket(transfer.number, transfer.template, now)
        transfer.stage = "ticketed"
        core.report("handoff.ticket", socket=socket.number, target=transfer.target.pid, epoch=transfer.epoch)
        core.emit(events.DuplicateDone(transfer.operation, info.pack(), transfer.epoch))

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
                self._move_connection(socket, taker, now)
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
        epoch = core.registry.commit(grant, holder_of(descriptor), now)
        core.report("handoff.commit", socket=socket.number, pid=process.pid, epoch=epoch)
        self._resume(transfer, descriptor, epoch, now)
        core.registry.resumed(transfer.number, now)
        return descriptor

    def _resume(self, transfer: Transfer, descriptor: Descriptor, epoch: int, now: Instant) -> None:
        """Let the stream go on under ``descriptor``."""
        core, socket = self._core, transfer.socket
        session, pump = socket.session, socket.pump
        self._by_socket.pop(socket.number, None)
        descriptor.has_channel = session is not None and not socket.ended
        if session is None or pump is None:
            core.report("handoff.resume", socket=socket.number, epoch=epoch)
            return
        assert descriptor.san is not None
        if not pump.attached:
            pump.attach(descriptor.owner.table, descriptor.san, now)
        if transfer.mode == "suspend" and session.is_suspended:
            session.resume(epoch, now)
        core.report("handoff.resume", socket=socket.number, epoch=epoch)
        core.touch(socket)

    # ------------------------------------------------- what may happen on the way

    def on_session_event(self, socket: SharedSocket, event: object, now: Instant) -> bool:
        """Session events that decide a transfer; true if the event was one."""
        transfer = self._by_socket.get(socket.number)
        if transfer is None or transfer.stage != "suspending":
            return isinstance(event, Suspended | SuspensionLost)
        if isinstance(event, Suspended):
            self._core.report("handoff.suspended", socket=socket.number, epoch=transfer.epoch)
            self._issue_ticket(transfer, now)
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
        if transfer is not None and transfer.stage in ("revoking", "suspending"):
            self._fail(transfer, WsaErrno.WSAENETDOWN, "the peer is gone", now)

    def handle_timeout(self, now: Instant) -> None:
        """Give up on peers that do not answer a suspension."""
        for transfer in list(self._by_socket.values()):
            if transfer.stage == "suspending" and now >= transfer.deadline:
                self._fail(transfer, WsaErrno.WSAENETDOWN, "the peer did not answer the suspension in time", now)

    def poll_timeout(self) -> Instant | None:
        """The earliest deadline of a suspension."""
        return min((t.deadline for t in self._by_socket.values() if t.stage == "suspending"), default=None)

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
        transfer = self._by_socket.pop(socket.number, None)
        if transfer is not None and transfer.stage in ("revoking", "suspending"):
            text = "the target process ended"
            core.emit(events.DuplicateFailed(transfer.operation, WsaErrno.WSAEINVAL, text))
        if descriptor is None or descriptor.closing or descriptor.exited:
            return
        if socket.listening is not None and socket.listening[0] is not descriptor.owner:
            self._take_listener_back(descriptor, now)
        if transfer is not None and socket.pump is not None:
            if not socket.pump.attached and transfer.template is not None and descriptor.san is not None:
                descriptor.owner.provider.reclaim(descriptor.san, transfer.template, now)
            self._resume(transfer, descriptor, epoch, now)
        elif transfer is None:
            self._bring_home(descriptor, now)
        descriptor.has_channel = socket.session is not None and not socket.ended
        core.report("handoff.return", socket=socket.number, pid=descriptor.owner.process.pid, epoch=epoch)
        core.emit(events.ControlReturned(descriptor.s))
        core.touch(socket)

    def on_aborted(self, socket: SharedSocket, now: Instant) -> None:
        """ABORT: nobody can have the socket; the peer must see a reset."""
        core = self._core
        transfer = self._by_socket.pop(socket.number, None)
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
        """Control came back after the commit: the provider's connection follows it out of the instance that had it,
        which may be a dead process's; else it could not be handed over again.
        """
        socket, owner = descriptor.socket, descriptor.owner
        pump = socket.pump
        if pump is None or pump.table is None or socket.ended or pump.lost is not None:
            return
        table, san = pump.table, pump.san
        if table is owner.table and san == descriptor.san:
            return
        self._move_connection(socket, descriptor, now)
        table.WSPCloseSocket(san, now)
        for other in socket.descriptors:
            if other.owner.table is table and other.san == san:
                other.san = None

    def _move_connection(self, socket: SharedSocket, to: Descriptor, now: Instant) -> None:
        """From the provider instance that has the connection to that of ``to``, within this instant.

        WSAEMFILE or WSAENOBUFS, and nothing has changed, if the latter has no socket left.
        """
        core, pump, owner = self._core, socket.pump, to.owner
        assert pump is not None
        assert pump.table is not None
        if to.san is None:
            core.companion_socket(to, now)
        assert to.san is not None
        template = pump.table.WSPDuplicateSocket(pump.san, owner.process, now)
        pump.detach()
        owner.provider.reclaim(to.san, template, now)
        pump.attach(owner.table, to.san, now)

    def _take_listener_back(self, descriptor: Descriptor, now: Instant) -> None:
        try:
            self._connections.listeners.move(descriptor, now)
        except WsaError as error:
            self._core.report("handoff.listener_lost", socket=descriptor.socket.number, error=error.name)

    def in_transfer(self, socket: SharedSocket) -> bool:
        """Whether no process may use the socket now because it is being handed over."""
        return socket.number in self._by_socket


def _require_peer(socket: SharedSocket, mode: str) -> None:
    """The documented error unless the connection can be handed over now."""
    connected = socket.phase is SocketPhase.CONNECTED and socket.pump is not None and not socket.ended
    if not connected or socket.session is None:
        raise WsaError(WsaErrno.WSAEINVAL, f"a socket that is {socket.phase.value} cannot be handed over")
    if mode == "suspend" and not socket.session.supports_suspension:
        raise WsaError(WsaErrno.WSAEINVAL, "the peer does not know how to hold still; hand over with mode local")
    if mode == "suspend" and socket.session.is_suspension_given_up:
        raise WsaError(WsaErrno.WSAENOBUFS, STILL_OUT)
    if socket.session.is_peer_suspended:
        raise WsaError(WsaErrno.WSAENOBUFS, "the peer is handing the connection over itself; try again")
