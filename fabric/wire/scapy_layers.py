"""scapy layers for what scapy's RoCE module lacks: extension headers, management datagrams, connection management, SDP.

For tests and tools only: importing this imports scapy, and scapy is a thousand times too slow for the data path.
Importing it binds the layers to scapy's BTH by opcode. SDP follows a SEND only where the caller says so, since
nothing in a SEND names it: use ``SDP(payload)``, or ``bind_sdp()`` to make every RC SEND dissect as SDP.
"""

from typing import Any

from scapy.contrib.roce import AETH, BTH
from scapy.fields import (
    BitField,
    ByteEnumField,
    ByteField,
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

from fabric.wire.opcodes import Opcode
from fabric.wire.sdp import Mid


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


_ATTRIBUTES = {0x10: "REQ", 0x11: "MRA", 0x12: "REJ", 0x13: "REP", 0x14: "RTU", 0x15: "DREQ", 0x16: "DREP"}


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
        ShortEnumField("attribute_id", 0x10, _ATTRIBUTES),
        ShortField("reserved", 0),
        XIntField("modifier", 0),
    ]


class CM(Packet):
    """What all connection management messages begin with; the rest stays in the payload but for REQ and REP."""

    name = "CM"
    fields_desc = [XIntField("local_comm_id", 0), XIntField("remote_comm_id", 0)]  # noqa: RUF012


class CMReq(Packet):
    """Connection request, up to its addresses; ``private`` is its private data."""

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
        StrFixedLenField("paths", b"", 89),
        StrFixedLenField("private", b"", 92),
    ]


class CMRep(Packet):
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
        StrFixedLenField("private", b"", 196),
    ]


class SDP(Packet):
    """Base header of a Sockets Direct message."""

    name = "SDP"
    fields_desc = [  # noqa: RUF012
        ByteEnumField("mid", int(Mid.DATA), {int(m): m.name for m in Mid}),
        XByteField("flags", 0),
        ShortField("bufs", 0),
        IntField("len", 16),
        IntField("mseq", 0),
        IntField("mseqack", 0),
    ]


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


def bind_sdp() -> None:
    """From now on every RC SEND of one packet, and every first packet of a message, dissects as SDP."""
    for opcode in (Opcode.RC_SEND_FIRST, Opcode.RC_SEND_ONLY):
        bind_layers(BTH, SDP, opcode=int(opcode))


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
for _attribute in (0x11, 0x12, 0x14, 0x15, 0x16):
    bind_layers(MAD, CM, attribute_id=_attribute)
bind_layers(MAD, CMReq, attribute_id=0x10)
bind_layers(MAD, CMRep, attribute_id=0x13)
bind_layers(SDP, SDPHello, mid=int(Mid.HELLO))
