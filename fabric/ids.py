"""Identifiers as small value types, so that a queue pair number never passes for a port."""

from dataclasses import dataclass
from typing import NewType

NodeName = NewType("NodeName", str)
LinkName = NewType("LinkName", str)
"""Name of one *direction* of a link: ``client->s1``."""
PortNumber = NewType("PortNumber", int)
"""A port of a network switch, or the adapter port of a host (always 0)."""
Qpn = NewType("Qpn", int)
"""Queue pair number, 24 bits; 0 and 1 are the management queue pairs."""
CommId = NewType("CommId", int)
"""Communication id of the connection manager, 32 bits, chosen per host."""
SocketDescriptor = NewType("SocketDescriptor", int)
"""The provider's number for a socket."""
SocketHandle = NewType("SocketHandle", int)
"""The sockets switch's number for a socket (``WPUCreateSocketHandle``)."""
CatalogEntryId = NewType("CatalogEntryId", int)


@dataclass(frozen=True, slots=True, order=True)
class ProcessInstance:
    """One life of a process: a pid alone may be reused, a pid with its start time may not.

    ``start_time`` is field 22 of ``/proc/PID/stat`` (clock ticks since boot); in the simulator any number.
    """

    pid: int
    start_time: int

    def __str__(self) -> str:
        return f"{self.pid}@{self.start_time}"
