"""What one process has registered for one connection (winsock-direct.md 1.11; statements 67 to 74).

A handle is the local key of the region, a descriptor of RDMA memory names a region to the peer. Both are known here
only, so another socket or process that shows one is refused. Registering the same buffer with the same flags again
gives the same handle or descriptor and counts; the last deregistration ends it.

Memory that was registered for local use stays so in a cache when its last registration ends, and is found there the
next time; ``uncache`` drops what is cached of a buffer. RDMA memory is never cached: the key that the peer knows has to
go at once.

The adapter drops all regions of a queue pair that goes, so a lost connection ends the peer's access by itself; handles
and descriptors stay known until they are deregistered.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fabric.errors import SanloomError
from fabric.ids import Qpn
from fabric.rc.adapter import ChannelAdapter
from fabric.rc.memory import Access, Buffer, MemoryRegion, Segment
from provider.errors import WsaErrno, WsaError
from provider.spi import WSABUFEX, DescriptorLength, MemoryFlags, MemoryHandle

REGISTRATIONS_MAX = 4096
"""Regions of one connection, cached ones not counted; WSAENOBUFS beyond."""
CACHED_MAX = 64
_DESCRIPTOR = struct.Struct(">QII")
DESCRIPTOR_SIZE = _DESCRIPTOR.size
"""Virtual address 8, remote key 4, length 4, as in an RDMA extended transport header."""
_LOCAL = {
    MemoryFlags.MEM_READ: Access(0),
    MemoryFlags.MEM_WRITE: Access.LOCAL_WRITE,
    MemoryFlags.MEM_READWRITE: Access.LOCAL_WRITE,
}
_REMOTE = {
    MemoryFlags.MEM_READ: Access.REMOTE_READ,
    MemoryFlags.MEM_WRITE: Access.LOCAL_WRITE | Access.REMOTE_WRITE,
    MemoryFlags.MEM_READWRITE: Access.LOCAL_WRITE | Access.REMOTE_WRITE | Access.REMOTE_READ,
}


@dataclass(frozen=True, slots=True)
class RdmaDescriptor:
    """The peer's memory as its descriptor names it."""

    address: int
    rkey: int
    length: int

    @classmethod
    def unpack(cls, descriptor: bytes) -> "RdmaDescriptor":
        """WSAEFAULT for a block that is no descriptor."""
        if len(descriptor) != DESCRIPTOR_SIZE:
            raise WsaError(WsaErrno.WSAEFAULT, f"an RDMA buffer descriptor has {DESCRIPTOR_SIZE} bytes")
        return cls(*_DESCRIPTOR.unpack(descriptor))


@dataclass(slots=True, eq=False)
class Registration:
    """A registered buffer; that it is kept here keeps its identity its own."""

    buffer: Buffer
    flags: MemoryFlags
    region: MemoryRegion
    count: int = 1

    @property
    def key(self) -> tuple[int, MemoryFlags]:
        """What a further registration of the same memory has in common with this one."""
        return id(self.buffer), self.flags


class SocketMemory:
    """See the module text."""

    def __init__(self, adapter: ChannelAdapter, qpn: Qpn, *, cache: bool) -> None:
        self._adapter = adapter
        self._qpn = qpn
        self._cache_size = CACHED_MAX if cache else 0
        self._local: dict[MemoryHandle, Registration] = {}
        self._local_keys: dict[tuple[int, MemoryFlags], Registration] = {}
        self._remote: dict[bytes, Registration] = {}
        self._remote_keys: dict[tuple[int, MemoryFlags], bytes] = {}
        self._cached: OrderedDict[tuple[int, MemoryFlags], Registration] = OrderedDict()

    def register(self, buffer: Buffer, flags: MemoryFlags) -> MemoryHandle:
        """A handle for local use. WSAEINVAL for wrong flags, WSAEFAULT for an unfit buffer, WSAENOBUFS when full."""
        access = _access(_LOCAL, flags)
        known = self._local_keys.get((id(buffer), flags))
        if known is not None:
            known.count += 1
            return MemoryHandle(known.region.lkey)
        known = self._cached.pop((id(buffer), flags), None)
        if known is None:
            known = Registration(buffer, flags, self._region(buffer, access))
        known.count = 1
        self._local_keys[known.key] = known
        handle = MemoryHandle(known.region.lkey)
        self._local[handle] = known
        return handle

    def deregister(self, handle: MemoryHandle, busy: bool) -> None:
        """End one registration. WSAEINVAL for an unknown handle, and for the last one while a transfer uses it."""
        known = self._local.get(handle)
        if known is None:
            raise WsaError(WsaErrno.WSAEINVAL, f"{handle:#x} is no memory of this socket")
        if known.count == 1 and busy:
            raise WsaError(WsaErrno.WSAEINVAL, "a transfer is using the memory")
        known.count -= 1
        if known.count:
            return
        del self._local[handle], self._local_keys[known.key]
        self._cached[known.key] = known
        while len(self._cached) > self._cache_size:
            self._forget(self._cached.popitem(last=False)[1])

    def register_rdma(self, buffer: Buffer, flags: MemoryFlags, length: DescriptorLength) -> bytes:
        """A descriptor for the peer. Errors as ``register``; WSAEFAULT with the size needed in ``length`` if the block
        is too short.
        """
        access = _access(_REMOTE, flags)
        room, length.value = length.value, DESCRIPTOR_SIZE
        if room < DESCRIPTOR_SIZE:
            raise WsaError(WsaErrno.WSAEFAULT, f"the descriptor takes {DESCRIPTOR_SIZE} bytes, not {room}")
        descriptor = self._remote_keys.get((id(buffer), flags))
        if descriptor is not None:
            self._remote[descriptor].count += 1
            return descriptor
        region = self._region(buffer, access)
        known = Registration(buffer, flags, region)
        descriptor = _DESCRIPTOR.pack(region.address, region.rkey, len(region.view))
        self._remote[descriptor], self._remote_keys[known.key] = known, descriptor
        return descriptor

    def deregister_rdma(self, descriptor: bytes) -> None:
        """End one registration; with the last one the peer's access, even in the middle of a read. WSAEINVAL for an
        unknown descriptor.
        """
        known = self._remote.get(descriptor)
        if known is None:
            raise WsaError(WsaErrno.WSAEINVAL, "the descriptor names no memory of this socket")
        known.count -= 1
        if not known.count:
            del self._remote[descriptor], self._remote_keys[known.key]
            self._forget(known)

    def uncache(self, buffer: Buffer) -> None:
        """Drop what is cached of the memory that ``buffer`` lies in."""
        owner = memoryview(buffer).obj
        for key, known in list(self._cached.items()):
            if memoryview(known.buffer).obj is owner:
                del self._cached[key]
                self._forget(known)

    def release(self) -> None:
        """Drop everything, the peer's access included."""
        for known in [*self._local.values(), *self._remote.values(), *self._cached.values()]:
            self._forget(known)
        for table in (self._local, self._local_keys, self._remote, self._remote_keys, self._cached):
            table.clear()

    def segments(self, buffers: Sequence[WSABUFEX], need: MemoryFlags) -> Iterator[Segment]:
        """Where the buffers of an RDMA operation lie. WSAEFAULT for a handle, range or flag that is not good."""
        for buffer in buffers:
            known = self._local.get(buffer.handle)
            if known is None or need & ~known.flags:
                raise WsaError(WsaErrno.WSAEFAULT, "a buffer is not registered for this operation on this socket")
            if buffer.offset < 0 or buffer.length < 0 or buffer.offset + buffer.length > len(known.region.view):
                raise WsaError(WsaErrno.WSAEFAULT, "a buffer leaves the memory that it was registered with")
            yield known.region.segment(buffer.offset, buffer.length)

    def __len__(self) -> int:
        return len(self._local) + len(self._remote)

    def _region(self, buffer: Buffer, access: Access) -> MemoryRegion:
        if len(self) >= REGISTRATIONS_MAX:
            raise WsaError(WsaErrno.WSAENOBUFS, f"{REGISTRATIONS_MAX} regions are registered for this connection")
        try:
            return self._adapter.register_memory(self._qpn, buffer, access)
        except (SanloomError, TypeError, ValueError) as error:
            raise WsaError(WsaErrno.WSAEFAULT, str(error)) from None

    def _forget(self, known: Registration) -> None:
        if self._adapter.memory.is_registered(known.region):
            self._adapter.deregister_memory(known.region)


def _access(table: dict[MemoryFlags, Access], flags: MemoryFlags) -> Access:
    access = table.get(flags)
    if access is None:
        raise WsaError(WsaErrno.WSAEINVAL, f"{int(flags):#x} is no combination of MEM_READ and MEM_WRITE")
    return access
