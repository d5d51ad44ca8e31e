"""scapy layers for what scapy's RoCE module lacks: extension headers, management datagrams, connection management, SDP.

For tests and tools only: importing this imports scapy, and scapy is a thousand times too slow for the data path.
Importing it binds the layers to scapy's BTH by opcode. Nothing in a SEND says that it is SDP: the payload of a SEND
of one packet, and the private data of a connection management message, dissect as SDP if they begin with a base header
of a known message whose length fits, and stay raw otherwise.
"""

from typing import Any

from scapy.config import conf
from scapy.contrib.roce import AETH, BTH
from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    ByteField,
    ConditionalField,
    IntField,
    LongField,
    ShortEnumField,
    ShortField,
    StrFixedLenField,
    X3BytesField,
    XByteField,
    XIntField,
    XLongField,
)
from scapy.packet import Packet, bind_layers

from fabric.wire.cm import RejectReason
from fabric.wire.opcodes import Opcode
from fabric.wire.sdp import BSDH_SIZE, Mid


class RETH(Packet):
    """RDMA extended transport header."""

    name = "RETH"
    fields_desc = [XLongField("va", 0), XIntField("rkey", 0), IntField("dmalen", 0)]  # noqa: RUF012


class AtomicETH(Packet):
    """Atomic extended transport header."""

    name = "AtomicETH"
    fields_desc = [XLongField("va", 0), XIntField("rkey", 0), LongField("swap", 0), LongField("compare", 0)]  # noqa: RUF012


class AtomicAckETH(Packet):
    """The original value."""

    name = "AtomicAckETH"
    fields_desc = [LongField("original", 0)]  # noqa: RUF012


class ImmDt(Packet):
    """Immediate data."""

    name = "ImmDt"
    fields_desc = [XIntField("data", 0)]  # noqa: RUF012


class IETH(Packet):
    """Key to invalidate."""

    name = "IETH"
    fields_desc = [XIntField("rkey", 0)]  # noqa: RUF012


class DETH(Packet):
    """Datagram extended transport header."""

    name = "DETH"
    fields_desc = [XIntField("qkey", 0x80010000), XByteField("reserved", 0), X3BytesField("srcqp", 1)]  # noqa: RUF012


ATTRIBUTES = {0x10: "REQ", 0x11: "MRA", 0x12: "REJ", 0x13: "REP", 0x14: "RTU", 0x15: "DREQ", 0x16: "DREP"}


class MAD(Packet):
    """Management datagram header."""

    name = "MAD"
    fields_desc = [  # noqa: RUF012
        ByteField("base_version", 1),
        XByteField("mgmt_class", 7),
        ByteField("class_version", 2),
        XByteField("method", 3),
        ShortField("status", 0),
        ShortField("class_specific", 0),
        XLongField("transaction_id", 0),
        ShortEnumField("attribute_id", 0x10, ATTRIBUTES),
        ShortField("reserved", 0),
        XIntField("modifier", 0),
    ]


class _Cm(Packet):
    """A connection management message: what follows its fields is private data, SDP or raw."""

    def guess_payload_class(self, payload: bytes) -> Any:
        """SDP if the private data begins with a base header whose length fits."""
        return SDP if _is_sdp(payload, padding=len(payload)) else super().guess_payload_class(payload)


class CMMra(_Cm):
    """Message receipt acknowledged: wait longer."""

    name = "CM MRA"
    fields_desc = [  # noqa: RUF012
        XIntField("local_comm_id", 0),
        XIntField("remote_comm_id", 0),
        BitEnumField("message_mraed", 0, 2, {0: "REQ", 1: "REP", 2: "LAP"}),
        BitField("reserved0", 0, 6),
        BitField("service_timeout", 0, 5),
        BitField("reserved1", 0, 3),
    ]


class CMRej(_Cm):
    """Rejection; ``reason`` as in InfiniBand Architecture volume 1, table 99."""

    name = "CM REJ"
    fields_desc = [  # noqa: RUF012
        XIntField("local_comm_id", 0),
        XIntField("remote_comm_id", 0),
        BitEnumField("message_rejected", 0, 2, {0: "REQ", 1: "REP", 2: "none"}),
        BitField("reserved0", 0, 6),
        BitField("info_length", 0, 7),
        BitField("reserved1", 0, 1),
        ShortEnumField("reason", 28, {int(reason): reason.name for reason in RejectReason}),
        StrFixedLenField("info", b"", 72),
    ]


class CMRtu(_Cm):
    """Ready to use."""

    name = "CM RTU"
    fields_desc = [XIntField("local_comm_id", 0), XIntField("remote_comm_id", 0)]  # noqa: RUF012


class CMDreq(_Cm):
    """Disconnection request."""

    name = "CM DREQ"
    fields_desc = [  # noqa: RUF012
        XIntField("local_comm_id", 0),
        XIntField("remote_comm_id", 0),
        X3BytesField("remote_qpn", 0),
        XByteField("reserved", 0),
    ]


class CMDrep(_Cm):
    """Disconnection reply."""

    name = "CM DREP"
    fields_desc = [XIntField("local_comm_id", 0), XIntField("remote_comm_id", 0)]  # noqa: RUF012


class CMReq(_Cm):
    """Connection request; the path information stays one field."""

    name = "CM REQ"
    fields_desc = [  # noqa: RUF012
        XIntField("local_comm_id", 0),
        XByteField("reserved0", 0),
        X3BytesField("vendor_id", 0),
        XLongField("service_id", 0),
        XLongField("local_ca_guid", 0),
        XIntField("reserved1", 0),
        XIntField("local_qkey", 0),
        X3BytesField("local_qpn", 0),
        ByteField("responder_resources", 0),
        X3BytesField("local_eecn", 0),
        ByteField("initiator_depth", 0),
        X3BytesField("remote_eecn", 0),
        BitField("remote_cm_timeout", 0, 5),
        BitField("transport_type", 0, 2),
        BitField("flow_control", 0, 1),
        X3BytesField("starting_psn", 0),
        BitField("local_cm_timeout", 0, 5),
        BitField("retry_count", 0, 3),
        ShortField("pkey", 0xFFFF),
        BitField("path_mtu", 0, 4),
        BitField("rdc", 0, 1),
        BitField("rnr_retry", 0, 3),
        BitField("max_cm_retries", 0, 4),
        BitField("srq", 0, 1),
        BitField("extended_transport_type", 0, 3),
        StrFixedLenField("paths", b"", 88),
    ]


class CMRep(_Cm):
    """Connection reply."""

    name = "CM REP"
    fields_desc = [  # noqa: RUF012
        XIntField("local_comm_id", 0),
        XIntField("remote_comm_id", 0),
        XIntField("local_qkey", 0),
        X3BytesField("local_qpn", 0),
        XByteField("reserved0", 0),
        X3BytesField("local_eecn", 0),
        XByteField("reserved1", 0),
        X3BytesField("starting_psn", 0),
        XByteField("reserved2", 0),
        ByteField("responder_resources", 0),
        ByteField("initiator_depth", 0),
        XByteField("ack_delay", 0),
        XByteField("rnr_srq", 0),
        XLongField("local_ca_guid", 0),
    ]


def _is_sdp(data: bytes, padding: int) -> bool:
    """Whether ``data`` begins with a base header of a known message whose length leaves at most ``padding`` bytes."""
    if len(data) < BSDH_SIZE or data[0] not in _MIDS:
        return False
    length = int.from_bytes(data[4:8], "big")
    return length >= BSDH_SIZE and 0 <= len(data) - length <= padding


_MIDS = {int(mid): mid.name for mid in Mid}


class SDP(Packet):
    """Base header of a Sockets Direct message; what is longer than ``len`` is padding."""

    name = "SDP"
    fields_desc = [  # noqa: RUF012
        ByteEnumField("mid", int(Mid.DATA), _MIDS),
        XByteField("flags", 0),
        ShortField("bufs", 0),
        IntField("len", None),
        IntField("mseq", 0),
        IntField("mseqack", 0),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_args: Any, **_kwargs: Any) -> Any:
        """Nothing in a SEND says that it is SDP: bytes that are no SDP message stay raw."""
        return cls if _pkt is None or _is_sdp(_pkt, padding=len(_pkt)) else conf.raw_layer

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """Body and padding."""
        body = max(0, (self.len or BSDH_SIZE) - BSDH_SIZE)
        return s[:body], s[body:]

    def post_build(self, p: bytes, pay: bytes) -> bytes:
        """``len`` counts the base header and the body."""
        if self.len is None:
            p = p[:4] + (len(p) + len(pay)).to_bytes(4, "big") + p[8:]
        return p + pay


class SDPHello(Packet):
    """What follows the base header in a Hello."""

    name = "SDP Hello"
    fields_desc = [  # noqa: RUF012
        XByteField("version", 0x22),
        XByteField("ip_version", 0x40),
        ByteField("reserved0", 0),
        ByteField("max_adverts", 0),
        IntField("desired_receive_size", 0),
        IntField("receive_size", 0),
        ShortField("port", 0),
        ShortField("reserved1", 0),
        StrFixedLenField("source", b"", 16),
        StrFixedLenField("destination", b"", 16),
        StrFixedLenField("extension", b"", 28),
    ]


class SDPHelloAck(Packet):
    """What follows the base header in a HelloAck."""

    name = "SDP HelloAck"
    fields_desc = [  # noqa: RUF012
        XByteField("version", 0x22),
        XByteField("ip_version", 0x40),
        ByteField("reserved0", 0),
        ByteField("max_adverts", 0),
        IntField("receive_size", 0),
        StrFixedLenField("extension", b"", 28),
    ]


class SDPSuspComm(Packet):
    """SuspComm: service id 0 (the queue pair stays) is followed by epoch and deadline."""

    name = "SDP SuspComm"
    fields_desc = [  # noqa: RUF012
        XLongField("service_id", 0),
        ConditionalField(IntField("epoch", 0), lambda packet: packet.service_id == 0),
        ConditionalField(IntField("deadline_ms", 0), lambda packet: packet.service_id == 0),
    ]


class SDPResume(Packet):
    """Resume, of the experimental range."""

    name = "SDP Resume"
    fields_desc = [IntField("epoch", 0), IntField("last_sent", 0), IntField("last_received", 0)]  # noqa: RUF012


_BINDINGS: dict[Opcode, Any] = {
    Opcode.RC_SEND_LAST_IMMEDIATE: ImmDt,
    Opcode.RC_SEND_ONLY_IMMEDIATE: ImmDt,
    Opcode.RC_WRITE_FIRST: RETH,
    Opcode.RC_WRITE_LAST_IMMEDIATE: ImmDt,
    Opcode.RC_WRITE_ONLY: RETH,
    Opcode.RC_WRITE_ONLY_IMMEDIATE: RETH,
    Opcode.RC_READ_REQUEST: RETH,
    Opcode.RC_READ_RESPONSE_FIRST: AETH,
    Opcode.RC_READ_RESPONSE_LAST: AETH,
    Opcode.RC_READ_RESPONSE_ONLY: AETH,
    Opcode.RC_ATOMIC_ACKNOWLEDGE: AETH,
    Opcode.RC_COMPARE_SWAP: AtomicETH,
    Opcode.RC_FETCH_ADD: AtomicETH,
    Opcode.RC_SEND_LAST_INVALIDATE: IETH,
    Opcode.RC_SEND_ONLY_INVALIDATE: IETH,
    Opcode.UD_SEND_ONLY: DETH,
    Opcode.UD_SEND_ONLY_IMMEDIATE: DETH,
}
for _opcode, _layer in _BINDINGS.items():
    bind_layers(BTH, _layer, opcode=int(_opcode))
bind_layers(DETH, MAD, qkey=0x80010000, srcqp=1)
for _attribute, _message in enumerate((CMReq, CMMra, CMRej, CMRep, CMRtu, CMDreq, CMDrep), 0x10):
    bind_layers(MAD, _message, attribute_id=_attribute)
bind_layers(BTH, SDP, opcode=int(Opcode.RC_SEND_ONLY))
for _mid, _body in {
    Mid.HELLO: SDPHello,
    Mid.HELLO_ACK: SDPHelloAck,
    Mid.SUSPEND: SDPSuspComm,
    Mid.RESUME: SDPResume,
}.items():
    bind_layers(SDP, _body, mid=int(_mid))
