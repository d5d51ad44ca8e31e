"""A connection with memory at both ends: host ``a`` of an ``RcWire`` writes to and reads from the memory of ``b``."""

from typing import Any

from fabric.ids import Qpn
from fabric.rc.memory import Access, MemoryRegion
from fabric.rc.work import CompletionStatus, ReadWorkRequest, SendWorkRequest, WriteWorkRequest
from fabric.wire.fast import Packet
from fabric.wire.headers import Reth
from tests.support.rc_wire import RcHost, RcWire

OK = CompletionStatus.SUCCESS
EVERYTHING = Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ
WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST, WRITE_LAST_IMMEDIATE, WRITE_ONLY, WRITE_ONLY_IMMEDIATE = range(6, 12)
READ, READ_FIRST, READ_MIDDLE, READ_LAST, READ_ONLY = range(12, 17)
READ_RESPONSES = (READ_FIRST, READ_MIDDLE, READ_LAST, READ_ONLY)


def pattern(size: int, start: int = 0) -> bytes:
    """Bytes that differ from their neighbours and from those 256 further on."""
    return bytes((n * 7 + n // 256 + start) & 0xFF for n in range(size))


class RdmaPair:
    """``here`` is a's memory, ``there`` b's; work requests of a are numbered from 1."""

    def __init__(self, *, size: int = 8192, access: Access = EVERYTHING, seed: int = 1, **settings: Any) -> None:
        self.wire = RcWire(seed)
        self.a, self.b = self.wire.a, self.wire.b
        self.a_qpn, self.b_qpn = self.wire.connected(**({"resources": 4, "max_rd_atomic": 4} | settings))
        self.here, self.there = bytearray(pattern(size, 1)), bytearray(pattern(size, 100))
        self.local = self.register(self.a, self.a_qpn, self.here)
        self.remote = self.register(self.b, self.b_qpn, self.there, access)
        self.posted = 0

    def register(self, host: RcHost, qpn: int, buffer: bytearray, access: Access = EVERYTHING) -> MemoryRegion:
        return host.adapter.register_memory(Qpn(qpn), buffer, access)

    def write(self, at: int, data_at: int, size: int, *, rkey: int = -1, immediate: int | None = None) -> None:
        """``here[data_at:][:size]`` to ``there[at:]``; ``at`` may lie outside."""
        self.posted += 1
        self.post(
            WriteWorkRequest(
                self.posted,
                (self.local.segment(data_at, size),) if size else (),
                self.remote.address + at,
                self.remote.rkey if rkey < 0 else rkey,
                immediate,
            )
        )

    def read(self, at: int, into: int, size: int, *, rkey: int = -1) -> None:
        """``there[at:][:size]`` to ``here[into:]``; ``at`` may lie outside."""
        self.posted += 1
        self.post(
            ReadWorkRequest(
                self.posted,
                (self.local.segment(into, size),) if size else (),
                self.remote.address + at,
                self.remote.rkey if rkey < 0 else rkey,
            )
        )

    def send(self, payload: bytes) -> None:
        self.posted += 1
        self.post(SendWorkRequest(self.posted, payload))

    def post(self, request: SendWorkRequest | WriteWorkRequest | ReadWorkRequest) -> None:
        self.a.adapter.post_send(Qpn(self.a_qpn), request, self.wire.now)

    def run(self, duration: int = 10_000_000_000) -> None:
        self.wire.run(duration)

    @property
    def ended(self) -> list[tuple[int, CompletionStatus]]:
        return self.a.ended.get(self.a_qpn, [])

    def all_good(self) -> bool:
        """Whether all that was posted has succeeded, in order."""
        return self.ended == [(n + 1, OK) for n in range(self.posted)] and not self.a.fatal and not self.b.fatal

    def requests(self) -> list[tuple[int, int, int]]:
        """The READ requests that a sent: (PSN, offset in ``there``, length)."""
        found = [(p.psn, Reth.FORMAT.unpack(p.extension)) for p in self.wire.sent(self.a, READ)]
        return [(psn, address - self.remote.address, length) for psn, (address, _, length) in found]

    def responses(self) -> list[Packet]:
        """The packets of answers that b sent."""
        return self.wire.sent(self.b, *READ_RESPONSES)
