"""Statements 54, 56, 61 and 113 for WSPRdmaWrite and WSPRdmaRead."""

import dataclasses
import inspect

import pytest

from provider import constants as c
from provider.errors import WsaErrno
from provider.san_provider.config import ProxyConfig
from tests.support.spi_bench import SpiBench, error_of


def pattern(size):
    return bytes((n * 7 + n // 256) & 0xFF for n in range(size))


@pytest.fixture
def pair(bench):
    """(bench, process on a, its descriptor, process on b, its descriptor), connected."""
    return bench, *bench.connected()


def test_054_an_operation_has_an_overlapped_structure_and_nothing_else_to_tell_its_end(pair):
    bench, client, s, server, accepted = pair
    calls = [getattr(client.provider, name) for name in ("send", "recv")]
    extensions = client.provider._extensions
    for call in (*calls, extensions.rdma_write, extensions.rdma_read):
        names = inspect.signature(call).parameters
        assert "overlapped" in names
        assert not {"completion_routine", "thread_id"} & set(names)
    handle = client.register(s, bytearray(pattern(8)))
    client.completed.clear()
    target = server.expose(accepted, bytearray(8))
    operations = [client.write(s, [(handle, 0, 8)], target), client.read(s, [(handle, 0, 8)], target)]
    assert not any(operation.done for operation in operations)
    bench.settle()
    assert [entry[1:] for entry in client.completed] == [(operation, 0, 8) for operation in operations]
    assert client.table.WSPGetOverlappedResult(s, operations[0], False, 0) == 8


@pytest.mark.parametrize("notify", [True, False])
@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 1 << 20])
def test_056_what_is_written_and_read_arrives(pair, size, notify):
    bench, client, s, server, accepted = pair
    mine, theirs = bytearray(size + 20), bytearray(pattern(size + 100))
    handle, target = client.register(s, mine), server.expose(accepted, theirs)
    client.completed.clear()
    read = client.read(s, [(handle, 10, size)], target, offset=50, notify=notify)
    bench.settle()
    assert (read.done, read.error, read.transferred) == (True, 0, size)
    assert mine == bytes(10) + pattern(size + 100)[50 : 50 + size] + bytes(10)
    mine[:] = bytes(len(mine))
    write = client.write(s, [(handle, 0, size)], target, offset=50, notify=notify)
    bench.settle()
    assert (write.done, write.error, write.transferred) == (True, 0, size)
    assert theirs == pattern(size + 100)[:50] + bytes(size) + pattern(size + 100)[50 + size :]
    assert len(client.completed) == (2 if notify else 0)


def test_061_no_operation_is_longer_than_the_option_says():
    bench = SpiBench(a=ProxyConfig(rdma_size=1000))
    client, s, server, accepted = bench.connected()
    assert client.table.WSPGetSockOpt(s, 0xFFFF, c.SO_MAX_RDMA_SIZE, 0) == 1000
    assert client.table.WSPGetSockOpt(s, 0xFFFF, c.SO_RDMA_THRESHOLD_SIZE, 0) == 4096
    handle, target = client.register(s, bytearray(2000)), server.expose(accepted, bytearray(2000))
    for call in (client.write, client.read):
        assert error_of(lambda call=call: call(s, [(handle, 0, 600), (handle, 0, 401)], target)) == 10040
        call(s, [(handle, 0, 600), (handle, 0, 400)], target)


def test_113_rdma_under_way_ends_with_995_at_the_close(pair):
    bench, client, s, server, accepted = pair
    handle, target = client.register(s, bytearray(1000)), server.expose(accepted, bytearray(1000))
    under_way = [client.write(s, [(handle, 0, 1000)], target), client.read(s, [(handle, 0, 1000)], target)]
    client.table.WSPCloseSocket(s, bench.now)
    assert [operation.error for operation in under_way] == [995, 995]
    bench.settle()


def test_the_reads_under_way_are_agreed_on_at_set_up():
    few = dataclasses.replace(ProxyConfig(), responder_resources=2)
    none = dataclasses.replace(ProxyConfig(), responder_resources=0)
    for config, depth in ((few, 2), (none, 0)):
        bench = SpiBench(b=config)
        client, s, server, accepted = bench.connected()
        assert client.provider.endpoint(s).read_depth == depth
        assert server.provider.endpoint(accepted).responder_resources == depth
        handle, target = client.register(s, bytearray(1 << 20)), server.expose(accepted, bytearray(pattern(1 << 20)))
        if depth:
            operation = client.read(s, [(handle, 0, 1 << 20)], target)
            bench.settle()
            assert operation.error == 0
        else:
            assert error_of(lambda: client.read(s, [(handle, 0, 8)], target)) == WsaErrno.WSAEOPNOTSUPP  # noqa: B023
