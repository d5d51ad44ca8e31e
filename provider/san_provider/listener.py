"""Services that accept connections, and the requests that wait at them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fabric.ids import CommId
from fabric.units import Instant


@dataclass(slots=True, eq=False)
class Request:
    """A connection request waiting at a listener."""

    comm_id: CommId
    remote_ip: bytes
    caller_data: bytes
    remote_qpn: int
    starting_psn: int
    path_mtu: int


@dataclass(slots=True, eq=False)
class Listener:
    """A service that accepts connection requests: a port's, or one that a SuspComm named."""

    service_id: int
    backlog: int
    on_request: Callable[[Instant], None]
    requests: deque[Request] = field(default_factory=deque)
