"""The connection manager of a host, as an engine over management datagrams (InfiniBand Architecture 1, chapter 12).

It knows neither queue pairs nor frames: the consumer carries datagrams to and from queue pair 1, and brings queue pairs
up with what the messages say. "Starting PSN", in REQ and in REP, is the one that its author expects to *receive*:
the active side sends from ``reply.starting_psn`` and expects the number it gave to ``connect``.

A life, seen by the consumers (time goes down)::

    active                                        passive
                                                  listen
    connect  -> comm id
                                                  RequestReceived
                                                  accept (or reject, or mra to gain time)
    ReplyReceived
    ready (or reject)
                                                  Established
    disconnect
                                                  Disconnected(by_peer=True)
                                                  disconnect
    Disconnected(by_peer=False)
    TimewaitEnded                                 TimewaitEnded

A connection that was begun ends with at most one of Rejected, ConnectFailed and Disconnected (none if the consumer
ended the set-up itself), and always with TimewaitEnded. The table of states is in ``fabric.cm.states``.
"""

from fabric.cm.config import CmConfig, InvalidParameter, mtu_code, timeout_of
from fabric.cm.connection import Connection, Refusal, timewait_of, withdrawal
from fabric.cm.core import Core
from fabric.cm.events import (
    CmEvent,
    CmStatistics,
    ConnectFailed,
    Datagram,
    Disconnected,
    Established,
    Rejected,
    ReplyReceived,
    RequestReceived,
    TimewaitEnded,
)
from fabric.cm.inbound import RELIABLE_CONNECTION, Inbound
from fabric.cm.states import Move, Role, State, commanded, following
from fabric.errors import IllegalTransition
from fabric.ids import CommId
from fabric.rng import Stream
from fabric.units import Instant
from fabric.wire.cm import ConnectReply, ConnectRequest, ReadyToUse, RejectReason, decode_mad
from fabric.wire.headers import MalformedFrame

__all__ = [
    "CmConfig",
    "CmEvent",
    "CmStatistics",
    "ConnectFailed",
    "ConnectionManager",
    "Datagram",
    "Disconnected",
    "Established",
    "InvalidParameter",
    "Rejected",
    "ReplyReceived",
    "RequestReceived",
    "TimewaitEnded",
]

_SETTING_UP = (State.REQ_SENT, State.MRA_REQ_RCVD)
_PRIVATE_DATA = {"REQ": 92, "MRA": 222, "REJ": 148, "REP": 196, "RTU": 224, "DREQ": 220, "DREP": 224}
"""Bytes of private data that each message carries (12.6)."""


class ConnectionManager:
    """See the module text. Input: ``handle_mad``, ``handle_timeout``, then the commands; output: ``poll_*``.

    ``guid`` is the 64-bit CA GUID of this host, ``rng`` its stream for unpredictable ids. Commands raise
    ``IllegalTransition`` if the connection is not (or no longer) in a state that allows them, and ``InvalidParameter``.
    """

    def __init__(self, *, guid: int, rng: Stream, config: CmConfig | None = None) -> None:
        self.config = config or CmConfig()
        self._core = Core(guid, rng, self.config)
        self._inbound = Inbound(self._core)

    # --------------------------------------------------------------- input

    def handle_mad(self, source_ip: bytes, mad: bytes, now: Instant) -> None:
        """A management datagram from ``source_ip`` (4 or 16 bytes). Anything malformed is dropped and counted."""
        try:
            message = decode_mad(mad)
        except MalformedFrame:
            self._core.drop("malformed")
            return
        self._inbound.handle(source_ip, message, now)

    def handle_timeout(self, now: Instant) -> None:
        """All overdue repetitions, surrenders and ends of timewait."""
        while (comm_id := self._core.deadlines.pop_due(now)) is not None:
            self._on_deadline(self._core.connections[comm_id], now)

    # ------------------------------------------------------------ commands

    def listen(self, service_id: int) -> None:
        """Take requests for a 64-bit service id; IllegalTransition if it is taken already."""
        if service_id in self._core.listeners:
            raise IllegalTransition(f"service {service_id:#x}", "LISTENING", "listen", Role.PASSIVE.value)
        self._core.listeners[service_id] = None

    def unlisten(self, service_id: int) -> None:
        """Refuse further requests for the service; those already reported stay the consumer's to decide."""
        self._core.listeners.pop(service_id, None)

    def connect(
        self,
        remote_ip: bytes,
        service_id: int,
        *,
        local_ip: bytes,
        local_qpn: int,
        starting_psn: int,
        now: Instant,
        path_mtu: int = 1024,
        private_data: bytes = b"",
        retry_count: int = 7,
        rnr_retry: int = 7,
        ack_timeout: int = 14,
        responder_resources: int = 0,
        initiator_depth: int = 0,
    ) -> CommId:
        """Send a REQ: ask for a reliable connection between ``local_qpn`` and a queue pair of the peer's choice.

        ``starting_psn`` is the one that we expect from the peer. ``path_mtu`` is in bytes; ``ack_timeout`` is the
        code of the local ACK timeout, the counts are 3-bit numbers. Addresses have 4 or 16 bytes.
        """
        _check_private_data("REQ", private_data)
        core, config = self._core, self.config
        response_timeout = timeout_of(config.response_timeout)
        connection = Connection(
            comm_id=core.new_comm_id(),
            role=Role.ACTIVE,
            state=State.REQ_SENT,
            remote_ip=remote_ip,
            service_id=service_id,
            transaction_id=core.new_transaction_id(),
            local_qpn=local_qpn,
            response_timeout=response_timeout,
            max_retries=config.max_retries,
            timewait=timewait_of(config, ack_timeout, response_timeout),
        )
        request = ConnectRequest(
            transaction_id=connection.transaction_id,
            local_comm_id=connection.comm_id,
            service_id=service_id,
            local_ca_guid=core.guid,
            local_qpn=local_qpn,
            responder_resources=responder_resources,
            initiator_depth=initiator_depth,
            remote_cm_response_timeout=config.response_timeout,
            transport_type=RELIABLE_CONNECTION,
            starting_psn=starting_psn,
            local_cm_response_timeout=config.response_timeout,
            retry_count=retry_count,
            path_mtu=mtu_code(path_mtu),
            rnr_retry=rnr_retry,
            max_cm_retries=config.max_retries,
            primary_local_gid=_gid(local_ip),
            primary_remote_gid=_gid(remote_ip),
            local_ack_timeout=ack_timeout,
            private_data=private_data,
        )
        core.add(connection)
        core.send_timed(connection, request, now)
        return connection.comm_id

    def accept(
        self,
        comm_id: CommId,
        *,
        local_qpn: int,
        starting_psn: int,
        now: Instant,
        private_data: bytes = b"",
        rnr_retry: int = 7,
        responder_resources: int = 0,
        initiator_depth: int = 0,
    ) -> None:
        """Answer RequestReceived with a REP. ``starting_psn`` is the one that ``local_qpn`` expects to receive."""
        _check_private_data("REP", private_data)
        connection, target = self._command(comm_id, Move.ACCEPT)
        connection.local_qpn = local_qpn
        reply = ConnectReply(
            transaction_id=connection.transaction_id,
            local_comm_id=comm_id,
            remote_comm_id=connection.remote_comm_id or 0,
            local_qpn=local_qpn,
            starting_psn=starting_psn,
            responder_resources=responder_resources,
            initiator_depth=initiator_depth,
            target_ack_delay=self.config.target_ack_delay,
            rnr_retry=rnr_retry,
            local_ca_guid=self._core.guid,
            private_data=private_data,
        )
        self._core.move(connection, target, now)
        self._core.send_timed(connection, reply, now)

    def ready(self, comm_id: CommId, now: Instant, private_data: bytes = b"") -> None:
        """Answer ReplyReceived with an RTU: the queue pair is up, the connection established."""
        _check_private_data("RTU", private_data)
        connection, target = self._command(comm_id, Move.READY)
        self._core.move(connection, target, now)
        ready = ReadyToUse(
            transaction_id=connection.transaction_id,
            local_comm_id=comm_id,
            remote_comm_id=connection.remote_comm_id or 0,
            private_data=private_data,
        )
        self._core.send_remembered(connection, ready)

    def mra(self, comm_id: CommId, now: Instant, service_timeout: int = 20, private_data: bytes = b"") -> None:
        """Tell the peer that deciding takes up to the time of that code (20: 4.3 s), as often as needed (MRA)."""
        _check_private_data("MRA", private_data)
        connection, target = self._command(comm_id, Move.MRA)
        receipt = connection.message_receipt(service_timeout, private_data)
        self._core.move(connection, target, now)
        self._core.send_remembered(connection, receipt)
        self._core.deadlines.set(comm_id, now + timeout_of(service_timeout) + connection.patience)

    def reject(
        self,
        comm_id: CommId,
        reason: int = RejectReason.CONSUMER_DEFINED,
        private_data: bytes = b"",
        *,
        now: Instant,
        additional: bytes = b"",
    ) -> None:
        """Answer RequestReceived or ReplyReceived with a REJ."""
        _check_private_data("REJ", private_data)
        connection, target = self._command(comm_id, Move.REJECT)
        self._refuse(connection, target, Refusal(connection.refused_message(), reason, additional, private_data), now)

    def disconnect(self, comm_id: CommId, now: Instant, private_data: bytes = b"") -> None:
        """End a connection, whatever its state: DREQ, or DREP where the peer asked, or REJ while it is being set up.

        Harmless if it was ended already; ``private_data`` travels with DREQ and DREP only.
        """
        _check_private_data("DREQ", private_data)
        core = self._core
        connection = core.connections.get(comm_id)
        if connection is None or connection.state in (State.DREQ_SENT, State.TIMEWAIT):
            return
        before, target = connection.state, commanded(connection.state, Move.DISCONNECT, connection.role)
        if target is State.DREQ_SENT:
            core.move(connection, target, now)
            core.send_disconnect(connection, private_data, now)
        elif before is State.DREQ_RCVD:
            self._answer_disconnect(connection, target, private_data, now)
        elif before in _SETTING_UP:
            self._refuse(connection, target, withdrawal(core.guid), now)
        else:
            refusal = Refusal(connection.refused_message(), RejectReason.CONSUMER_DEFINED)
            self._refuse(connection, target, refusal, now)

    def abandon(self, comm_id: CommId, now: Instant) -> None:
        """Give up a connection that is being set up; the same as :meth:`disconnect`."""
        self.disconnect(comm_id, now)

    def comm_established(self, comm_id: CommId, now: Instant) -> None:
        """The queue pair's hint that data arrived: where an RTU is waited for, it stands for the RTU (12.9.6)."""
        connection = self._core.connections.get(comm_id)
        if connection is None:
            return
        target = following(connection.state, Move.DATA_ARRIVED)
        if target is not None:
            self._core.move(connection, target, now)
            self._core.events.append(Established(comm_id))

    # -------------------------------------------------------------- output

    def poll_transmit(self, now: Instant) -> Datagram | None:
        """The next datagram to carry away."""
        return self._core.outbox.popleft() if self._core.outbox else None

    def poll_event(self) -> CmEvent | None:
        """The next event for the consumer."""
        return self._core.events.popleft() if self._core.events else None

    def poll_timeout(self) -> Instant | None:
        """When ``handle_timeout`` is wanted next."""
        return self._core.deadlines.first()

    def statistics(self) -> CmStatistics:
        """A frozen snapshot."""
        return self._core.statistics()

    # ------------------------------------------------------------- private

    def _command(self, comm_id: CommId, move: Move) -> tuple[Connection, State]:
        connection = self._core.connections.get(comm_id)
        if connection is None:
            raise IllegalTransition(f"connection {comm_id:#010x}", State.CLOSED.value, move.value, "unknown")
        return connection, commanded(connection.state, move, connection.role)

    def _refuse(self, connection: Connection, target: State, refusal: Refusal, now: Instant) -> None:
        """End the set-up with a REJ, which is kept for when the peer asks again."""
        message = connection.reject(refusal)
        connection.refusal = refusal
        connection.is_told = True  # by itself, unless a timer brought us here and told it already
        self._core.move(connection, target, now)
        self._core.send(connection.remote_ip, message)

    def _answer_disconnect(self, connection: Connection, target: State, private_data: bytes, now: Instant) -> None:
        request = connection.disconnect_to_answer
        assert request is not None
        connection.disconnect_to_answer = None
        self._core.move(connection, target, now)
        self._core.answer_disconnect(connection.remote_ip, request, private_data)

    def _on_deadline(self, connection: Connection, now: Instant) -> None:
        core, state = self._core, connection.state
        if state is State.TIMEWAIT:
            core.move(connection, commanded(state, Move.TIMEWAIT_OVER, connection.role), now)
        elif following(state, Move.RETRIES_EXHAUSTED) is not None:
            if connection.retries_left > 0:
                core.retransmit(connection, now)
            else:
                self._surrender(connection, commanded(state, Move.RETRIES_EXHAUSTED, connection.role), now)
        else:
            self._overrule(connection, commanded(state, Move.ANSWER_OVERDUE, connection.role), now)

    def _surrender(self, connection: Connection, target: State, now: Instant) -> None:
        """The peer did not answer, however often we asked."""
        core = self._core
        if connection.state is State.DREQ_SENT:
            core.move(connection, target, now)
            core.tell(connection, Disconnected(connection.comm_id, False, b""))
            return
        core.tell(connection, ConnectFailed(connection.comm_id))
        if target is State.DREQ_SENT:
            core.move(connection, target, now)
            core.send_disconnect(connection, b"", now)
        else:
            self._refuse(connection, target, withdrawal(core.guid), now)

    def _overrule(self, connection: Connection, target: State, now: Instant) -> None:
        """The consumer did not decide, so that the peer has given up by now."""
        if connection.state is State.DREQ_RCVD:
            self._answer_disconnect(connection, target, b"", now)
            return
        self._core.tell(connection, ConnectFailed(connection.comm_id))
        self._refuse(connection, target, Refusal(connection.refused_message(), RejectReason.TIMEOUT), now)


def _check_private_data(message: str, private_data: bytes) -> None:
    if len(private_data) > _PRIVATE_DATA[message]:
        raise InvalidParameter(
            f"{len(private_data)} bytes of private data; a {message} carries {_PRIVATE_DATA[message]} at most"
        )


def _gid(ip: bytes) -> bytes:
    """The GID of a RoCE port: its IPv6 address, or ``::ffff:a.b.c.d`` (Annex A17)."""
    if len(ip) == 16:
        return bytes(ip)
    if len(ip) != 4:
        raise InvalidParameter(f"an address has 4 or 16 bytes, not {len(ip)}")
    return bytes(10) + b"\xff\xff" + bytes(ip)
