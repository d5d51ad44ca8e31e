"""What a node's remote control and its client say to each other, over :mod:`fabric.live.message_channel`.

A message is one byte (:class:`Kind`) and a payload. One client connection is one command::

    client -> node   RUN {"arguments": [...], "terminal": null | [rows, columns]}, INPUT ..., INPUT (empty: the end)
    node -> client   OUTPUT ..., ERRORS ..., EXIT {"status": 0}
    client -> node   RESIZE {"terminal": [rows, columns]}, at any time
    client -> node   ASK {"op": "state" | "pause" | "resume" | "kill"}
    node -> client   ANSWER {...}
    node -> client   REFUSED text, in UTF-8: instead of any of these; nothing follows
    both             CREDIT u32: that many bytes of yours have been taken
    both             ALIVE, every ALIVE_SECONDS

Nobody has more than CREDIT_BYTES of INPUT, or of OUTPUT and ERRORS together, under way. A side that hears nothing for
SILENT_SECONDS takes the other for gone: the node then ends the command, the client says so.
"""

import json
import struct
from enum import IntEnum
from typing import Any

from fabric.errors import SanloomError

CREDIT_BYTES = 1 << 20
CHUNK = 1 << 16
ALIVE_SECONDS = 1.0
SILENT_SECONDS = 5.0
ARGUMENTS_MAX = 1 << 17
"""Bytes of a RUN message."""
_CREDIT = struct.Struct("!I")


class Kind(IntEnum):
    """The first byte of a message."""

    RUN = 1
    INPUT = 2
    OUTPUT = 3
    ERRORS = 4
    EXIT = 5
    ASK = 6
    ANSWER = 7
    REFUSED = 8
    CREDIT = 9
    ALIVE = 10
    RESIZE = 11


class MalformedMessage(SanloomError, ValueError):
    """Bytes that are no message of this protocol."""


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """A message."""
    return bytes((kind,)) + payload


def encode_json(kind: Kind, content: dict[str, Any]) -> bytes:
    """A message with a JSON object."""
    return encode(kind, json.dumps(content).encode())


def encode_credit(size: int) -> bytes:
    """CREDIT for ``size`` bytes."""
    return encode(Kind.CREDIT, _CREDIT.pack(size))


def decode(message: bytes) -> tuple[Kind, bytes]:
    """Kind and payload; MalformedMessage."""
    try:
        return Kind(message[0]), message[1:]
    except (IndexError, ValueError):
        raise MalformedMessage(f"no message: {message[:1].hex() or 'empty'}") from None


def decode_json(payload: bytes) -> dict[str, Any]:
    """The JSON object of a RUN, EXIT, ASK or ANSWER; MalformedMessage."""
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError):
        raise MalformedMessage("not JSON") from None
    if not isinstance(content, dict):
        raise MalformedMessage("not a JSON object")
    return content


def decode_arguments(payload: bytes) -> tuple[list[str], tuple[int, int] | None]:
    """Arguments and the terminal's size of a RUN; MalformedMessage."""
    if len(payload) > ARGUMENTS_MAX:
        raise MalformedMessage(f"a command line of {len(payload)} bytes; at most {ARGUMENTS_MAX}")
    content = decode_json(payload)
    arguments, terminal = content.get("arguments"), content.get("terminal")
    if not isinstance(arguments, list) or not arguments or not all(isinstance(each, str) for each in arguments):
        raise MalformedMessage("arguments: expected a list of texts")
    if any("\0" in each for each in arguments):
        raise MalformedMessage("arguments: a NUL in a command line")
    return arguments, None if terminal is None else _terminal(terminal)


def decode_resize(payload: bytes) -> tuple[int, int]:
    """Rows and columns of a RESIZE; MalformedMessage."""
    return _terminal(decode_json(payload).get("terminal"))


def decode_credit(payload: bytes) -> int:
    """Bytes; MalformedMessage."""
    if len(payload) != _CREDIT.size:
        raise MalformedMessage("a credit of a wrong size")
    size: int = _CREDIT.unpack(payload)[0]
    return size


def _terminal(value: object) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(_is_size(each) for each in value)):
        raise MalformedMessage("terminal: expected rows and columns")
    return value[0], value[1]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10_000


class Credit:
    """What one side may still send: starts at CREDIT_BYTES."""

    def __init__(self) -> None:
        self.left = CREDIT_BYTES

    def take(self, size: int) -> None:
        """``size`` bytes have been sent."""
        assert size <= self.left
        self.left -= size

    def give(self, size: int) -> None:
        """The other side has taken ``size`` bytes; MalformedMessage if it never had them."""
        if self.left + size > CREDIT_BYTES:
            raise MalformedMessage(f"a credit for {size} bytes that were never sent")
        self.left += size
