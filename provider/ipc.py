"""What an application process and its host's agent say to each other: one JSON object per packet of an AF_UNIX
SOCK_SEQPACKET.

A request is ``{"id": n, "op": name, ...}``; the reply is ``{"id": n, "result": {...}}`` or ``{"id": n, "error":
{"wsa": number, "text": ...}}``. File descriptors travel beside a reply as SCM_RIGHTS. Binary members are base64. The
operations are listed in ``docs/ipc.md``. Packets longer than PACKET_MAX, anything that is not such an object and
unknown operations are errors of the sender; the other side counts them and closes the connection.
"""

import base64
import binascii
import json
import socket
import struct
from typing import Any

VERSION = 1
PACKET_MAX = 65_536
ENVIRONMENT_AGENT = "SANLOOM_AGENT"
"""Path of the agent's socket, in the environment of every application of a host."""


class BadPacket(ValueError):
    """A packet that is not one of ours."""


def connect(sock: socket.socket, path: str, seconds: float) -> None:
    """Connect a fresh AF_UNIX socket, whose timeout is ``seconds`` from then on; OSError when nobody takes the call.

    A socket with a timeout is told at once that a server's queue is full (EAGAIN); one that blocks waits for room.
    """
    sock.setblocking(True)
    timeout = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    sock.connect(path)
    sock.settimeout(seconds)


def encode(message: dict[str, Any]) -> bytes:
    """A message as one packet."""
    packet = json.dumps(message, separators=(",", ":")).encode()
    if len(packet) > PACKET_MAX:
        raise BadPacket(f"a message of {len(packet)} bytes is longer than {PACKET_MAX}")
    return packet


def decode(packet: bytes) -> dict[str, Any]:
    """One packet as a message; BadPacket for everything else."""
    if len(packet) > PACKET_MAX:
        raise BadPacket("the packet is too long")
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise BadPacket("the packet is not JSON") from error
    if not isinstance(message, dict):
        raise BadPacket("the packet is not a JSON object")
    return message


def to_text(data: bytes) -> str:
    """Bytes as a member of a message."""
    return base64.b64encode(data).decode()


def from_text(text: object) -> bytes:
    """A binary member of a message; BadPacket if it is none."""
    if not isinstance(text, str):
        raise BadPacket("a binary member is not a string")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadPacket("a binary member is not base64") from error


def member(message: dict[str, Any], name: str, kind: type, default: Any = ...) -> Any:
    """A member of the given type; BadPacket if it is missing (and has no default) or of another type."""
    value = message.get(name, default)
    if value is default and default is not ...:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise BadPacket(f"{name!r} must be a {kind.__name__}")
    return value


def address(message: dict[str, Any], name: str = "address") -> tuple[str, int]:
    """An ``[ip, port]`` member."""
    value = message.get(name)
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not isinstance(value[0], str)
        or not isinstance(value[1], int)
        or isinstance(value[1], bool)
        or not 0 <= value[1] <= 65_535
    ):
        raise BadPacket(f"{name!r} must be [ip, port]")
    return value[0], value[1]
