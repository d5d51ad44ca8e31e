"""The record of one connection, and the messages that one side says about it."""

from dataclasses import dataclass

from fabric.cm.config import CmConfig, timeout_of
from fabric.cm.states import Role, State
from fabric.ids import CommId
from fabric.units import Duration
from fabric.wire.cm import (
    ConnectReject,
    DisconnectReply,
    DisconnectRequest,
    MessageReceiptAck,
    RejectReason,
)

REJECTED_REQ, REJECTED_REP, REJECTED_OTHER = 0, 1, 2
"""What a REJ refuses (12.6.7); MRA uses the first two numbers likewise (12.6.6)."""

RequestKey = tuple[bytes, int, int]
"""Peer's address, CA GUID and communication id: what makes a REQ the same REQ (12.9.8.3.1)."""
PairKey = tuple[bytes, int, int]
"""Peer's address, CA GUID and queue pair number: what only one live connection may use."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A REJ that can be given again whenever the refused message comes again."""

    rejected: int
    reason: int
    additional: bytes = b""
    private_data: bytes = b""


@dataclass(slots=True, eq=False)
class Connection:
    """One side's record of a connection, from the first REQ to the end of TIMEWAIT. Only ``Core`` moves ``state``."""

    comm_id: CommId
    role: Role
    state: State
    remote_ip: bytes
    service_id: int
    transaction_id: int
    """Of the REQ; REP, RTU, REJ and MRA repeat it."""
    local_qpn: int
    response_timeout: Duration
    max_retries: int
    timewait: Duration
    remote_comm_id: int | None = None
    remote_guid: int = 0
    remote_qpn: int | None = None
    last_said: bytes = b""
    """The encoded message to repeat: by timer (REQ, REP, DREQ) or when asked again (MRA, RTU)."""
    last_kind: str = ""
    retries_left: int = 0
    extensions: int = 0
    """MRAs of the peer honoured so far."""
    was_established: bool = False
    is_told: bool = False
    """Whether the consumer knows that the connection is over: it hears so once."""
    refusal: Refusal | None = None
    """What we said when we ended the set-up."""
    disconnect_to_answer: DisconnectRequest | None = None
    request_key: RequestKey | None = None
    pair_key: PairKey | None = None

    @property
    def patience(self) -> Duration:
        """How long the other side waits for a decision before it gives up: all its transmissions unanswered."""
        return self.response_timeout * (self.max_retries + 1)

    def is_peer(self, remote_ip: bytes, remote_comm_id: int) -> bool:
        """Whether a message from there with that id of its author is about this connection."""
        return self.remote_ip == remote_ip and self.remote_comm_id == remote_comm_id

    def refused_message(self) -> int:
        """What a REJ in the present state refuses."""
        if self.role is Role.PASSIVE and self.state in (State.REQ_RCVD, State.MRA_REQ_SENT):
            return REJECTED_REQ
        return REJECTED_REP if self.state in (State.REP_RCVD, State.MRA_REP_SENT) else REJECTED_OTHER

    def reject(self, refusal: Refusal, *, remote_comm_id: int | None = None) -> ConnectReject:
        """A REJ for this connection's peer, which goes by ``remote_comm_id`` if we had not recorded its id."""
        known = self.remote_comm_id if remote_comm_id is None else remote_comm_id
        return reject_message(
            transaction_id=self.transaction_id,
            local_comm_id=self.comm_id,
            remote_comm_id=known or 0,
            refusal=refusal,
        )

    def message_receipt(self, service_timeout: int, private_data: bytes) -> MessageReceiptAck:
        """An MRA for the message that waits for our consumer's decision."""
        return MessageReceiptAck(
            transaction_id=self.transaction_id,
            local_comm_id=self.comm_id,
            remote_comm_id=self.remote_comm_id or 0,
            message_mraed=self.refused_message(),
            service_timeout=service_timeout,
            private_data=private_data,
        )

    def disconnect_request(self, transaction_id: int, private_data: bytes) -> DisconnectRequest:
        """A DREQ; it names the peer's queue pair, so that a stale one ends nothing."""
        assert self.remote_comm_id is not None
        assert self.remote_qpn is not None
        return DisconnectRequest(
            transaction_id=transaction_id,
            local_comm_id=self.comm_id,
            remote_comm_id=self.remote_comm_id,
            remote_qpn=self.remote_qpn,
            private_data=private_data,
        )


def reject_message(*, transaction_id: int, local_comm_id: int, remote_comm_id: int, refusal: Refusal) -> ConnectReject:
    """A REJ; the additional information is as long as the refusal says (12.6.7.2)."""
    return ConnectReject(
        transaction_id=transaction_id,
        local_comm_id=local_comm_id,
        remote_comm_id=remote_comm_id,
        message_rejected=refusal.rejected,
        reason=refusal.reason,
        additional_info=refusal.additional,
        private_data=refusal.private_data,
    )


def disconnect_reply(request: DisconnectRequest, private_data: bytes = b"") -> DisconnectReply:
    """The DREP to ``request``, whoever asks: the ids stand crossed, the transaction id is the request's."""
    return DisconnectReply(
        transaction_id=request.transaction_id,
        local_comm_id=request.remote_comm_id,
        remote_comm_id=request.local_comm_id,
        private_data=private_data,
    )


def withdrawal(guid: int) -> Refusal:
    """What an active side says that stops waiting: the peer, whose id it may not know, finds the REQ by the GUID."""
    return Refusal(REJECTED_REQ, RejectReason.TIMEOUT, guid.to_bytes(8, "big"))


def timewait_of(config: CmConfig, ack_timeout: int, response_timeout: Duration) -> Duration:
    """How long a connection that ended is remembered.

    The local ACK timeout covers twice the packet life and the peer's acknowledgement delay (12.9.8.3.1, 12.7.34), so
    after it no packet of the connection is left. We add that a peer which missed our DREP or REJ asks again after its
    response timeout and should find us.
    """
    return max(timeout_of(min(ack_timeout, config.longest_timewait)), 2 * response_timeout)
