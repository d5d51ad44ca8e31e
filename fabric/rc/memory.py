"""Registered memory: which bytes of a host a queue pair may read and write for its own consumer and for its peer
(InfiniBand Architecture vol. 1, 10.6; wire.md 8, rule 17).

A region is a caller's buffer (anything with the buffer protocol: a ``bytearray``, a mapping of shared memory) under two
keys. The local key lets work requests of this host name parts of it; the remote key is what the peer puts into its RDMA
extended transport header. Nothing is copied: what is written into the region is in the buffer.

Every queue pair is its own protection domain: a region belongs to one queue pair and no other may name it, whatever key
it guesses. Keys are drawn from the adapter's stream and are not used again while the region lives. A buffer has no
address here, so the table hands out virtual ones, page by page and never twice; a key that outlives its region thus
never fits a later one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, TypeAlias

from fabric.errors import SanloomError
from fabric.rng import Stream

if TYPE_CHECKING:
    from mmap import mmap

Buffer: TypeAlias = "bytes | bytearray | memoryview | mmap"

MESSAGE_MAX = 1 << 31
"""Bytes that one RDMA WRITE or READ can move (wire.md 1.2)."""
_FIRST_ADDRESS = 0x1000_0000
_PAGE = 4096


class Access(IntFlag):
    """What may be done with a region; reading it locally is always allowed."""

    LOCAL_WRITE = 1
    REMOTE_WRITE = 2
    REMOTE_READ = 4


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a region as a work request names it: ``length`` bytes from the virtual ``address`` on."""

    lkey: int
    address: int
    length: int


@dataclass(slots=True, eq=False)
class MemoryRegion:
    """A registered buffer. ``view`` is the whole of it, ``address`` the virtual address of its first byte."""

    lkey: int
    rkey: int
    address: int
    view: memoryview
    access: Access
    domain: int
    """Number of the queue pair that may name it."""

    def segment(self, offset: int = 0, length: int | None = None) -> Segment:
        """A part of the region for a work request; the rest of it without ``length``."""
        return Segment(self.lkey, self.address + offset, len(self.view) - offset if length is None else length)

    def part(self, address: int, length: int) -> memoryview | None:
        """The bytes from ``address`` on, ``None`` unless all of them lie inside. ValueError if the view is released."""
        start = address - self.address
        if start < 0 or start + length > len(self.view):
            return None
        return self.view[start : start + length]


class MemoryTable:
    """All regions of a channel adapter."""

    def __init__(self, rng: Stream) -> None:
        self._rng = rng
        self._local: dict[int, MemoryRegion] = {}
        self._remote: dict[int, MemoryRegion] = {}
        self._next_address = _FIRST_ADDRESS

    def register(self, buffer: Buffer, access: Access, *, domain: int) -> MemoryRegion:
        """Register ``buffer`` for the queue pair ``domain``.

        SanloomError for a buffer that is read-only although ``access`` has a write, for remote write without local
        write (vol. 1, 10.6.3.1), and for an empty or too long buffer.
        """
        if access & Access.REMOTE_WRITE and not access & Access.LOCAL_WRITE:
            raise SanloomError("memory region: remote write needs local write")
        view = memoryview(buffer).cast("B")
        if access & Access.LOCAL_WRITE and view.readonly:
            raise SanloomError("memory region: the buffer is read-only")
        if not 0 < len(view) <= MESSAGE_MAX:
            raise SanloomError(f"memory region: {len(view)} bytes cannot be registered")
        region = MemoryRegion(
            self._new_key(self._local), self._new_key(self._remote), self._next_address, view, access, domain
        )
        self._next_address += -(-len(view) // _PAGE) * _PAGE + _PAGE  # a page between two regions belongs to neither
        self._local[region.lkey] = region
        self._remote[region.rkey] = region
        return region

    def deregister(self, region: MemoryRegion) -> None:
        """From now on neither key names anything, and the buffer is its owner's again: a mapping can be closed once the
        local requests that use it have ended. SanloomError if it is not registered.
        """
        if not self.is_registered(region):
            raise SanloomError("memory region: it is not registered")
        del self._local[region.lkey], self._remote[region.rkey]
        region.view.release()

    def of_domain(self, domain: int) -> list[MemoryRegion]:
        """The regions of a queue pair, oldest first."""
        return [region for region in self._local.values() if region.domain == domain]

    def gather(self, segments: tuple[Segment, ...], need: Access, *, domain: int) -> Iterator[memoryview]:
        """The bytes that a work request names. SanloomError for a key, range or access that is not good."""
        for segment in segments:
            region = self._local.get(segment.lkey)
            if region is None or region.domain != domain:
                raise SanloomError(f"work request: local key {segment.lkey:#x} names no memory of this queue pair")
            if need & ~region.access:
                raise SanloomError("work request: the memory was not registered for local writing")
            part = region.part(segment.address, segment.length) if segment.length >= 0 else None
            if part is None:
                raise SanloomError(f"work request: {segment.length} bytes at {segment.address:#x} leave their region")
            yield part

    def remote(self, rkey: int, address: int, length: int, need: Access, *, domain: int) -> MemoryRegion | None:
        """The region in which the peer may do what it asks for; ``None`` if there is none (remote access error)."""
        region = self._remote.get(rkey)
        if region is None or region.domain != domain or need & ~region.access:
            return None
        start = address - region.address
        return region if start >= 0 and start + length <= len(region.view) else None

    def is_registered(self, region: MemoryRegion) -> bool:
        """Whether the region's keys are still good."""
        return self._local.get(region.lkey) is region

    def __len__(self) -> int:
        return len(self._local)

    def _new_key(self, used: dict[int, MemoryRegion]) -> int:
        key = self._rng.getrandbits(32)
        while key == 0 or key in used:
            key = self._rng.getrandbits(32)
        return key
