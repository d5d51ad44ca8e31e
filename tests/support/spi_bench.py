"""Two hosts whose providers are driven through the SPI itself, with a sockets switch that only takes notes.

No session protocol is on top: what goes over a connection here are the test's own messages.
"""

from collections import deque
from itertools import count

from fabric.cm.manager import ConnectionManager
from fabric.ids import ProcessInstance, SocketHandle
from fabric.rc.adapter import ChannelAdapter
from fabric.rng import stream
from fabric.units import MILLISECOND
from provider import constants as c
from provider.catalog import TCPIP_ENTRY
from provider.errors import WsaErrno, WsaError
from provider.san_provider.config import ProxyConfig
from provider.san_provider.parking import ParkingTable
from provider.san_provider.proxy_driver import ProxyDriver
from provider.san_provider.service_provider import VERSION_2_2, SanServiceProvider
from provider.spi import (
    EXTENSIONS,
    WSABUFEX,
    CallLog,
    ConditionDecision,
    ConditionResult,
    DescriptorLength,
    MemoryFlags,
    NetworkEvent,
    Overlapped,
    UpcallTable,
    proc_table,
)

IPS = {"a": "10.0.0.1", "b": "10.0.0.2"}
_BYTES = {name: bytes(map(int, ip.split("."))) for name, ip in IPS.items()}
_MACS = {ip: b"\x02\x00" + ip for ip in _BYTES.values()}


class Instance:
    """The provider as one process sees it, and what it called up."""

    def __init__(self, bench, host, pid):
        self.bench, self.host = bench, host
        self.process = ProcessInstance(pid, 1)
        self.provider = SanServiceProvider(self.process, host.proxy, host.parking)
        self.calls = []
        log = CallLog(self.process, lambda name, _process, outcome: self.calls.append((name, outcome)))
        self.table = log.trace_calls(proc_table(self.provider))
        self.counts = log.counts
        self.handles = {}
        self.closed = []
        self.completed = deque()
        self.signalled = []
        self.full = False
        self._handles = count(1000)
        self.upcalls = log.trace_upcalls(
            UpcallTable(
                WPUCreateSocketHandle=self._create,
                WPUCloseSocketHandle=self._close,
                WPUQuerySocketHandleContext=self.handles.get,
                WPUCompleteOverlappedRequest=self._complete,
                WPUSetEvent=self.signalled.append,
            )
        )

    def start(self, version=VERSION_2_2):
        """WSPStartupEx as the switch calls it."""
        self.table.WSPStartupEx(version, self.upcalls, TCPIP_ENTRY.info, self.bench.now)
        return self

    def socket(
        self, info=None, family=c.AF_INET, kind=c.SOCK_STREAM, protocol=c.IPPROTO_TCP, flags=c.WSA_FLAG_OVERLAPPED
    ):
        """WSPSocket."""
        return self.table.WSPSocket(family, kind, protocol, info, flags, self.bench.now)

    def bound(self, port=0):
        """A socket that is bound."""
        s = self.socket()
        self.table.WSPBind(s, (IPS[self.host.name], port), self.bench.now)
        return s

    def listening(self, port, backlog=5):
        """A socket that listens and signals requests."""
        s = self.bound(port)
        self.table.WSPListen(s, backlog, self.bench.now)
        self.table.WSPEventSelect(s, NetworkEvent.FD_ACCEPT, self.bench.now)
        return s

    def connect(self, s, address, data=b"hello"):
        """WSPEventSelect and WSPConnect, as the switch calls them; the error's number."""
        self.table.WSPEventSelect(s, NetworkEvent.FD_CONNECT, self.bench.now)
        return error_of(lambda: self.table.WSPConnect(s, address, data, self.bench.now))

    def accept(self, s, decision=ConditionResult.CF_ACCEPT, data=b"welcome"):
        """WSPAccept."""
        return self.table.WSPAccept(s, lambda caller: ConditionDecision(decision, data), self.bench.now)

    def events(self, s):
        """WSPEnumNetworkEvents."""
        return self.table.WSPEnumNetworkEvents(s, self.bench.now)

    def recv(self, s, notify=True):
        """WSPRecv; the overlapped structure."""
        overlapped = Overlapped(length=4096, notify=notify)
        self.table.WSPRecv(s, overlapped, self.bench.now)
        return overlapped

    def send(self, s, data, notify=True):
        """WSPSend; the overlapped structure."""
        overlapped = Overlapped(data=data, notify=notify)
        self.table.WSPSend(s, overlapped, self.bench.now)
        return overlapped

    def extension(self, name, s=None):
        """The extension function of that name, as WSPIoctl gives it out."""
        (guid,) = [guid for guid, known in EXTENSIONS.items() if known == name]
        s = self.socket() if s is None else s
        return self.table.WSPIoctl(s, c.SIO_GET_EXTENSION_FUNCTION_POINTER, guid.bytes_le, self.bench.now)

    def register(self, s, buffer, flags=MemoryFlags.MEM_READWRITE):
        """WSPRegisterMemory; the handle."""
        return self.extension("WSPRegisterMemory", s)(s, buffer, flags, self.bench.now)

    def deregister(self, s, handle):
        """WSPDeregisterMemory."""
        self.extension("WSPDeregisterMemory", s)(s, handle, self.bench.now)

    def expose(self, s, buffer, flags=MemoryFlags.MEM_READWRITE, room=64):
        """WSPRegisterRdmaMemory; the descriptor."""
        return self.extension("WSPRegisterRdmaMemory", s)(s, buffer, flags, DescriptorLength(room), self.bench.now)

    def unexpose(self, s, descriptor):
        """WSPDeregisterRdmaMemory."""
        self.extension("WSPDeregisterRdmaMemory", s)(s, descriptor, self.bench.now)

    def write(self, s, buffers, target, offset=0, flags=0, notify=True):
        """WSPRdmaWrite; the overlapped structure. ``buffers`` as (handle, offset, length)."""
        return self._rdma("WSPRdmaWrite", s, buffers, target, offset, flags, notify)

    def read(self, s, buffers, target, offset=0, flags=0, notify=True):
        """WSPRdmaRead; the overlapped structure. ``buffers`` as (handle, offset, length)."""
        return self._rdma("WSPRdmaRead", s, buffers, target, offset, flags, notify)

    def _rdma(self, name, s, buffers, target, offset, flags, notify):
        overlapped = Overlapped(notify=notify)
        parts = [WSABUFEX(length, at, handle) for handle, at, length in buffers]
        self.extension(name, s)(s, parts, target, offset, flags, overlapped, self.bench.now)
        return overlapped

    def _create(self, entry, context):
        if self.full:
            raise WsaError(WsaErrno.WSAENOBUFS, "no handle left")
        handle = SocketHandle(next(self._handles))
        self.handles[handle] = context
        return handle

    def _close(self, handle):
        del self.handles[handle]
        self.closed.append(handle)

    def _complete(self, handle, overlapped, error, transferred):
        assert handle in self.handles
        self.completed.append((handle, overlapped, error, transferred))


class Host:
    """Adapter, connection manager, proxy driver."""

    def __init__(self, name, config):
        self.name = name
        ip = _BYTES[name]
        adapter = ChannelAdapter(mac=_MACS[ip], ip=ip, neighbours=_MACS.get, rng=stream(1, name), guid=ip[3])
        manager = ConnectionManager(guid=ip[3], rng=stream(2, name))
        self.proxy = ProxyDriver(adapter, manager, config, stream(3, name))
        self.parking = ParkingTable(stream(4, name))


class SpiBench:
    """Hosts ``a`` and ``b``; ``settle`` lets every frame arrive. ``configs`` has those that differ from the default."""

    def __init__(self, **configs):
        self.now = 0
        self.hosts = {name: Host(name, configs.get(name, ProxyConfig())) for name in IPS}
        self.frames = []
        """Every frame that left a host: (host, frame)."""
        self._pids = count(100)

    def instance(self, host):
        """A process on ``a`` or ``b`` that has started the provider."""
        return Instance(self, self.hosts[host], next(self._pids)).start()

    def settle(self):
        """Until nothing is under way; a millisecond passes."""
        moved = True
        while moved:
            moved = False
            for here, there in (("a", "b"), ("b", "a")):
                while (transmit := self.hosts[here].proxy.poll_transmit(self.now)) is not None:
                    moved = True
                    self.frames.append((here, transmit.frame))
                    to = there if transmit.frame[30:34] == _BYTES[there] else here
                    self.hosts[to].proxy.handle_frame(0, transmit.frame, self.now)
        self.now += MILLISECOND

    def connected(self, port=7000):
        """(instance on a, its descriptor, instance on b, its descriptor), with a receive posted at either end."""
        client, server = self.instance("a"), self.instance("b")
        listener = server.listening(port)
        s = client.bound(40_000)
        client.connect(s, (IPS["b"], port))
        self.settle()
        accepted, _ = server.accept(listener)
        server.recv(accepted)
        self.settle()
        client.recv(s)
        assert client.events(s).errors == {NetworkEvent.FD_CONNECT: 0}
        server.listener = listener
        return client, s, server, accepted


def error_of(call):
    """The number of the WsaError that ``call`` raises, 0 if none."""
    try:
        call()
    except WsaError as error:
        return error.wsa
    return 0
