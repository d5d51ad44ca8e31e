"""What the connection manager does with each message of a peer. Nothing here raises for what a peer sends.

A message is first matched: by our communication id, the peer's address and, once known, the peer's id; a REQ by its own
key. What matches nothing is answered where silence would leave the peer waiting (DREQ: DREP; REP: REJ "invalid
communication id") and dropped otherwise. What matches but comes out of turn is a duplicate or overtaken by events:
if the peer may still need our answer it is given again, else the message is counted and dropped.
"""

from collections.abc import Callable
from typing import Any

from fabric.cm.config import MTU_CODES, timeout_of
from fabric.cm.connection import REJECTED_REP, REJECTED_REQ, Connection, Refusal, timewait_of
from fabric.cm.core import Core
from fabric.cm.events import Disconnected, Established, Rejected, ReplyReceived, RequestReceived
from fabric.cm.states import Move, Role, State, following
from fabric.ids import CommId
from fabric.units import Instant
from fabric.wire.cm import (
    CmMessage,
    ConnectReject,
    ConnectReply,
    ConnectRequest,
    DisconnectReply,
    DisconnectRequest,
    MessageReceiptAck,
    ReadyToUse,
    RejectReason,
)

RELIABLE_CONNECTION = 0
"""Transport service type of REQ (12.7.25)."""
_LARGEST_MTU_CODE = max(MTU_CODES.values())


class Inbound:
    """Handlers by message type, over a :class:`Core`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._handlers: dict[type[Any], Callable[[bytes, Any, Instant], None]] = {
            ConnectRequest: self._on_request,
            ConnectReply: self._on_reply,
            ReadyToUse: self._on_ready,
            ConnectReject: self._on_reject,
            MessageReceiptAck: self._on_receipt,
            DisconnectRequest: self._on_disconnect,
            DisconnectReply: self._on_disconnected,
        }

    def handle(self, remote_ip: bytes, message: CmMessage, now: Instant) -> None:
        """One well-formed message from ``remote_ip``."""
        self._core.receive(type(message).__name__)
        self._handlers[type(message)](remote_ip, message, now)

    # ----------------------------------------------------------------- REQ

    def _on_request(self, remote_ip: bytes, request: ConnectRequest, now: Instant) -> None:
        core, config = self._core, self._core.config
        request_key = (remote_ip, request.local_ca_guid, request.local_comm_id)
        known = core.by_request.get(request_key)
        if known is not None:
            self._on_known_request(known, request)
            return
        pair_key = (remote_ip, request.local_ca_guid, request.local_qpn)
        refusal = self._objection(request)
        if refusal is None and pair_key in core.by_pair:
            self._end_stale(core.by_pair[pair_key], now)
            refusal = Refusal(REJECTED_REQ, RejectReason.STALE_CONNECTION)
        if refusal is None and request.service_id not in core.listeners:
            refusal = Refusal(REJECTED_REQ, RejectReason.INVALID_SERVICE_ID)
        if refusal is None and core.half_open >= config.half_open_limit:
            refusal = Refusal(REJECTED_REQ, RejectReason.NO_RESOURCES)
        if refusal is not None:
            core.refuse(remote_ip, request.transaction_id, 0, request.local_comm_id, refusal)
            return
        response_timeout = config.peer_timeout(request.local_cm_response_timeout)
        connection = Connection(
            comm_id=core.new_comm_id(),
            role=Role.PASSIVE,
            state=State.REQ_RCVD,
            remote_ip=remote_ip,
            service_id=request.service_id,
            transaction_id=request.transaction_id,
            local_qpn=0,
            response_timeout=response_timeout,
            max_retries=request.max_cm_retries,
            timewait=timewait_of(config, request.local_ack_timeout, response_timeout),
            remote_comm_id=request.local_comm_id,
            remote_guid=request.local_ca_guid,
            remote_qpn=request.local_qpn,
            request_key=request_key,
            pair_key=pair_key,
        )
        core.add(connection)
        core.deadlines.set(connection.comm_id, now + connection.patience)
        path_mtu = 128 << request.path_mtu
        core.events.append(RequestReceived(connection.comm_id, remote_ip, request.service_id, path_mtu, request))

    def _objection(self, request: ConnectRequest) -> Refusal | None:
        """What makes a REQ impossible for us, whoever listens."""
        if request.transport_type != RELIABLE_CONNECTION:
            return Refusal(REJECTED_REQ, RejectReason.INVALID_TRANSPORT_TYPE)
        ours = MTU_CODES[self._core.config.path_mtu]
        if not 1 <= request.path_mtu <= ours:
            return Refusal(REJECTED_REQ, RejectReason.INVALID_PATH_MTU, bytes((ours,)))
        if request.local_qpn < 2 or request.local_comm_id == 0:  # 0 and 1 are management queue pairs; id 0 is no id
            return Refusal(REJECTED_REQ, RejectReason.UNSUPPORTED_REQUEST)
        return None

    def _on_known_request(self, connection: Connection, request: ConnectRequest) -> None:
        core = self._core
        same = (
            request.transaction_id == connection.transaction_id
            and request.local_qpn == connection.remote_qpn
            and request.service_id == connection.service_id
        )
        refusal = None
        if connection.state is State.TIMEWAIT:
            refusal = Refusal(REJECTED_REQ, RejectReason.STALE_CONNECTION)
            if same and connection.refusal is not None and connection.refusal.rejected == REJECTED_REQ:
                refusal = connection.refusal
        elif not same:
            refusal = Refusal(REJECTED_REQ, RejectReason.DUPLICATE_COMM_ID)
        if refusal is not None:
            core.refuse(connection.remote_ip, request.transaction_id, 0, request.local_comm_id, refusal)
        elif connection.state is State.MRA_REQ_SENT:
            core.say_again(connection)
        else:
            core.drop("duplicate")

    def _end_stale(self, connection: Connection, now: Instant) -> None:
        """The peer uses the queue pair of a live connection anew, so it has forgotten that connection."""
        target = following(connection.state, Move.STALE)
        if target is not None:
            self._core.move(connection, target, now)
            self._core.send_disconnect(connection, b"", now)
            self._core.tell(connection, Disconnected(connection.comm_id, True, b""))

    # ----------------------------------------------------------- REP, RTU

    def _on_reply(self, remote_ip: bytes, reply: ConnectReply, now: Instant) -> None:
        core = self._core
        connection = core.connections.get(CommId(reply.remote_comm_id))
        if connection is None or connection.remote_ip != remote_ip or connection.role is not Role.ACTIVE:
            refusal = Refusal(REJECTED_REP, RejectReason.INVALID_COMM_ID)
            core.refuse(remote_ip, reply.transaction_id, reply.remote_comm_id, reply.local_comm_id, refusal)
            return
        if following(connection.state, Move.REP_ARRIVED) is None:
            self._on_late_reply(connection, reply)
            return
        if reply.transaction_id != connection.transaction_id:
            core.drop("out of turn")
            return
        connection.remote_comm_id = reply.local_comm_id
        connection.remote_guid = reply.local_ca_guid
        connection.remote_qpn = reply.local_qpn
        pair_key = (remote_ip, reply.local_ca_guid, reply.local_qpn)
        objection: Refusal | None = None
        if reply.local_qpn < 2 or reply.local_comm_id == 0:
            objection = Refusal(REJECTED_REP, RejectReason.UNSUPPORTED_REQUEST)
        elif pair_key in core.by_pair:
            self._end_stale(core.by_pair[pair_key], now)
            objection = Refusal(REJECTED_REP, RejectReason.STALE_CONNECTION)
        if objection is not None:
            connection.refusal = objection
            core.arrive(connection, Move.REP_REFUSED, now)
            core.refuse(remote_ip, reply.transaction_id, connection.comm_id, reply.local_comm_id, objection)
            core.tell(connection, Rejected(connection.comm_id, objection.reason, b""))
            return
        core.arrive(connection, Move.REP_ARRIVED, now)
        core.add_pair(connection)
        core.deadlines.set(connection.comm_id, now + connection.patience)
        core.events.append(ReplyReceived(connection.comm_id, reply))

    def _on_late_reply(self, connection: Connection, reply: ConnectReply) -> None:
        core = self._core
        if connection.remote_comm_id not in (None, reply.local_comm_id):
            core.drop("unknown")
        elif connection.state in (State.ESTABLISHED, State.MRA_REP_SENT):
            core.say_again(connection)  # the RTU or the MRA got lost
        elif connection.state is State.TIMEWAIT:
            refusal = connection.refusal
            if refusal is None or refusal.rejected != REJECTED_REP:
                refusal = Refusal(REJECTED_REP, RejectReason.INVALID_COMM_ID)
            core.send(connection.remote_ip, connection.reject(refusal, remote_comm_id=reply.local_comm_id))
        else:
            core.drop("duplicate")

    def _on_ready(self, remote_ip: bytes, ready: ReadyToUse, now: Instant) -> None:
        connection = self._pair(remote_ip, ready.remote_comm_id, ready.local_comm_id)
        if connection is None:
            self._core.drop("unknown")
        elif connection.state is State.ESTABLISHED:
            self._core.drop("duplicate")
        elif self._core.arrive(connection, Move.RTU_ARRIVED, now) is not None:
            self._core.events.append(Established(connection.comm_id))

    # ----------------------------------------------------------- REJ, MRA

    def _on_reject(self, remote_ip: bytes, reject: ConnectReject, now: Instant) -> None:
        core = self._core
        connection = self._rejected(remote_ip, reject)
        if connection is None:
            core.drop("unknown")
            return
        if connection.state is State.ESTABLISHED and reject.message_rejected == REJECTED_REQ:
            core.drop("out of turn")  # an old REQ of ours came in again, after all was over there
            return
        private_data = bytes(reject.private_data)
        before = core.arrive(connection, Move.REJ_ARRIVED, now)
        if before is State.ESTABLISHED:
            core.tell(connection, Disconnected(connection.comm_id, True, private_data))
        elif before is not None:
            event = Rejected(connection.comm_id, reject.reason, private_data, bytes(reject.additional_info))
            core.tell(connection, event)

    def _rejected(self, remote_ip: bytes, reject: ConnectReject) -> Connection | None:
        """Whom a REJ is for: our REQ or REP by ids, or, if a peer takes its REQ back, its REQ by CA GUID (12.6.7.2)."""
        core = self._core
        if reject.remote_comm_id == 0:
            if reject.reason != RejectReason.TIMEOUT or len(reject.additional_info) < 8:
                return None
            guid = int.from_bytes(reject.additional_info[:8], "big")
            return core.by_request.get((remote_ip, guid, reject.local_comm_id))
        connection = core.connections.get(CommId(reject.remote_comm_id))
        if connection is None or connection.remote_ip != remote_ip:
            return None
        if connection.remote_comm_id in (None, reject.local_comm_id):
            return connection
        return None

    def _on_receipt(self, remote_ip: bytes, receipt: MessageReceiptAck, now: Instant) -> None:
        core = self._core
        connection = core.connections.get(CommId(receipt.remote_comm_id))
        if connection is None or connection.remote_ip != remote_ip:
            core.drop("unknown")
            return
        expected = REJECTED_REQ if connection.role is Role.ACTIVE else REJECTED_REP
        known = connection.remote_comm_id in (None, receipt.local_comm_id)
        if following(connection.state, Move.MRA_ARRIVED) is None or receipt.message_mraed != expected or not known:
            core.drop("out of turn")
            return
        service_timeout = timeout_of(min(receipt.service_timeout, core.config.longest_service_timeout))
        if core.extend(connection, service_timeout, now):
            core.arrive(connection, Move.MRA_ARRIVED, now)
        else:
            core.drop("too many MRAs")

    # ---------------------------------------------------------- DREQ, DREP

    def _on_disconnect(self, remote_ip: bytes, request: DisconnectRequest, now: Instant) -> None:
        core = self._core
        connection = self._pair(remote_ip, request.remote_comm_id, request.local_comm_id)
        if connection is None:
            core.drop("unknown")
            core.answer_disconnect(remote_ip, request)
            return
        if request.remote_qpn != connection.local_qpn:
            core.drop("wrong queue pair")
            return
        if connection.state is State.DREQ_RCVD:
            core.drop("duplicate")  # our consumer's answer will do for this one too
            return
        if connection.state is State.TIMEWAIT:
            core.answer_disconnect(remote_ip, request)
            return
        before = core.arrive(connection, Move.DREQ_ARRIVED, now)
        if before is None:
            return
        if before is State.DREQ_SENT:  # DREQs crossed
            core.answer_disconnect(remote_ip, request)
        else:
            connection.disconnect_to_answer = request
        core.tell(connection, Disconnected(connection.comm_id, True, bytes(request.private_data)))

    def _on_disconnected(self, remote_ip: bytes, reply: DisconnectReply, now: Instant) -> None:
        core = self._core
        connection = self._pair(remote_ip, reply.remote_comm_id, reply.local_comm_id)
        if connection is None:
            core.drop("unknown")
        elif core.arrive(connection, Move.DREP_ARRIVED, now) is not None:
            core.tell(connection, Disconnected(connection.comm_id, False, bytes(reply.private_data)))

    def _pair(self, remote_ip: bytes, local_comm_id: int, remote_comm_id: int) -> Connection | None:
        """The connection that both ids and the address agree on."""
        connection = self._core.connections.get(CommId(local_comm_id))
        if connection is None or not connection.is_peer(remote_ip, remote_comm_id):
            return None
        return connection
