"""Work requests and their completions (InfiniBand Architecture vol. 1, 11.4, 11.6)."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class CompletionStatus(Enum):
    """How a work request ended."""

    SUCCESS = "success"
    LOCAL_LENGTH_ERROR = "local length error"
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


@dataclass(slots=True, eq=False)
class ReceiveWorkRequest:
    """Take one message of at most ``length`` bytes."""

    wr_id: int
    length: int


class WorkCompletion(NamedTuple):
    """The end of a work request; ``opcode`` is "send" or "receive", ``data`` the message received."""

    wr_id: int
    opcode: str
    status: CompletionStatus
    data: bytes = b""
