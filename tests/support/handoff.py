"""A handoff registry with short ways to say what its tests say often."""

from dataclasses import replace
from itertools import count

from fabric.ids import ProcessInstance, SocketDescriptor
from fabric.units import SECOND, Instant
from provider.catalog import SAN_ENTRY
from provider.handoff.registry import Grant, HandoffRegistry, Holder, RegistryEvent, TransferId

NODE_KEY = bytes(range(32))
SOURCE = ProcessInstance(100, 1)
TARGET = ProcessInstance(200, 1)
THIRD = ProcessInstance(300, 1)
SOCKET = 7
LIFETIME = 5 * SECOND


class Bench:
    """One registry; numbers of descriptors and tickets are drawn from counters."""

    def __init__(self, key: bytes = NODE_KEY) -> None:
        self.registry = HandoffRegistry(key)
        self.now: Instant = 0
        self._numbers = count(1)

    def holder(self, process: ProcessInstance) -> Holder:
        """A fresh descriptor of ``process``."""
        return Holder(process, SocketDescriptor(next(self._numbers)))

    def opened(self, process: ProcessInstance = SOURCE, socket_id: int = SOCKET) -> Holder:
        """A new socket's first descriptor."""
        holder = self.holder(process)
        self.registry.open(socket_id, holder, self.now)
        return holder

    def begin(self, source: Holder, target: ProcessInstance = TARGET, socket_id: int = SOCKET) -> TransferId:
        """WSPDuplicateSocket up to its first stage."""
        secret = next(self._numbers).to_bytes(20, "big")
        return self.registry.begin(socket_id, source, target, self.now, secret=secret, lifetime=LIFETIME)

    def record(self, transfer: TransferId) -> bytes:
        """The ticket of a transfer that begins to drain."""
        self.registry.drained(transfer, self.now)
        template = replace(SAN_ENTRY, dwProviderReserved=0x10000 + next(self._numbers))
        return self.registry.record_ticket(transfer, template, self.now).pack()

    def ticket(self, source: Holder, target: ProcessInstance = TARGET, socket_id: int = SOCKET) -> bytes:
        """The whole of WSPDuplicateSocket."""
        return self.record(self.begin(source, target, socket_id))

    def check(self, info: bytes, process: ProcessInstance = TARGET) -> Grant:
        """The first half of WSPSocket with a ticket."""
        return self.registry.check(info, process, self.now)

    def redeem(self, info: bytes, process: ProcessInstance = TARGET) -> Holder:
        """The whole of WSPSocket with a ticket."""
        grant, holder = self.check(info, process), self.holder(process)
        self.registry.commit(grant, holder, self.now)
        self.registry.resumed(grant.transfer, self.now)
        return holder

    def events(self) -> list[RegistryEvent]:
        """All events that wait."""
        found: list[RegistryEvent] = []
        while (event := self.registry.poll_event()) is not None:
            found.append(event)
        return found

    def is_at_baseline(self) -> bool:
        """Nothing is held."""
        counts = self.registry.statistics()
        return (counts.sockets, counts.descriptors, counts.tickets, counts.resuming) == (0, 0, 0, 0)
