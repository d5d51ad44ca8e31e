"""Mode ``rehome``: the connection of a socket is made anew for the process that takes it over.

==================  =================================================  ==============================================
who                 wire                                               here
==================  =================================================  ==============================================
source              SuspComm (service id)                              as in mode ``suspend``, by the transfers
peer                                                                   ``expect``: its provider listens at the service
peer                SuspCommAck
target, at commit   DREQ on the old connection, REQ to the service     ``begin``: the session's Hello names the last
                    (either may overtake the other, or be lost)        messages of the old connection
peer                DREP; REP                                          ``_on_request``: the session compares, answers
target              RTU                                                ``on_connect_result``: the session compares
==================  =================================================  ==============================================

Until the DREQ is sent the old connection is whole and control can go back to the source. Then the connection manager
bounds every wait; what fails is a lost connection.
"""

from fabric.units import Instant
from fabric.wire.cm import sdp_service_id
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch.shared_socket import AttachedProcess, SharedSocket
from provider.sockets_switch.switch_core import SwitchCore
from provider.spi import NetworkEvent


class Rehoming:
    """See the module text."""

    def __init__(self, core: SwitchCore) -> None:
        self._core = core

    def new_service_id(self, socket: SharedSocket) -> int:
        """64 bits that nobody guesses; the low ones are those of a socket's port, so that decoders see SDP."""
        assert socket.remote is not None
        return self._core.rng.getrandbits(40) << 24 | sdp_service_id(socket.remote[1])

    # ------------------------------------------------- the end that hands over

    def begin(self, socket: SharedSocket, owner: AttachedProcess, epoch: int, service_id: int, now: Instant) -> None:
        """Take the connection down that ``owner``'s provider has adopted, and ask for a new one."""
        core, session, pump = self._core, socket.session, socket.pump
        assert session is not None
        assert pump is not None
        pump.restart(owner, pump.san)
        hello = session.remake(epoch, now)
        core.report("handoff.rehome", socket=socket.number, epoch=epoch)
        owner.table.WSPEventSelect(pump.san, NetworkEvent.FD_CONNECT, now)
        try:
            owner.provider.remake(pump.san, service_id, hello, now)
        except WsaError as error:
            pump.lost = error.wsa
        core.touch(socket)

    def on_connect_result(self, socket: SharedSocket, error: int, callee_data: bytes, now: Instant) -> None:
        """The new connection is up, or never will be."""
        core, session, pump = self._core, socket.session, socket.pump
        assert session is not None
        assert pump is not None
        core.touch(socket)
        if error:
            pump.lost = WsaErrno.WSAECONNRESET
        elif session.handle_remake_ack(callee_data, now):
            pump.post(session.receives_outstanding, now)
            core.report("handoff.rehomed", socket=socket.number)

    # ------------------------------------------------------------------ the peer

    def expect(self, socket: SharedSocket, service_id: int, now: Instant) -> None:
        """The peer is going to make the connection anew at this service."""
        core, session, pump = self._core, socket.session, socket.pump
        assert session is not None
        if pump is None or pump.owner is None or pump.table is None:
            return
        try:
            pump.owner.provider.expect_remake(
                pump.san,
                service_id,
                lambda now: self._on_request(socket, now),
                now,
                says_so=session.supports_suspension,
            )
        except WsaError as error:
            core.report("session.suspension_refused", socket=socket.number, error=error.name)
            session.refuse_suspension(now)
            core.touch(socket)

    def stop_expecting(self, socket: SharedSocket, now: Instant) -> None:
        """The connection stays, or is there anew."""
        pump = socket.pump
        if pump is not None and pump.owner is not None and pump.table is not None:
            pump.owner.provider.stop_expecting(pump.san, now)

    def _on_request(self, socket: SharedSocket, now: Instant) -> None:
        """Somebody asks at the service: the peer, or one who shall not have it."""
        core, session, pump = self._core, socket.session, socket.pump
        if session is None or pump is None or pump.owner is None or socket.remote is None:
            return
        provider = pump.owner.provider
        while (request := provider.next_remake(pump.san)) is not None:
            is_peer = ".".join(map(str, request.remote_ip)) == socket.remote[0]
            answer = session.handle_remake(request.caller_data, now) if is_peer else None
            core.touch(socket)
            if answer is None:
                provider.refuse_remake(request, now)
                continue
            pump.restart(pump.owner, pump.san)
            provider.accept_remake(pump.san, request, answer, now)
            pump.post(session.receives_outstanding, now)
            core.report("session.rehomed_by_peer", socket=socket.number)
