"""Sockets Direct Protocol messages (InfiniBand Architecture annex A4; wire.md 6), and Sanloom's extensions to them.

Every message starts with the base header BSDH, 16 bytes, big-endian: MID, flags, bufs, len, mseq, mseqack. ``len``
counts the whole message. The extensions stand in ``docs/wire-extensions.md``: the tag in the reserved bytes of Hello
and HelloAck, SuspComm with service id 0, and the message Resume with an experimental MID.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from fabric.wire.headers import MalformedFrame

BSDH_SIZE = 16
HELLO_SIZE = 92
HELLO_ACK_SIZE = 52
TAG = b"SNLM"
TAG_VERSION = 1
_BSDH = struct.Struct(">BBHIII")
_HELLO = struct.Struct(">BBBBIIHH16s16s")
_HELLO_ACK = struct.Struct(">BBBBI")
_EXTENSION = struct.Struct(">4sBBHIIIQ")
_RESUME = struct.Struct(">III")
_SUSPEND = struct.Struct(">QII")


class Mid(IntEnum):
    """Message identifiers."""

    HELLO = 0x00
    HELLO_ACK = 0x01
    DISCONNECT = 0x02
    ABORT = 0x03
    SEND_SMALL = 0x04
    RDMA_WRITE_COMPLETE = 0x05
    RDMA_READ_COMPLETE = 0x06
    MODE_CHANGE = 0x07
    SOURCE_CANCEL = 0x08
    SINK_CANCEL = 0x09
    SINK_CANCEL_ACK = 0x0A
    CHANGE_RECEIVE_BUFFER = 0x0B
    CHANGE_RECEIVE_BUFFER_ACK = 0x0C
    SUSPEND = 0x0D
    SUSPEND_ACK = 0x0E
    RESUME = 0x4D
    """Sanloom's own, of the experimental range."""
    CREDITS = 0x4E
    """Sanloom's own: credits without data. The standard uses Data without payload, which tshark 4.0 calls malformed."""
    SINK_AVAILABLE = 0xFD
    SOURCE_AVAILABLE = 0xFE
    DATA = 0xFF


class Bsdh(NamedTuple):
    """The base header. ``bufs``: receive buffers that the sender of this message has posted, its peer's credits."""

    mid: int
    flags: int
    bufs: int
    length: int
    mseq: int
    mseqack: int


@dataclass(frozen=True, slots=True)
class Extension:
    """The 28 reserved bytes of Hello and HelloAck when the author speaks Sanloom's extensions; all zero otherwise."""

    epoch: int = 0
    last_sent: int = 0
    last_received: int = 0
    connection_id: int = 0


@dataclass(frozen=True, slots=True)
class Hello:
    """Private data of the connection request."""

    bufs: int
    receive_size: int
    port: int
    source: bytes
    destination: bytes
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class HelloAck:
    """Private data of the connection reply."""

    bufs: int
    receive_size: int
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class Suspend:
    """SuspComm: a service id of 0 says that the queue pair stays, and epoch and deadline follow."""

    service_id: int
    epoch: int = 0
    deadline_ms: int = 0


@dataclass(frozen=True, slots=True)
class Resume:
    """The stream goes on under a new controlling process."""

    epoch: int
    last_sent: int
    last_received: int


def encode_message(
    mid: int, *, bufs: int, mseq: int, mseqack: int, body: bytes | memoryview = b"", flags: int = 0
) -> bytes:
    """A message: base header and body."""
    return b"".join((_BSDH.pack(mid, flags, bufs, BSDH_SIZE + len(body), mseq, mseqack), body))


def decode_header(data: bytes) -> Bsdh:
    """The base header of a message whose length it tells right; MalformedFrame otherwise. The body follows it."""
    if len(data) < BSDH_SIZE:
        raise MalformedFrame(f"an SDP message of {len(data)} bytes has no base header")
    header = Bsdh._make(_BSDH.unpack_from(data))
    if header.length != len(data):
        raise MalformedFrame(f"the SDP message says {header.length} bytes but has {len(data)}")
    return header


def decode_message(data: bytes) -> tuple[Bsdh, bytes]:
    """Base header and body; MalformedFrame if the length is wrong."""
    return decode_header(data), data[BSDH_SIZE:]


def encode_hello(hello: Hello) -> bytes:
    """The 92 bytes of private data of a REQ; IPv4 addresses stand in the last 4 of 16 bytes."""
    v6 = len(hello.source) == 16
    body = _HELLO.pack(
        0x22,
        0x60 if v6 else 0x40,
        0,
        0,
        hello.receive_size,
        hello.receive_size,
        hello.port,
        0,
        hello.source.rjust(16, b"\0"),
        hello.destination.rjust(16, b"\0"),
    ) + _encode_extension(hello.extension)
    return encode_message(Mid.HELLO, bufs=hello.bufs, mseq=0, mseqack=0, body=body)


def decode_hello(data: bytes) -> Hello:
    """The Hello in a REQ's private data; MalformedFrame if it is none."""
    if len(data) < HELLO_SIZE:
        raise MalformedFrame(f"a Hello has {HELLO_SIZE} bytes, not {len(data)}")
    header = Bsdh._make(_BSDH.unpack_from(data))
    if header.mid != Mid.HELLO:
        raise MalformedFrame(f"message {header.mid:#04x} is no Hello")
    version, ip, _, _, _, size, port, _, source, destination = _HELLO.unpack_from(data, BSDH_SIZE)
    if version >> 4 not in (1, 2) or ip >> 4 not in (4, 6):
        raise MalformedFrame(f"SDP version {version:#04x} over IP version {ip >> 4}")
    if ip >> 4 == 4:
        source, destination = source[12:], destination[12:]
    extension = _decode_extension(data[BSDH_SIZE + _HELLO.size : HELLO_SIZE])
    return Hello(header.bufs, size, port, source, destination, extension)


def encode_hello_ack(ack: HelloAck) -> bytes:
    """The private data of a REP: 24 bytes of the standard, 28 of ours."""
    body = _HELLO_ACK.pack(0x22, 0x40, 0, 0, ack.receive_size) + _encode_extension(ack.extension)
    return encode_message(Mid.HELLO_ACK, bufs=ack.bufs, mseq=0, mseqack=0, body=body)


def decode_hello_ack(data: bytes) -> HelloAck:
    """The HelloAck in a REP's private data; MalformedFrame if it is none."""
    if len(data) < BSDH_SIZE + _HELLO_ACK.size:
        raise MalformedFrame(f"{len(data)} bytes are no HelloAck")
    header = Bsdh._make(_BSDH.unpack_from(data))
    if header.mid != Mid.HELLO_ACK:
        raise MalformedFrame(f"message {header.mid:#04x} is no HelloAck")
    _, _, _, _, size = _HELLO_ACK.unpack_from(data, BSDH_SIZE)
    return HelloAck(header.bufs, size, _decode_extension(data[BSDH_SIZE + _HELLO_ACK.size :][: _EXTENSION.size]))


def encode_suspend(suspend: Suspend) -> bytes:
    """Body of SuspComm: the service id, and with service id 0 {epoch, deadline in ms}."""
    body = _SUSPEND.pack(suspend.service_id, suspend.epoch, suspend.deadline_ms)
    return body if suspend.service_id == 0 else body[:8]


def decode_suspend(body: bytes) -> Suspend:
    """The body of a SuspComm."""
    if len(body) == 8:
        return Suspend(int.from_bytes(body, "big"))
    if len(body) != _SUSPEND.size:
        raise MalformedFrame(f"a SuspComm with {len(body)} bytes of body")
    return Suspend(*_SUSPEND.unpack(body))


def encode_resume(resume: Resume) -> bytes:
    """Body of Resume."""
    return _RESUME.pack(resume.epoch, resume.last_sent, resume.last_received)


def decode_resume(body: bytes) -> Resume:
    """The body of a Resume."""
    if len(body) != _RESUME.size:
        raise MalformedFrame(f"a Resume with {len(body)} bytes of body")
    return Resume(*_RESUME.unpack(body))


def _encode_extension(extension: Extension | None) -> bytes:
    if extension is None:
        return bytes(_EXTENSION.size)
    return _EXTENSION.pack(
        TAG,
        TAG_VERSION,
        0,
        0,
        extension.epoch,
        extension.last_sent,
        extension.last_received,
        extension.connection_id,
    )


def _decode_extension(data: bytes) -> Extension | None:
    """Unknown tags and versions are a foreign peer's business: it gets the standard protocol."""
    if len(data) < _EXTENSION.size:
        return None
    tag, version, _, _, epoch, sent, received, connection = _EXTENSION.unpack(data)
    return Extension(epoch, sent, received, connection) if tag == TAG and version == TAG_VERSION else None
