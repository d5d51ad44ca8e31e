"""Connections of the agent half: made, accepted, fed, and ended.

The provider is asked for a SAN socket only when the application connects or listens (statement 27). The session's
Hello travels in the connection request; the answer comes back with the reply.

Ending: the last descriptor's close lets the session deliver what was accepted, then say DisConn. Once both directions
are finished the side that initiated the connection sends DREQ; the other waits for it. Bytes that the application
never read turn a close into an abort, as with TCP (RFC 1122 4.2.2.13).
"""

import re

from fabric.ids import SocketDescriptor
from fabric.units import Instant
from provider import constants as c
from provider.errors import WsaErrno, WsaError
from provider.handoff.fault_points import Parties
from provider.session.session import (
    Aborted,
    Closed,
    Established,
    PeerResumed,
    PeerShutdown,
    PeerSuspended,
    Readable,
    Remade,
    Role,
    Session,
    Writable,
)
from provider.sockets_switch import events
from provider.sockets_switch.listeners import ANY_ADDRESS, Listeners
from provider.sockets_switch.options import ABORTIVE, apply_options
from provider.sockets_switch.rehoming import Rehoming
from provider.sockets_switch.session_pump import SessionPump
from provider.sockets_switch.shared_socket import Descriptor, SharedSocket, SocketPhase
from provider.sockets_switch.switch_core import SwitchCore
from provider.spi import Address, NetworkEvent, ProcTable

EPHEMERAL_FIRST, EPHEMERAL_LAST = 49_152, 65_535
_PEER_POINTS: dict[type, str] = {PeerSuspended: "handoff.peer.suspended", PeerResumed: "handoff.peer.resumed"}
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")


class Connections:
    """See the module text."""

    def __init__(self, core: SwitchCore) -> None:
        self._core = core
        self.listeners = Listeners(core, self)
        self.rehoming = Rehoming(core)
        self._ports: dict[int, SharedSocket] = {}
        """Ports of listeners and bound sockets; connections share the port of their listener."""
        self._next_port = EPHEMERAL_FIRST + core.rng.randrange(EPHEMERAL_LAST - EPHEMERAL_FIRST)

    # ------------------------------------------------------------- set-up

    def bind(self, socket: SharedSocket, name: Address) -> Address:
        """Give the socket an address of this host; port 0 picks one. WSAEADDRINUSE, WSAEADDRNOTAVAIL, WSAEINVAL."""
        core = self._core
        if socket.phase is not SocketPhase.CREATED:
            raise WsaError(WsaErrno.WSAEINVAL, "the socket is bound already")
        ip, port = name
        if ip not in (ANY_ADDRESS, "", core.config.ip) and not ip.startswith("127."):
            raise WsaError(WsaErrno.WSAEADDRNOTAVAIL, f"{ip} is not an address of this host ({core.config.ip})")
        if port in self._ports:
            raise WsaError(WsaErrno.WSAEADDRINUSE, f"port {port} is in use")
        port = port or self._ephemeral_port()
        self._ports[port] = socket
        socket.local = (ANY_ADDRESS if ip in (ANY_ADDRESS, "") else core.config.ip, port)
        socket.phase = SocketPhase.BOUND
        return socket.local

    def connect(self, descriptor: Descriptor, name: Address, now: Instant) -> None:
        """Begin to connect; ``ChannelOpened`` or ``ConnectFailed`` tells the outcome."""
        core, socket = self._core, descriptor.socket
        if not _IPV4.fullmatch(name[0]):
            raise WsaError(WsaErrno.WSAEADDRNOTAVAIL, "the name is no IPv4 address")
        if socket.phase is SocketPhase.CONNECTING:
            raise WsaError(WsaErrno.WSAEALREADY, "a connect is under way")
        if socket.phase is SocketPhase.CONNECTED:
            raise WsaError(WsaErrno.WSAEISCONN, "the socket is connected")
        if socket.phase is SocketPhase.CREATED:
            self.bind(socket, (ANY_ADDRESS, 0))
        if socket.phase is not SocketPhase.BOUND or socket.local is None:
            raise WsaError(WsaErrno.WSAEINVAL, f"a socket that is {socket.phase.value} cannot connect")
        ip = core.config.ip if name[0].startswith("127.") or name[0] == ANY_ADDRESS else name[0]
        if not core.routing.serves(ip):
            raise WsaError(WsaErrno.WSAENETUNREACH, f"{ip} is on no subnet of the SAN; TCP/IP is the way there")
        remote = (ip, name[1])
        local = socket.local = (core.config.ip, socket.local[1])
        session = Session(Role.INITIATOR, core.config.session, local, remote, core.rng.getrandbits(64))
        session.posted(core.config.session.receive_buffers)
        core.companion_socket(descriptor, now)
        assert descriptor.san is not None
        table, san = descriptor.owner.table, descriptor.san
        self.start_session(socket, session)
        assert socket.pump is not None
        socket.pump.attach(descriptor.owner, san, now)
        try:
            table.WSPBind(san, local, now)
            self.replay_options(socket, table, san, now)
            table.WSPEventSelect(san, NetworkEvent.FD_CONNECT, now)
            table.WSPConnect(san, remote, session.hello(now), now)
        except WsaError as error:
            if error.wsa is WsaErrno.WSAEWOULDBLOCK:
                socket.remote = remote
                socket.phase = SocketPhase.CONNECTING
                return
            self._end_session(socket)
            socket.phase = SocketPhase.FAILED
            raise

    # -------------------------------------------------- what the provider signals

    def on_signal(self, socket: SharedSocket, now: Instant) -> None:
        """SetEvent by the provider: fetch the network events of the companion socket."""
        if socket.listening is not None:
            self.listeners.on_signal(socket, now)
            return
        pump, session = socket.pump, socket.session
        if pump is None or pump.table is None or session is None:
            return
        found = pump.table.WSPEnumNetworkEvents(pump.san, now)
        if found.events & NetworkEvent.FD_CONNECT:
            error = found.errors[NetworkEvent.FD_CONNECT]
            if session.is_remaking:
                self.rehoming.on_connect_result(socket, error, found.callee_data, now)
            else:
                connecting = next((d for d in socket.descriptors if d.san == pump.san and d.owner is pump.owner), None)
                if connecting is not None:
                    self._on_connect_result(connecting, error, found.callee_data, now)

    def _on_connect_result(self, descriptor: Descriptor, error: int, callee_data: bytes, now: Instant) -> None:
        core, socket = self._core, descriptor.socket
        session = socket.session
        if socket.phase is not SocketPhase.CONNECTING or session is None or socket.pump is None:
            return
        assert descriptor.san is not None
        if not error and not session.handle_hello_ack(callee_data, now):
            error = WsaErrno.WSAECONNREFUSED  # it speaks another session protocol
        if error:
            # Nobody listens is WSAECONNRESET at the SPI; an application knows it as a refusal, as from TCP.
            refused = error in (WsaErrno.WSAECONNRESET, WsaErrno.WSAECONNREFUSED)
            socket.error = WsaErrno.WSAECONNREFUSED if refused else WsaErrno(error)
            socket.phase = SocketPhase.FAILED
            socket.ended = True
            self._end_session(socket)
            core.emit(events.ConnectFailed(descriptor.s, socket.error))
            core.report("connect.failed", s=descriptor.s, error=socket.error.name)
            return
        socket.phase = SocketPhase.CONNECTED
        socket.pump.post(core.config.session.receive_buffers, now)
        descriptor.has_channel = True
        core.emit(events.ChannelOpened(descriptor.s))
        core.report("connect.established", s=descriptor.s, socket=socket.number, peer=list(socket.remote or ()))
        core.touch(socket)

    # ------------------------------------------------------- while it is connected

    def on_session_event(self, socket: SharedSocket, event: object, now: Instant) -> None:
        """Session events that have to do with the stream; hand-overs are the transfers' business."""
        core = self._core
        controlling = core.controlling(socket)
        point = _PEER_POINTS.get(type(event)) if core.faults.armed else None
        if point is not None:
            by = Parties(controlling.owner.process if controlling is not None else None)
            core.faults.reach(f"{point}.before", by)
            self._on_session_event(socket, event, controlling, now)
            core.faults.reach(f"{point}.after", by)
        else:
            self._on_session_event(socket, event, controlling, now)

    def _on_session_event(
        self, socket: SharedSocket, event: object, controlling: Descriptor | None, now: Instant
    ) -> None:
        core = self._core
        s = controlling.s if controlling is not None and controlling.has_channel else None
        if isinstance(event, Readable):
            if s is not None:
                core.emit(events.Readable(s))
            elif socket.phase is SocketPhase.CLOSING:
                self.abort(socket, WsaErrno.WSAECONNRESET, now)  # data for nobody, as TCP answers with RST
        elif isinstance(event, Writable):
            if s is not None:
                core.emit(events.Writable(s))
        elif isinstance(event, PeerShutdown):
            if s is not None:
                core.emit(events.PeerFinished(s))
        elif isinstance(event, Aborted):
            self.lose(socket, event.reason, now)
        elif isinstance(event, Closed):
            core.report("session.closed", socket=socket.number)
        elif isinstance(event, PeerSuspended):
            if event.service_id:
                self.rehoming.expect(socket, event.service_id, now)
            core.report(
                "session.suspended_by_peer", socket=socket.number, epoch=event.epoch, rehome=event.service_id != 0
            )
        elif isinstance(event, PeerResumed):
            self.rehoming.stop_expecting(socket, now)
            core.report("session.resumed_by_peer", socket=socket.number, epoch=event.epoch)
        else:
            assert isinstance(event, Established | Remade), event

    def lose(self, socket: SharedSocket, error: WsaErrno, now: Instant) -> None:
        """The connection ended without our asking: tell whoever controls it, once."""
        core = self._core
        if socket.ended:
            return
        socket.ended = True
        socket.error = error
        core.report("connection.lost", socket=socket.number, error=error.name)
        if socket.phase is SocketPhase.CONNECTED:
            socket.phase = SocketPhase.FAILED
        for descriptor in socket.descriptors:
            if descriptor.has_channel:
                core.emit(events.ChannelReset(descriptor.s, error))

    def abort(self, socket: SharedSocket, error: WsaErrno, now: Instant) -> None:
        """End the connection at once: the peer sees a reset."""
        session = socket.session
        if session is not None and not socket.ended:
            self.lose(socket, error, now)
            session.abort(now)
            self._core.touch(socket)

    def cut(self, socket: SharedSocket, error: WsaErrno, now: Instant) -> None:
        """End the connection without a word of the session's: the peer hears its DREQ, and takes it for a reset."""
        self.lose(socket, error, now)
        self._release(socket, now)

    # ---------------------------------------------------------------------- end

    def close_last(self, socket: SharedSocket, unread: bool, now: Instant) -> None:
        """No descriptor is left: deliver what was accepted, then finish; or abort if bytes were left unread."""
        core = self._core
        if socket.phase is SocketPhase.LISTENING:
            self.listeners.close(socket, now)
            return
        self.free_port(socket)
        if socket.session is None:
            core.forget(socket)
            return
        failed = socket.phase is SocketPhase.FAILED
        socket.phase = SocketPhase.CLOSING
        lingers = core.linger(socket, now)
        if socket.ended or failed or socket.pump is None:  # no pump: both sides had finished and the QP is gone
            self._release(socket, now)
        elif not lingers:
            self.cut(socket, WsaErrno.WSAECONNABORTED, now)
        elif unread or socket.session.unread or socket.options.get((c.SOL_SOCKET, c.SO_LINGER)) == ABORTIVE:
            self.abort(socket, WsaErrno.WSAECONNABORTED, now)
        else:
            socket.session.close(now)
        core.touch(socket)

    def settle_end(self, socket: SharedSocket, now: Instant) -> None:
        """After a flush: if the connection has nothing more to say, take it down."""
        session, pump = socket.session, socket.pump
        if session is None or socket.phase is SocketPhase.CONNECTING:
            return
        if pump is None:
            if socket.phase is SocketPhase.CLOSING:
                self._release(socket, now)  # it was taken down before its last reference went
            return
        if pump.lost is not None:
            over = True
        elif socket.ended:
            over = pump.sends_under_way == 0  # the AbortConn has been acknowledged
        else:
            over = session.is_closed and pump.sends_under_way == 0 and session.role is Role.INITIATOR
        if over or (socket.linger_until is not None and now >= socket.linger_until):
            self._release(socket, now)

    def _release(self, socket: SharedSocket, now: Instant) -> None:
        """Close the companion socket; the shared socket goes when no descriptor is left."""
        core = self._core
        self._end_session(socket)
        socket.linger_until = None
        if not socket.descriptors:
            core.forget(socket)

    # ------------------------------------------------------------------ private

    def start_session(self, socket: SharedSocket, session: Session) -> None:
        socket.session = session
        apply_options(socket.options, session)
        socket.pump = SessionPump(session, self._core.config.session.receive_size)

    def _end_session(self, socket: SharedSocket) -> None:
        """Close the companion socket; what the session received stays readable while descriptors are left."""
        pump, socket.pump = socket.pump, None
        if pump is not None:
            table = pump.table
            pump.release(self._core.now)
            for descriptor in socket.descriptors:
                if descriptor.san == pump.san and descriptor.owner.table is table:
                    descriptor.san = None

    def replay_options(self, socket: SharedSocket, table: ProcTable, san: SocketDescriptor, now: Instant) -> None:
        """Options that the application set earlier and that the provider knows (statement 31)."""
        for (level, name), value in socket.options.items():
            if (level, name) == (c.SOL_SOCKET, c.SO_DEBUG):
                table.WSPSetSockOpt(san, level, name, value, now)

    def _ephemeral_port(self) -> int:
        span = EPHEMERAL_LAST - EPHEMERAL_FIRST + 1
        for _ in range(span):
            self._next_port += 1
            port = EPHEMERAL_FIRST + self._next_port % span
            if port not in self._ports:
                return port
        raise WsaError(WsaErrno.WSAENOBUFS, "every ephemeral port is in use")

    def free_port(self, socket: SharedSocket) -> None:
        if socket.local is not None and self._ports.get(socket.local[1]) is socket:
            del self._ports[socket.local[1]]
