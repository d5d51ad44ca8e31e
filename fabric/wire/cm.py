"""Connection management datagrams: the seven messages of InfiniBand Architecture volume 1, 12.6, as frozen dataclasses.

A management datagram (MAD) has 256 bytes: a header of 24 and a message of 232, everything big-endian. Where a field
stands is written once, in the table of its message, as (name, byte, bit from the top of that byte, bits); bytes
fields as (name, byte, bytes). Bits that no table names are reserved: sent as zero, ignored on receipt.

Numbers are unsigned. Private data is padded with zeros to its full length when encoded, and comes back in full length.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

from fabric.wire.headers import MalformedFrame

MAD_SIZE = 256
QKEY = 0x8001_0000
"""Q_Key of queue pair 1."""
_HEADER = struct.Struct(">BBBBHHQHHI")
_BODY_SIZE = 232
_BODY_BITS = 8 * _BODY_SIZE
_BASE_VERSION, _CM_CLASS, _CM_CLASS_VERSION, _SEND = 1, 0x07, 2, 0x03
_PERMISSIVE_LID = 0xFFFF


class RejectReason(IntEnum):
    """Why a REJ was sent (12.6.7.2)."""

    NO_QP = 1
    NO_EEC = 2
    NO_RESOURCES = 3
    TIMEOUT = 4
    UNSUPPORTED_REQUEST = 5
    INVALID_COMM_ID = 6
    INVALID_COMM_INSTANCE = 7
    INVALID_SERVICE_ID = 8
    INVALID_TRANSPORT_TYPE = 9
    STALE_CONNECTION = 10
    RDC_MISSING = 11
    PRIMARY_GID_REJECTED = 12
    PRIMARY_LID_REJECTED = 13
    PRIMARY_SL_REJECTED = 14
    PRIMARY_TRAFFIC_CLASS_REJECTED = 15
    PRIMARY_HOP_LIMIT_REJECTED = 16
    PRIMARY_RATE_REJECTED = 17
    ALTERNATE_GID_REJECTED = 18
    ALTERNATE_LID_REJECTED = 19
    ALTERNATE_SL_REJECTED = 20
    ALTERNATE_TRAFFIC_CLASS_REJECTED = 21
    ALTERNATE_HOP_LIMIT_REJECTED = 22
    ALTERNATE_RATE_REJECTED = 23
    PORT_AND_CM_REDIRECT = 24
    PORT_REDIRECT = 25
    INVALID_PATH_MTU = 26
    INSUFFICIENT_RESPONDER_RESOURCES = 27
    CONSUMER_DEFINED = 28
    INVALID_RNR_RETRY = 29
    DUPLICATE_COMM_ID = 30
    INVALID_CLASS_VERSION = 31
    PRIMARY_FLOW_LABEL_REJECTED = 32
    ALTERNATE_FLOW_LABEL_REJECTED = 33
    VENDOR_OPTION_REJECTED = 35


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """REQ (12.6.5). Times are 5-bit codes, ``path_mtu`` is a code (1: 256 .. 5: 4096), GIDs have 16 bytes.

    ``starting_psn`` is the one that the author expects to receive. The alternate path is raw, of the same shape.
    """

    transaction_id: int
    local_comm_id: int
    service_id: int
    local_ca_guid: int
    local_qpn: int
    starting_psn: int
    path_mtu: int
    vendor_id: int = 0
    local_qkey: int = 0
    responder_resources: int = 0
    local_eecn: int = 0
    initiator_depth: int = 0
    remote_eecn: int = 0
    remote_cm_response_timeout: int = 16
    transport_type: int = 0
    end_to_end_flow_control: int = 0
    local_cm_response_timeout: int = 16
    retry_count: int = 7
    pkey: int = 0xFFFF
    rdc_exists: int = 0
    rnr_retry: int = 7
    max_cm_retries: int = 8
    srq: int = 0
    extended_transport_type: int = 0
    primary_local_lid: int = _PERMISSIVE_LID
    primary_remote_lid: int = _PERMISSIVE_LID
    primary_local_gid: bytes = bytes(16)
    primary_remote_gid: bytes = bytes(16)
    primary_flow_label: int = 0
    primary_packet_rate: int = 0
    primary_traffic_class: int = 0
    primary_hop_limit: int = 64
    primary_sl: int = 0
    primary_subnet_local: int = 0
    local_ack_timeout: int = 14
    alternate_path: bytes = bytes(44)
    private_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageReceiptAck:
    """MRA (12.6.6): message 0 REQ, 1 REP, 2 LAP is being worked on, for ``service_timeout`` (code) at most."""

    transaction_id: int
    local_comm_id: int
    remote_comm_id: int
    message_mraed: int
    service_timeout: int
    private_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectReject:
    """REJ (12.6.7): message 0 REQ, 1 REP, 2 other is refused. ``additional_info`` has up to 72 bytes."""

    transaction_id: int
    local_comm_id: int
    remote_comm_id: int
    message_rejected: int
    reason: int
    additional_info: bytes = b""
    private_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectReply:
    """REP (12.6.8). ``starting_psn`` is the one that the author expects to receive."""

    transaction_id: int
    local_comm_id: int
    remote_comm_id: int
    local_qpn: int
    starting_psn: int
    local_ca_guid: int
    local_qkey: int = 0
    local_eecn: int = 0
    responder_resources: int = 0
    initiator_depth: int = 0
    target_ack_delay: int = 0
    failover_accepted: int = 0
    end_to_end_flow_control: int = 0
    rnr_retry: int = 7
    srq: int = 0
    private_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyToUse:
    """RTU (12.6.9)."""

    transaction_id: int
    local_comm_id: int
    remote_comm_id: int
    private_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectRequest:
    """DREQ (12.6.10); ``remote_qpn`` is the queue pair of the receiver."""

    transaction_id: int
    local_comm_id: int
    remote_comm_id: int
    remote_qpn: int
    private_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectReply:
    """DREP (12.6.11)."""

    transaction_id: int
    local_comm_id: int
    remote_comm_id: int
    private_data: bytes = b""


CmMessage: TypeAlias = (
    ConnectRequest | MessageReceiptAck | ConnectReject | ConnectReply | ReadyToUse | DisconnectRequest | DisconnectReply
)

_IDS = (("local_comm_id", 0, 0, 32), ("remote_comm_id", 4, 0, 32))


class _Layout:
    """Where the fields of one message stand."""

    def __init__(
        self,
        attribute_id: int,
        message_type: type[Any],
        bits: tuple[tuple[str, int, int, int], ...],
        octets: tuple[tuple[str, int, int], ...],
    ) -> None:
        self.attribute_id = attribute_id
        self.message_type = message_type
        self.bits = tuple(
            (name, _BODY_BITS - 8 * byte - bit - width, (1 << width) - 1) for name, byte, bit, width in bits
        )
        self.octets = octets


_REQ_BITS = (
    ("local_comm_id", 0, 0, 32),
    ("vendor_id", 5, 0, 24),
    ("service_id", 8, 0, 64),
    ("local_ca_guid", 16, 0, 64),
    ("local_qkey", 28, 0, 32),
    ("local_qpn", 32, 0, 24),
    ("responder_resources", 35, 0, 8),
    ("local_eecn", 36, 0, 24),
    ("initiator_depth", 39, 0, 8),
    ("remote_eecn", 40, 0, 24),
    ("remote_cm_response_timeout", 43, 0, 5),
    ("transport_type", 43, 5, 2),
    ("end_to_end_flow_control", 43, 7, 1),
    ("starting_psn", 44, 0, 24),
    ("local_cm_response_timeout", 47, 0, 5),
    ("retry_count", 47, 5, 3),
    ("pkey", 48, 0, 16),
    ("path_mtu", 50, 0, 4),
    ("rdc_exists", 50, 4, 1),
    ("rnr_retry", 50, 5, 3),
    ("max_cm_retries", 51, 0, 4),
    ("srq", 51, 4, 1),
    ("extended_transport_type", 51, 5, 3),
    ("primary_local_lid", 52, 0, 16),
    ("primary_remote_lid", 54, 0, 16),
    ("primary_flow_label", 88, 0, 20),
    ("primary_packet_rate", 91, 2, 6),
    ("primary_traffic_class", 92, 0, 8),
    ("primary_hop_limit", 93, 0, 8),
    ("primary_sl", 94, 0, 4),
    ("primary_subnet_local", 94, 4, 1),
    ("local_ack_timeout", 95, 0, 5),
)
_REQ_OCTETS = (
    ("primary_local_gid", 56, 16),
    ("primary_remote_gid", 72, 16),
    ("alternate_path", 96, 44),
    ("private_data", 140, 92),
)
_REP_BITS = (
    *_IDS,
    ("local_qkey", 8, 0, 32),
    ("local_qpn", 12, 0, 24),
    ("local_eecn", 16, 0, 24),
    ("starting_psn", 20, 0, 24),
    ("responder_resources", 24, 0, 8),
    ("initiator_depth", 25, 0, 8),
    ("target_ack_delay", 26, 0, 5),
    ("failover_accepted", 26, 5, 2),
    ("end_to_end_flow_control", 26, 7, 1),
    ("rnr_retry", 27, 0, 3),
    ("srq", 27, 3, 1),
    ("local_ca_guid", 28, 0, 64),
)
_LAYOUTS = (
    _Layout(0x0010, ConnectRequest, _REQ_BITS, _REQ_OCTETS),
    _Layout(
        0x0011,
        MessageReceiptAck,
        (*_IDS, ("message_mraed", 8, 0, 2), ("service_timeout", 9, 0, 5)),
        (("private_data", 10, 222),),
    ),
    _Layout(
        0x0012,
        ConnectReject,
        (*_IDS, ("message_rejected", 8, 0, 2), ("reason", 10, 0, 16)),
        (("private_data", 84, 148),),
    ),
    _Layout(0x0013, ConnectReply, _REP_BITS, (("private_data", 36, 196),)),
    _Layout(0x0014, ReadyToUse, _IDS, (("private_data", 8, 224),)),
    _Layout(0x0015, DisconnectRequest, (*_IDS, ("remote_qpn", 8, 0, 24)), (("private_data", 12, 220),)),
    _Layout(0x0016, DisconnectReply, _IDS, (("private_data", 8, 224),)),
)
_BY_TYPE = {layout.message_type: layout for layout in _LAYOUTS}
_BY_ATTRIBUTE = {layout.attribute_id: layout for layout in _LAYOUTS}
_REJ_INFO_LENGTH_AT, _REJ_INFO_AT, _REJ_INFO_SIZE = 9, 12, 72


def encode_mad(message: CmMessage) -> bytes:
    """The 256 bytes of ``message``. ValueError if a number or a bytes field does not fit its place."""
    layout = _BY_TYPE[type(message)]
    value = 0
    for name, shift, mask in layout.bits:
        number = getattr(message, name)
        if not 0 <= number <= mask:
            raise ValueError(f"{name} is {number}, its field holds 0..{mask}")
        value |= number << shift
    body = bytearray(value.to_bytes(_BODY_SIZE, "big"))
    for name, at, size in layout.octets:
        data = getattr(message, name)
        if len(data) > size:
            raise ValueError(f"{name} has {len(data)} bytes, its field holds {size}")
        body[at : at + len(data)] = data
    if isinstance(message, ConnectReject):
        info = message.additional_info
        if len(info) > _REJ_INFO_SIZE:
            raise ValueError(f"additional_info has {len(info)} bytes, its field holds {_REJ_INFO_SIZE}")
        body[_REJ_INFO_LENGTH_AT] = len(info) << 1
        body[_REJ_INFO_AT : _REJ_INFO_AT + len(info)] = info
    header = (_BASE_VERSION, _CM_CLASS, _CM_CLASS_VERSION, _SEND, 0, 0)
    return _HEADER.pack(*header, message.transaction_id, layout.attribute_id, 0, 0) + bytes(body)


def decode_mad(data: bytes) -> CmMessage:
    """The message in a MAD of 256 bytes. MalformedFrame if it is none of the seven of connection management."""
    if len(data) != MAD_SIZE:
        raise MalformedFrame(f"a MAD has {MAD_SIZE} bytes, not {len(data)}")
    fields = _HEADER.unpack_from(data)
    if fields[:4] != (_BASE_VERSION, _CM_CLASS, _CM_CLASS_VERSION, _SEND):
        raise MalformedFrame(f"not a connection management message: {data[:4].hex()}")
    layout = _BY_ATTRIBUTE.get(fields[7])
    if layout is None:
        raise MalformedFrame(f"unknown connection management attribute {fields[7]:#06x}")
    body = bytes(data[_HEADER.size :])
    value = int.from_bytes(body, "big")
    members: dict[str, Any] = {name: value >> shift & mask for name, shift, mask in layout.bits}
    for name, at, size in layout.octets:
        members[name] = body[at : at + size]
    if layout.message_type is ConnectReject:
        length = body[_REJ_INFO_LENGTH_AT] >> 1
        if length > _REJ_INFO_SIZE:
            raise MalformedFrame(f"a REJ carries {_REJ_INFO_SIZE} bytes of additional information, not {length}")
        members["additional_info"] = body[_REJ_INFO_AT : _REJ_INFO_AT + length]
    message: CmMessage = layout.message_type(transaction_id=fields[6], **members)
    return message


def sdp_service_id(port: int) -> int:
    """Service id of an SDP port (Annex A4): ``0x10000 | port``."""
    return 0x1_0000 | port
