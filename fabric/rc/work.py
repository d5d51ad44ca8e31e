"""Work requests and their completions (InfiniBand Architecture vol. 1, 11.4, 11.6)."""

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, NamedTuple, TypeAlias

from fabric.rc.memory import Segment


class CompletionStatus(Enum):
    """How a work request ended, or why a queue pair went to ERR."""

    SUCCESS = "success"
    LOCAL_LENGTH_ERROR = "local length error"
    LOCAL_OPERATION_ERROR = "local operation error"
    LOCAL_PROTECTION_ERROR = "local protection error"
    LOCAL_ACCESS_ERROR = "local access error"
    """The peer asked for memory that it may not have."""
    FLUSHED = "flushed in error"
    REMOTE_INVALID_REQUEST = "remote invalid request"
    REMOTE_ACCESS_ERROR = "remote access error"
    REMOTE_OPERATIONAL_ERROR = "remote operational error"
    RETRY_EXCEEDED = "transport retry counter exceeded"
    RNR_RETRY_EXCEEDED = "RNR retry counter exceeded"


@dataclass(slots=True, eq=False)
class SendWorkRequest:
    """Send ``payload`` as one message."""

    wr_id: int
    payload: bytes
    solicited: bool = False
    kind: ClassVar[str] = "send"


@dataclass(slots=True, eq=False)
class WriteWorkRequest:
    """Write the bytes of ``segments``, one behind the other, to the peer's memory at ``remote_address``.

    With ``immediate`` (32 bits) the peer's oldest receive completes when all is written. The bytes are read when a
    packet leaves, so what changes in them meanwhile may or may not travel.
    """

    wr_id: int
    segments: tuple[Segment, ...]
    remote_address: int
    rkey: int
    immediate: int | None = None
    solicited: bool = False
    payload: bytes | memoryview = field(default=b"", init=False)
    """The queue pair's: the bytes that the segments name."""
    kind: ClassVar[str] = "write"


@dataclass(slots=True, eq=False)
class ReadWorkRequest:
    """Read the peer's memory at ``remote_address`` into ``segments``, as many bytes as they have room for."""

    wr_id: int
    segments: tuple[Segment, ...]
    remote_address: int
    rkey: int
    targets: tuple[memoryview, ...] = field(default=(), init=False)
    """The queue pair's: the bytes that the segments name."""
    size: int = field(default=0, init=False)
    kind: ClassVar[str] = "read"

    def place(self, offset: int, data: bytes) -> None:
        """Put ``data``, which begins ``offset`` bytes into the message, where it belongs. ValueError if a buffer is
        gone.
        """
        for target in self.targets:
            room = len(target) - offset
            if room > 0:
                taken = data[:room]
                target[offset : offset + len(taken)] = taken
                data = data[room:]
                offset = 0
                if not data:
                    return
            else:
                offset -= len(target)


SendQueueRequest: TypeAlias = SendWorkRequest | WriteWorkRequest | ReadWorkRequest
"""What may be posted to a send queue; they complete in the order in which they were posted."""


@dataclass(slots=True, eq=False)
class ReceiveWorkRequest:
    """Take one message of at most ``length`` bytes."""

    wr_id: int
    length: int


class WorkCompletion(NamedTuple):
    """The end of a work request; ``opcode`` is "send", "write", "read" or "receive", ``data`` the message received.

    ``immediate`` is the peer's, of a receive that an RDMA WRITE with immediate data has taken.
    """

    wr_id: int
    opcode: str
    status: CompletionStatus
    data: bytes = b""
    immediate: int | None = None
