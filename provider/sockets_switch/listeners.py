"""Listeners of the agent half, what waits at them, and their way from one process to another.

A connection request is accepted as soon as it comes, so that a peer's connect succeeds before the application here
calls accept, as with TCP; what the application has not accepted yet waits in the listener's queue, whose bound is the
backlog. When a listener is handed over, the queue goes along: the provider's socket of every waiting connection moves
to the target's provider as in a hand-over, but within one instant, since no application has touched it. Until the
ticket is redeemed the source's provider goes on accepting, also when the source has closed its descriptor or is dead.
"""

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from fabric.units import Instant
from provider.errors import WsaErrno, WsaError
from provider.handoff.registry import Holder
from provider.session.session import Role, Session
from provider.sockets_switch import events
from provider.sockets_switch.companions import move_companion
from provider.sockets_switch.shared_socket import AttachedProcess, Descriptor, SharedSocket, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore
from provider.spi import CallerId, ConditionDecision, ConditionResult, NetworkEvent

if TYPE_CHECKING:
    from provider.sockets_switch.connections import Connections

BACKLOG_MAX = 1024
ANY_ADDRESS = "0.0.0.0"


def holder_of(descriptor: Descriptor) -> Holder:
    """The registry's name for a descriptor."""
    return Holder(descriptor.owner.process, descriptor.s)  # type: ignore[arg-type]


class Listeners:
    """See the module text."""

    def __init__(self, core: SwitchCore, connections: "Connections") -> None:
        self._core = core
        self._connections = connections

    def listen(self, descriptor: Descriptor, backlog: int, now: Instant) -> None:
        """Begin to accept connections; calling it again changes the backlog."""
        core, socket = self._core, descriptor.socket
        backlog = max(1, min(backlog, BACKLOG_MAX))
        if socket.phase is SocketPhase.LISTENING:
            socket.backlog = backlog
            return
        if socket.phase is SocketPhase.CREATED:
            self._connections.bind(socket, (ANY_ADDRESS, 0))
        if socket.phase is not SocketPhase.BOUND or socket.local is None:
            raise WsaError(WsaErrno.WSAEISCONN, "the socket is connected or was")
        socket.backlog = backlog
        if core.routing.is_installed:
            self._begin_to_listen(descriptor, now)
        socket.phase = SocketPhase.LISTENING

    def provider_installed(self, now: Instant) -> None:
        """The SAN provider has come into use: it listens for every wildcard listener that exists (statement 12)."""
        for socket in list(self._core.sockets.values()):
            controlling = self._core.controlling(socket)
            waits = socket.phase is SocketPhase.LISTENING and socket.listening is None
            if waits and controlling is not None and socket.local is not None and socket.local[0] == ANY_ADDRESS:
                self._begin_to_listen(controlling, now)

    def move(self, descriptor: Descriptor, now: Instant) -> None:
        """Control of a listener is with ``descriptor``: its process's provider accepts from now on, and has what waits.

        WSAEMFILE or WSAENOBUFS, and nothing has changed, if that provider has no socket left.
        """
        core, socket = self._core, descriptor.socket
        if not core.routing.is_installed:
            return
        core.companion_socket(descriptor, now)
        self._accept_requests(socket, now)  # those that wait at the old one
        self._end_listening(socket, now)
        self._listen_with_companion(descriptor, now)
        for child in socket.queue:
            self._move_waiting(child, descriptor.owner, now)

    def _begin_to_listen(self, descriptor: Descriptor, now: Instant) -> None:
        """Make the companion socket; whatever fails leaves none behind."""
        self._core.companion_socket(descriptor, now)
        self._listen_with_companion(descriptor, now)

    def _listen_with_companion(self, descriptor: Descriptor, now: Instant) -> None:
        socket, table, san = descriptor.socket, descriptor.owner.table, descriptor.san
        assert san is not None
        assert socket.local is not None
        descriptor.san = None
        try:
            table.WSPBind(san, socket.local, now)
            self._connections.replay_options(descriptor.socket, table, san, now)
            table.WSPListen(san, socket.backlog, now)
            table.WSPEventSelect(san, NetworkEvent.FD_ACCEPT, now)
        except WsaError:
            table.WSPCloseSocket(san, now)
            raise
        socket.listening = (descriptor.owner, san)

    def _end_listening(self, socket: SharedSocket, now: Instant) -> None:
        if socket.listening is not None:
            owner, san = socket.listening
            socket.listening = None
            owner.table.WSPCloseSocket(san, now)

    def _move_waiting(self, child: SharedSocket, owner: AttachedProcess, now: Instant) -> None:
        """A connection that nobody has accepted: its provider's socket moves as in a hand-over, within one instant."""
        core, waiting, pump = self._core, child.descriptors[0], child.pump
        source, waiting.owner = waiting.owner, owner
        source.waiting -= 1
        owner.waiting += 1
        if waiting.san is None or pump is None or not pump.attached:
            return
        if child.ended or pump.lost is not None:
            return  # it has ended where it is; the application will hear that from its descriptor
        if pump.session.is_remaking:
            waiting.san = None  # it stays where it is until it has its new connection
            return
        try:
            waiting.san = move_companion(core, child, owner, now)
        except WsaError:
            waiting.san, child.pump = None, None
            self._connections.lose(child, WsaErrno.WSAECONNABORTED, now)
            return
        core.touch(child)

    def accept(self, descriptor: Descriptor, now: Instant) -> Descriptor:
        """Give the oldest waiting connection a descriptor. WSAEWOULDBLOCK when none waits."""
        core, listener = self._core, descriptor.socket
        if listener.phase is not SocketPhase.LISTENING:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is not listening")
        while listener.queue:
            socket = listener.queue[0]
            if socket.descriptors[0].owner is not descriptor.owner:
                self._move_waiting(socket, descriptor.owner, now)  # a relative of the listener's owner is quicker
            listener.queue.popleft()
            self._leave_queue(socket)  # its room is the new descriptor's: accepting never meets a quota
            accepted = core.new_descriptor(descriptor.owner, socket)
            accepted.san = socket.descriptors[0].san
            core.drop_descriptor(socket.descriptors[0])
            core.registry.open(socket.number, holder_of(accepted), now)
            accepted.has_channel = not socket.ended
            if socket.session is not None and socket.session.unread:
                core.emit(events.Readable(accepted.s))
            core.touch(socket)
            return accepted
        raise WsaError(WsaErrno.WSAEWOULDBLOCK, "no connection waits")

    def _leave_queue(self, child: SharedSocket) -> None:
        child.descriptors[0].owner.waiting -= 1

    def _accept_requests(self, listener: SharedSocket, now: Instant) -> None:
        core = self._core
        if listener.listening is None:
            return
        owner, listening = listener.listening
        controlling = core.controlling(listener)

        def condition(caller: CallerId) -> ConditionDecision:
            rejected = ConditionDecision(ConditionResult.CF_REJECT)
            if len(listener.queue) >= listener.backlog or listener.local is None:
                return rejected
            try:
                core.require_room(owner)
            except WsaError:
                return rejected
            session = Session(Role.ACCEPTOR, core.config.session, (core.config.ip, listener.local[1]), caller.caller)
            session.posted(core.config.session.receive_buffers)
            if not session.handle_hello(caller.caller_data, now):
                return rejected
            made.append(session)
            return ConditionDecision(ConditionResult.CF_ACCEPT, session.hello_ack(now))

        while True:
            made: list[Session] = []
            child = core.new_socket()
            try:
                with core.creating(child):
                    san, _caller = owner.table.WSPAccept(listening, condition, now)
            except WsaError as error:
                core.forget(child)
                if error.wsa is WsaErrno.WSAEWOULDBLOCK:
                    return
                core.report("accept.rejected", socket=listener.number, error=error.name)
                continue
            (session,) = made
            child.options = dict(listener.options)
            self._connections.start_session(child, session)
            assert child.pump is not None
            child.phase = SocketPhase.CONNECTED
            child.local, child.remote = session.local, session.remote
            waiting = core.new_descriptor(owner, child)  # the queue's own, until the application accepts
            waiting.san = san
            owner.descriptors.pop(waiting.s)
            owner.waiting += 1
            listener.queue.append(child)
            child.pump.attach(owner, san, now)
            child.pump.post(core.config.session.receive_buffers, now)
            core.touch(child)
            if controlling is not None:
                core.emit(events.ConnectionWaiting(controlling.s))
            core.report("accept.waiting", listener=listener.number, socket=child.number, peer=list(child.remote))

    def close(self, socket: SharedSocket, now: Instant) -> None:
        """A listener ends: connections that nobody accepted are reset."""
        self._end_listening(socket, now)
        self._connections.free_port(socket)
        waiting, socket.queue = socket.queue, deque()
        self._core.forget(socket)
        self._core.spread((partial(self._reset_waiting, child) for child in waiting), now)

    def _reset_waiting(self, child: SharedSocket, now: Instant) -> None:
        self._leave_queue(child)
        self._core.drop_descriptor(child.descriptors[0])
        child.phase = SocketPhase.CLOSING
        if self._core.linger(child, now):
            self._connections.abort(child, WsaErrno.WSAECONNRESET, now)
        else:
            self._connections.cut(child, WsaErrno.WSAECONNRESET, now)
        self._core.touch(child)

    def on_signal(self, socket: SharedSocket, now: Instant) -> None:
        """SetEvent by the provider of a listener."""
        if socket.listening is not None:
            owner, san = socket.listening
            if owner.table.WSPEnumNetworkEvents(san, now).events & NetworkEvent.FD_ACCEPT:
                self._accept_requests(socket, now)
