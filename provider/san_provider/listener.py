"""Services that accept connections, and the requests that wait at them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fabric.cm.manager import RequestReceived
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
    responder_resources: int
    initiator_depth: int

    @classmethod
    def of(cls, event: RequestReceived) -> "Request":
        """What the connection manager reported."""
        request = event.request
        return cls(
            event.comm_id,
            event.remote_ip,
            bytes(request.private_data),
            request.local_qpn,
            request.starting_psn,
            event.path_mtu,
            request.responder_resources,
            request.initiator_depth,
        )


@dataclass(slots=True, eq=False)
class Listener:
    """A service that accepts connection requests: a port's, or one that a SuspComm named."""

    service_id: int
    backlog: int
    on_request: Callable[[Instant], None]
    requests: deque[Request] = field(default_factory=deque)
