"""Registered memory of a socket against a model that only counts: whatever is registered is reachable, nothing else is,
and the adapter holds no region that nobody asked for.
"""

from collections import Counter

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import integers, sampled_from

from fabric.rc.adapter import ChannelAdapter
from fabric.rc.memory import Access
from fabric.rng import stream
from provider.errors import WsaErrno
from provider.san_provider.memory import RdmaDescriptor, SocketMemory
from provider.spi import WSABUFEX, DescriptorLength, MemoryFlags
from tests.support.rc_wire import A_IP, MACS
from tests.support.spi_bench import error_of

FLAGS = sampled_from((MemoryFlags.MEM_READ, MemoryFlags.MEM_WRITE, MemoryFlags.MEM_READWRITE))
BUFFERS = integers(0, 3)
NEEDS = {MemoryFlags.MEM_READ: Access.REMOTE_READ, MemoryFlags.MEM_WRITE: Access.REMOTE_WRITE}


class SocketMemoryMachine(RuleBasedStateMachine):
    """Registrations by (buffer number, flags), local and remote, with the caches of the last ones."""

    def __init__(self):
        super().__init__()
        self.adapter = ChannelAdapter(mac=MACS[A_IP], ip=A_IP, neighbours=MACS.get, rng=stream(1, "a"), guid=1)
        self.qpn = self.adapter.create_queue_pair().qpn
        self.memory = SocketMemory(self.adapter, self.qpn, cache=True)
        self.buffers = [bytearray(10 + n) for n in range(4)]
        self.local, self.remote = Counter(), Counter()
        self.handles, self.descriptors = {}, {}
        self.cached, self.connected = set(), True

    @precondition(lambda self: self.connected)
    @rule(number=BUFFERS, flags=FLAGS)
    def register(self, number, flags):
        handle = self.memory.register(self.buffers[number], flags)
        assert self.handles.setdefault((number, flags), handle) == handle
        self.cached.discard((number, flags))
        self.local[number, flags] += 1

    @rule(number=BUFFERS, flags=FLAGS)
    def deregister(self, number, flags):
        handle = self.handles.get((number, flags), 12345)
        known = self.local[number, flags] > 0
        assert error_of(lambda: self.memory.deregister(handle, False)) == (0 if known else WsaErrno.WSAEINVAL)
        self.local[number, flags] -= known
        if known and not self.local[number, flags]:
            self.cached.add((number, flags))

    @rule(number=BUFFERS)
    def uncache(self, number):
        self.memory.uncache(memoryview(self.buffers[number])[2:4])
        for key in [key for key in self.cached if key[0] == number]:
            self.cached.discard(key)
            del self.handles[key]

    @precondition(lambda self: self.connected)
    @rule(number=BUFFERS, flags=FLAGS)
    def expose(self, number, flags):
        descriptor = self.memory.register_rdma(self.buffers[number], flags, DescriptorLength(16))
        assert self.descriptors.setdefault((number, flags), descriptor) == descriptor
        self.remote[number, flags] += 1

    @rule(number=BUFFERS, flags=FLAGS)
    def unexpose(self, number, flags):
        descriptor = self.descriptors.get((number, flags), bytes(16))
        known = self.remote[number, flags] > 0
        assert error_of(lambda: self.memory.deregister_rdma(descriptor)) == (0 if known else WsaErrno.WSAEINVAL)
        self.remote[number, flags] -= known
        if known and not self.remote[number, flags]:
            del self.descriptors[number, flags]
            assert not self.reachable(descriptor, flags)

    @precondition(lambda self: self.connected)
    @rule(chance=integers(0, 9))
    def disconnect(self, chance):
        if chance == 0:
            self.adapter.destroy_queue_pair(self.qpn)
            self.connected = False

    @invariant()
    def what_is_registered_is_reachable(self):
        local = {key for key, count in self.local.items() if count}
        remote = {key for key, count in self.remote.items() if count}
        assert len(self.memory) == len(local) + len(remote)
        expected = len(local) + len(remote) + len(self.cached) if self.connected else 0
        assert len(self.adapter.memory) == expected
        for number, flags in remote:
            assert self.reachable(self.descriptors[number, flags], flags) is self.connected
        for number, flags in local if self.connected else ():
            size = len(self.buffers[number])
            (segment,) = self.memory.segments([WSABUFEX(size, 0, self.handles[number, flags])], flags)
            assert segment.length == size

    def reachable(self, descriptor, flags):
        """Whether the peer can do what ``flags`` say, and (checked) nothing more."""
        found = RdmaDescriptor.unpack(descriptor)
        can = {
            flag: self.adapter.memory.remote(found.rkey, found.address, found.length, need, domain=self.qpn) is not None
            for flag, need in NEEDS.items()
        }
        assert not any(can[flag] for flag in NEEDS if flag not in flags)
        return all(can[flag] for flag in NEEDS if flag in flags)


TestSocketMemory = SocketMemoryMachine.TestCase
TestSocketMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
