"""Statements 18 to 22 and 67 to 74: WSPIoctl, extension functions, registered memory."""

import mmap

import pytest

from fabric.wire.fast import parse
from fabric.wire.headers import Reth
from provider import constants as c
from provider.catalog import SAN_ENTRY
from provider.errors import WsaErrno
from provider.protocol_info import GUID
from provider.san_provider.config import ProxyConfig
from provider.san_provider.memory import CACHED_MAX, DESCRIPTOR_SIZE, REGISTRATIONS_MAX
from provider.spi import EXTENSIONS, DescriptorLength, MemoryFlags
from tests.support.handoff_run import execute
from tests.support.spi_bench import IPS, SpiBench, error_of

READ, WRITE, BOTH = MemoryFlags.MEM_READ, MemoryFlags.MEM_WRITE, MemoryFlags.MEM_READWRITE
OPTIONAL = ("WSPRdmaRead", "WSPMemoryRegistrationCacheCallback")
BARE = ProxyConfig(rdma_read=False, registration_cache=False)
KIB = 1024


def pattern(size):
    return bytes((n * 7 + n // 256) & 0xFF for n in range(size))


@pytest.fixture
def pair(bench):
    """(bench, process on a, its descriptor, process on b, its descriptor), connected."""
    return bench, *bench.connected()


# ------------------------------------------------------------------ WSPIoctl


@pytest.mark.parametrize("name", EXTENSIONS.values())
def test_018_and_019_each_function_is_found_by_its_guid(bench, name):
    instance = bench.instance("a")
    assert callable(instance.extension(name))
    assert instance.counts["WSPIoctl"] == 1


def test_018_the_guids_are_those_of_the_header():
    assert {name: str(guid) for guid, name in EXTENSIONS.items()} == {
        "WSPRegisterMemory": "c0b422f5-f58c-11d1-ad6c-00c04fa34a2d",
        "WSPDeregisterMemory": "c0b422f6-f58c-11d1-ad6c-00c04fa34a2d",
        "WSPRegisterRdmaMemory": "c0b422f7-f58c-11d1-ad6c-00c04fa34a2d",
        "WSPDeregisterRdmaMemory": "c0b422f8-f58c-11d1-ad6c-00c04fa34a2d",
        "WSPRdmaWrite": "c0b422f9-f58c-11d1-ad6c-00c04fa34a2d",
        "WSPRdmaRead": "c0b422fa-f58c-11d1-ad6c-00c04fa34a2d",
        "WSPMemoryRegistrationCacheCallback": "e5da4af8-d824-48cd-a799-6337a98ed2af",
    }


@pytest.mark.parametrize("name", EXTENSIONS.values())
def test_019_a_provider_without_the_optional_functions_says_so(name):
    instance = SpiBench(a=BARE).instance("a")
    expected = WsaErrno.WSAEOPNOTSUPP if name in OPTIONAL else 0
    assert error_of(lambda: instance.extension(name)) == expected


def test_018_wrong_requests_are_refused(bench):
    instance = bench.instance("a")
    s, find = instance.socket(), c.SIO_GET_EXTENSION_FUNCTION_POINTER
    ioctl = instance.table.WSPIoctl
    unknown = GUID.parse("00112233-4455-6677-8899-aabbccddeeff").bytes_le
    (guid,) = [guid.bytes_le for guid, name in EXTENSIONS.items() if name == "WSPRdmaWrite"]
    assert error_of(lambda: ioctl(s, find, unknown, 0)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: ioctl(s, find, b"short", 0)) == WsaErrno.WSAEFAULT
    assert error_of(lambda: ioctl(999, find, guid, 0)) == WsaErrno.WSAENOTSOCK
    assert error_of(lambda: ioctl(s, c.SIO_FLUSH, b"", 0)) == WsaErrno.WSAEOPNOTSUPP
    assert ioctl(s, c.SIO_ADDRESS_LIST_QUERY, b"", 0) == (IPS["a"],)


def test_020_a_provider_without_reads_takes_the_data_by_its_peers_writes():
    """The test plays the sockets switch; the switch itself must not call what it was not given either."""
    bench = SpiBench(a=BARE)
    client, s, server, accepted = bench.connected()
    target = bytearray(100 * KIB)
    server.write(
        accepted,
        [(server.register(accepted, bytearray(pattern(100 * KIB)), READ), 0, 100 * KIB)],
        client.expose(s, target, WRITE),
    )
    bench.settle()
    assert target == pattern(100 * KIB)
    assert "WSPRdmaRead" not in client.counts
    run, right = execute(3, "suspend", size=100_000)
    assert right
    for process in run.server.core.processes.values():
        assert all(process.log.counts.get(name, 0) == 0 for name in OPTIONAL)


def test_021_there_is_no_quality_of_service_by_name(bench):
    instance = bench.instance("a")
    s = instance.socket()
    assert error_of(lambda: instance.table.WSPGetQOSByName(s, b"G711", 0)) == WsaErrno.WSAEOPNOTSUPP
    assert error_of(lambda: instance.table.WSPGetQOSByName(999, b"G711", 0)) == WsaErrno.WSAENOTSOCK


def test_022_nothing_about_quality_of_service_is_asked_of_this_provider(bench):
    """Its entry says that it has none; what came nevertheless would be refused."""
    assert not SAN_ENTRY.info.dwServiceFlags1 & c.XP1_QOS_SUPPORTED
    instance = bench.instance("a")
    s = instance.socket()
    for code in (c.SIO_GET_QOS, c.SIO_SET_QOS, c.SIO_GET_GROUP_QOS, c.SIO_SET_GROUP_QOS):
        assert error_of(lambda code=code: instance.table.WSPIoctl(s, code, b"", 0)) == WsaErrno.WSAEOPNOTSUPP
    for option in (c.SO_GROUP_ID, c.SO_GROUP_PRIORITY):
        assert error_of(lambda option=option: instance.table.WSPGetSockOpt(s, 0xFFFF, option, 0)) == 10042
        assert error_of(lambda option=option: instance.table.WSPSetSockOpt(s, 0xFFFF, option, 1, 0)) == 10042
    run, _ = execute(3, "suspend", size=50_000)
    for process in run.server.core.processes.values():
        assert process.log.counts["WSPIoctl"] == 1  # SIO_ADDRESS_LIST_QUERY
        assert process.log.counts["WSPGetSockOpt"] == 0


# -------------------------------------------------------------------- memory


def test_067_registering_needs_a_connection(bench):
    client, server = bench.instance("a"), bench.instance("b")
    s = client.bound(40_000)
    assert error_of(lambda: client.register(s, bytearray(8))) == WsaErrno.WSAENOTCONN
    server.listening(7000)
    client.connect(s, (IPS["b"], 7000))
    assert error_of(lambda: client.register(s, bytearray(8))) == WsaErrno.WSAENOTCONN
    assert error_of(lambda: client.expose(s, bytearray(8))) == WsaErrno.WSAENOTCONN
    assert error_of(lambda: client.write(s, [], bytes(DESCRIPTOR_SIZE))) == WsaErrno.WSAENOTCONN
    assert error_of(lambda: client.read(s, [], bytes(DESCRIPTOR_SIZE))) == WsaErrno.WSAENOTCONN


@pytest.mark.parametrize("flags", [0, 4, 7, 0xFFFF_FFFF])
def test_067_flags_that_say_nothing_or_too_much(pair, flags):
    _, client, s, _, _ = pair
    assert error_of(lambda: client.register(s, bytearray(8), flags)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.expose(s, bytearray(8), flags)) == WsaErrno.WSAEINVAL


def test_067_buffers_that_cannot_be_registered(pair):
    _, client, s, _, _ = pair
    for register in (client.register, client.expose):
        for buffer in (b"constant", bytearray(), "text", None):
            assert error_of(lambda b=buffer, r=register: r(s, b, WRITE)) == WsaErrno.WSAEFAULT
        assert register(s, b"constant", READ)


def test_067_too_many_registrations(pair):
    _, client, s, _, _ = pair
    registered = client.extension("WSPRegisterMemory", s)
    buffers = [bytearray(1) for _ in range(REGISTRATIONS_MAX)]
    for buffer in buffers:
        registered(s, buffer, READ, 0)
    assert error_of(lambda: client.register(s, bytearray(1))) == WsaErrno.WSAENOBUFS
    assert error_of(lambda: client.expose(s, bytearray(1))) == WsaErrno.WSAENOBUFS
    assert registered(s, buffers[0], READ, 0), "a further registration of the same memory takes no room"


def test_068_unknown_memory_and_memory_in_use(pair):
    bench, client, s, server, accepted = pair
    assert error_of(lambda: client.deregister(s, 12345)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.unexpose(s, bytes(DESCRIPTOR_SIZE))) == WsaErrno.WSAEINVAL
    handle, target = client.register(s, bytearray(10)), server.expose(accepted, bytearray(10))
    for start in (client.write, client.read):
        operation = start(s, [(handle, 0, 10)], target)
        assert error_of(lambda: client.deregister(s, handle)) == WsaErrno.WSAEINVAL
        bench.settle()
        assert operation.done
    client.deregister(s, handle)
    assert error_of(lambda: client.deregister(s, handle)) == WsaErrno.WSAEINVAL


def test_069_a_handle_is_of_one_socket_and_one_process(bench):
    client, s, server, accepted = bench.connected()
    _, _, _, _ = bench.connected(7001)
    other = client.bound(41_000)
    client.connect(other, (IPS["b"], 7000))
    bench.settle()
    peer, _ = server.accept(server.listener)
    bench.settle()
    handle, target = client.register(s, bytearray(10)), server.expose(peer, bytearray(10))
    assert error_of(lambda: client.write(other, [(handle, 0, 10)], target)) == WsaErrno.WSAEFAULT
    assert error_of(lambda: client.deregister(other, handle)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: server.deregister(accepted, handle)) == WsaErrno.WSAEINVAL


def test_069_memory_does_not_go_along_when_control_moves(pair):
    bench, client, s, server, accepted = pair
    handle, mine = client.register(s, bytearray(10)), client.expose(s, bytearray(10))
    target = bench.instance("a")
    taken = target.socket(client.table.WSPDuplicateSocket(s, target.process, bench.now))
    theirs = server.expose(accepted, bytearray(10))
    assert error_of(lambda: target.write(taken, [(handle, 0, 10)], theirs)) == WsaErrno.WSAEFAULT
    assert error_of(lambda: target.deregister(taken, handle)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: target.unexpose(taken, mine)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.write(s, [(handle, 0, 10)], theirs)) == WsaErrno.WSAENOTCONN
    own = target.register(taken, bytearray(b"new memory"))
    target.write(taken, [(own, 0, 10)], theirs)
    bench.settle()
    refused = server.write(accepted, [(server.register(accepted, bytearray(10)), 0, 10)], mine)
    bench.settle()
    assert refused.error == WsaErrno.WSAECONNRESET


def test_069_a_buffer_is_used_as_it_was_registered(pair):
    _, client, s, server, accepted = pair
    target = server.expose(accepted, bytearray(100))
    readable, writable = client.register(s, bytearray(10), READ), client.register(s, bytearray(10), WRITE)
    for call, handle, at, size in (
        (client.write, writable, 0, 10),
        (client.read, readable, 0, 10),
        (client.write, readable, 1, 10),
        (client.write, readable, -1, 4),
        (client.write, readable, 0, -1),
    ):
        assert error_of(lambda a=call, h=handle, o=at, n=size: a(s, [(h, o, n)], target)) == WsaErrno.WSAEFAULT
    assert error_of(lambda: client.write(s, [(readable, 0, 1)], target, offset=100)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.write(s, [(readable, 0, 1)], target, offset=-1)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.write(s, [(readable, 0, 1)], target, flags=1)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.write(s, [(readable, 0, 1)], target[:-1])) == WsaErrno.WSAEFAULT


def test_070_as_many_deregistrations_as_registrations(pair):
    bench, client, s, server, accepted = pair
    buffer, shown = bytearray(10), bytearray(10)
    handles = {client.register(s, buffer) for _ in range(3)}
    targets = {server.expose(accepted, shown) for _ in range(3)}
    assert (len(handles), len(targets)) == (1, 1)
    (handle,), (target,) = handles, targets
    for _ in range(2):
        client.deregister(s, handle)
        server.unexpose(accepted, target)
        operation = client.write(s, [(handle, 0, 10)], target)
        bench.settle()
        assert (operation.done, operation.error) == (True, 0)
    assert client.register(s, buffer, READ) != handle, "other flags are another registration"
    client.deregister(s, handle)
    server.unexpose(accepted, target)
    assert error_of(lambda: client.write(s, [(handle, 0, 10)], target)) == WsaErrno.WSAEFAULT
    assert error_of(lambda: client.deregister(s, handle)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: server.unexpose(accepted, target)) == WsaErrno.WSAEINVAL


@pytest.mark.parametrize("room", [0, 1, DESCRIPTOR_SIZE - 1])
def test_071_a_descriptor_block_that_is_too_short(pair, room):
    _, client, s, _, _ = pair
    length, buffer = DescriptorLength(room), bytearray(10)
    call = client.extension("WSPRegisterRdmaMemory", s)
    assert error_of(lambda: call(s, buffer, READ, length, 0)) == WsaErrno.WSAEFAULT
    assert length.value == DESCRIPTOR_SIZE
    descriptor = call(s, buffer, READ, length, 0)
    assert len(descriptor) == length.value
    client.unexpose(s, descriptor)
    assert error_of(lambda: client.unexpose(s, descriptor)) == WsaErrno.WSAEINVAL, "the failed call counted for nothing"


@pytest.mark.parametrize(("flags", "what"), [(READ, "write"), (WRITE, "read")])
def test_072_the_peer_can_do_what_the_flags_say_and_no_more(bench, flags, what):
    for attempt in ("write", "read"):
        bench = SpiBench()
        client, s, server, accepted = bench.connected()
        mine, theirs = bytearray(b"mine"), bytearray(b"your")
        handle, target = client.register(s, mine), server.expose(accepted, theirs, flags)
        operation = getattr(client, attempt)(s, [(handle, 0, 4)], target)
        bench.settle()
        if attempt == what:
            assert operation.error == WsaErrno.WSAECONNRESET
            assert (mine, theirs) == (b"mine", b"your")
            assert 0x62 in [p.extension[0] for p in packets(bench, "b") if p.opcode == 0x11]
        else:
            assert operation.error == 0
            assert mine == theirs


def packets(bench, host):
    """What a host sent on reliable connections."""
    return [p for p in (parse(frame) for name, frame in bench.frames if name == host) if p.opcode < 0x20]


@pytest.mark.parametrize("config", [ProxyConfig(), BARE])
@pytest.mark.parametrize("what", ["write", "read"])
def test_073_deregistering_ends_the_peers_access(config, what):
    bench = SpiBench(b=config)
    client, s, server, accepted = bench.connected()
    theirs = bytearray(b"your")
    handle, target = client.register(s, bytearray(b"mine")), server.expose(accepted, theirs)
    kept = server.register(accepted, theirs)
    server.deregister(accepted, kept)
    server.unexpose(accepted, target)
    operation = getattr(client, what)(s, [(handle, 0, 4)], target)
    bench.settle()
    assert operation.error == WsaErrno.WSAECONNRESET
    assert theirs == b"your"


def test_073_a_read_that_has_begun_ends_when_its_memory_is_deregistered(pair):
    bench, client, s, server, accepted = pair
    mine = bytearray(100 * KIB)
    handle, target = client.register(s, mine), server.expose(accepted, bytearray(b"x" * 100 * KIB))
    operation = client.read(s, [(handle, 0, 100 * KIB)], target)
    a, b = bench.hosts["a"].proxy, bench.hosts["b"].proxy
    b.handle_frame(0, a.poll_transmit(0).frame, 0)
    a.handle_frame(0, b.poll_transmit(0).frame, 0)
    server.unexpose(accepted, target)
    bench.settle()
    assert operation.error == WsaErrno.WSAECONNRESET
    assert mine == b"x" * 4096 + bytes(96 * KIB), "what was on its way"


@pytest.mark.parametrize("who", ["client", "server"])
def test_073_a_disconnect_ends_the_peers_access(pair, who):
    bench, client, s, server, accepted = pair
    theirs = bytearray(b"your")
    handle, target = client.register(s, bytearray(b"mine")), server.expose(accepted, theirs)
    client.write(s, [(handle, 0, 4)], target)
    bench.settle()
    theirs[:] = b"your"
    (written,) = [p for p in packets(bench, "a") if p.opcode == 0x0A]
    if who == "client":
        client.table.WSPCloseSocket(s, bench.now)
    else:
        server.table.WSPCloseSocket(accepted, bench.now)
    bench.settle()
    adapter = bench.hosts["b"].proxy.adapter
    _, rkey, _ = Reth.FORMAT.unpack(written.extension)
    assert len(adapter.memory) == 0
    assert adapter.memory.remote(rkey, 0x1000_0000, 4, 2, domain=written.destination_qpn) is None
    frame = next(frame for host, frame in bench.frames if host == "a" and parse(frame) == written)
    adapter.handle_frame(0, frame, bench.now)
    assert theirs == b"your"
    if who == "client":
        server.unexpose(accepted, target)
        assert error_of(lambda: server.expose(accepted, theirs)) == WsaErrno.WSAENOTCONN


def test_074_the_callback_drops_what_is_cached(pair):
    _, client, s, server, _ = pair
    table = client.provider._proxy.adapter.memory
    memory, other = bytearray(100), bytearray(100)
    views = [memoryview(memory)[:50], memoryview(memory)[50:], memoryview(other)]
    handles = [client.register(s, view) for view in views]
    callback = client.extension("WSPMemoryRegistrationCacheCallback")
    callback(memory, 0)
    assert len(table) == 3, "what is registered stays so"
    for handle in handles:
        client.deregister(s, handle)
    assert len(table) == 3
    assert client.register(s, views[0]) == handles[0], "found in the cache"
    client.deregister(s, handles[0])
    server.extension("WSPMemoryRegistrationCacheCallback")(memory, 0)
    assert len(table) == 3, "another process's callback"
    callback(memory, 0)
    assert len(table) == 1
    assert client.register(s, views[0]) != handles[0]
    assert client.register(s, views[2]) == handles[2]
    assert error_of(lambda: callback("no buffer", 0)) == WsaErrno.WSAEFAULT


def test_074_a_mapping_can_be_closed_after_the_callback(pair):
    bench, client, s, server, accepted = pair
    with mmap.mmap(-1, 4096) as mapping:
        client.deregister(s, client.register(s, mapping))
        client.unexpose(s, client.expose(s, mapping))
        with pytest.raises(BufferError):
            mapping.close()
        client.extension("WSPMemoryRegistrationCacheCallback", s)(mapping, 0)
    with mmap.mmap(-1, 4096) as mapping:
        client.deregister(s, client.register(s, mapping))
        callback = client.extension("WSPMemoryRegistrationCacheCallback", s)
        server.table.WSPCloseSocket(accepted, bench.now)
        bench.settle()
        callback(mapping, 0)


def test_074_the_cache_is_bounded_and_a_provider_without_the_callback_has_none():
    for config, left in ((ProxyConfig(), CACHED_MAX), (BARE, 0)):
        bench = SpiBench(a=config)
        client, s, _, _ = bench.connected()
        for buffer in [bytearray(1) for _ in range(CACHED_MAX + 5)]:
            client.deregister(s, client.register(s, buffer))
        assert len(bench.hosts["a"].proxy.adapter.memory) == left
