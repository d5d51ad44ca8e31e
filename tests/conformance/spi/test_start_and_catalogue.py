"""Statements 1 to 26 of the conformance list that the SAN provider and the catalogue answer for."""

import dataclasses
import struct

import pytest

from provider import constants as c
from provider.catalog import SAN_ENTRY, TCPIP_ENTRY
from provider.errors import WsaErrno
from provider.protocol_info import GUID, SIZE
from provider.san_provider.service_provider import VERSION_2_2
from provider.spi import UpcallTable
from tests.support.handoff_run import SOURCE, build
from tests.support.spi_bench import Instance, error_of

SOCKET_DEFAULTS = {"family": c.AF_INET, "kind": c.SOCK_STREAM, "protocol": c.IPPROTO_TCP}


def attached():
    """The provider of a process as the real sockets switch has started it."""
    run = build(1, 0.0)
    run.server.half.attach(SOURCE, "", 0)
    return run.server.half.core.process(SOURCE)


def test_001_the_switch_starts_the_provider_through_startup_ex():
    assert attached().log.counts["WSPStartupEx"] == 1
    assert "WSPStartup" not in attached().log.counts


def test_002_with_the_entry_of_the_tcpip_provider(bench):
    given = []
    instance = Instance(bench, bench.hosts["a"], 1)
    start = instance.provider.startup_ex
    instance.provider.startup_ex = lambda *arguments: (given.append(arguments), start(*arguments))
    instance.provider.startup_ex(VERSION_2_2, instance.upcalls, TCPIP_ENTRY.info, 0)
    assert given[0][2] is TCPIP_ENTRY.info
    assert TCPIP_ENTRY.info.ProviderId != SAN_ENTRY.info.ProviderId


def test_003_the_upcall_table_has_sixteen_entries_and_comes_by_reference(bench):
    names = [entry.name for entry in dataclasses.fields(UpcallTable)]
    assert (len(names), names[-1]) == (16, "WPUCompleteOverlappedRequest")
    assert all(name.startswith("WPU") for name in names)
    instance = bench.instance("a")
    assert instance.provider.upcalls is instance.upcalls  # a change of an entry would reach the provider
    assert error_of(instance.upcalls.WPUPostMessage) == WsaErrno.WSAEOPNOTSUPP
    assert {name for name in attached().log.counts if name.startswith("WPU")} == set(names)


@pytest.mark.parametrize("version", [0x0002, 0x0101, 0x0201, 0x0000])
def test_004_a_version_below_2_2_is_refused(bench, version):
    instance = Instance(bench, bench.hosts["a"], 1)
    assert error_of(lambda: instance.start(version)) == 10092
    assert error_of(instance.socket) == WsaErrno.WSANOTINITIALISED


def test_005_and_006_cleanup_without_a_start(bench):
    instance = Instance(bench, bench.hosts["a"], 1)
    assert error_of(lambda: instance.table.WSPCleanup(0)) == 10093
    instance.start()
    instance.table.WSPCleanup(0)
    assert error_of(lambda: instance.table.WSPCleanup(0)) == 10093


def test_007_starts_are_counted_and_the_last_cleanup_releases_and_cancels(bench):
    client, s, _, _ = bench.connected()
    client.start()
    client.table.WSPCleanup(bench.now)
    assert client.handles  # it was started twice
    client.completed.clear()
    client.table.WSPCleanup(bench.now)
    assert not client.handles
    assert [error for _, _, error, _ in client.completed] == [995]
    assert error_of(client.socket) == 10093
    client.start()
    assert client.socket() > s


def test_010_the_entry_is_hidden_and_connection_oriented():
    assert SAN_ENTRY.info.dwProviderFlags & c.PFL_HIDDEN
    assert not SAN_ENTRY.info.dwServiceFlags1 & c.XP1_CONNECTIONLESS


def test_016_the_packed_structure():
    packed = SAN_ENTRY.duplicate(0x01020304).pack()
    assert (len(packed), SIZE) == (628, 628)
    assert struct.unpack_from("<I", packed, 112) == (0x01020304,)
    assert packed[20:36] == SAN_ENTRY.info.ProviderId.bytes_le
    name = SAN_ENTRY.info.szProtocol.rstrip(b"\0")
    assert packed[116 : 116 + len(name)] == name


def test_017_guids_are_little_endian_in_their_first_three_parts():
    packed = GUID.parse("00112233-4455-6677-8899-aabbccddeeff").bytes_le
    assert packed.hex() == "33221100554477668899aabbccddeeff"


def test_023_and_027_the_switch_asks_for_overlapped_tcp_when_the_application_listens():
    run = build(1, 0.0)
    half = run.server.half
    process = half.attach(SOURCE, "", 0)
    asked = []
    real = process.table.WSPSocket
    process.table = dataclasses.replace(
        process.table, WSPSocket=lambda *arguments: (asked.append(arguments[:5]), real(*arguments))[1]
    )
    socket = half.socket(SOURCE, 2, 1, 0, 0)
    half.bind(SOURCE, socket.s, ("0.0.0.0", 7000), 0)
    assert asked == []
    half.listen(SOURCE, socket.s, 5, 0)
    assert asked == [(c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP, None, c.WSA_FLAG_OVERLAPPED)]


def test_023_a_socket_that_is_not_overlapped_is_refused(bench):
    assert error_of(lambda: bench.instance("a").socket(flags=0)) == WsaErrno.WSAEINVAL


def test_024_one_handle_per_socket_and_its_failure_is_the_sockets(bench):
    instance = bench.instance("a")
    instance.socket()
    assert instance.counts["WPUCreateSocketHandle"] == 1
    instance.full = True
    assert error_of(instance.socket) == WsaErrno.WSAENOBUFS


def test_025_the_descriptor_is_the_providers_and_upcalls_use_the_handle(bench):
    client, s, server, accepted = bench.connected()
    server.send(accepted, b"x")
    bench.settle()
    (handle, _, _, _) = client.completed[-1]
    assert handle in client.handles
    assert client.handles[handle].descriptor == s
    assert handle != s


@pytest.mark.parametrize(
    ("argument", "value", "number"), [("family", 23, 10047), ("kind", 2, 10041), ("protocol", 17, 10043)]
)
def test_026_wrong_family_type_and_protocol(bench, argument, value, number):
    assert error_of(lambda: bench.instance("a").socket(**{**SOCKET_DEFAULTS, argument: value})) == number


@pytest.mark.parametrize("group", [1, 2, 77, 0xFFFFFFFF])
def test_028_there_are_no_socket_groups(bench, group):
    table = bench.instance("a").table
    arguments = (c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP, None, c.WSA_FLAG_OVERLAPPED, 0)
    assert error_of(lambda: table.WSPSocket(*arguments, group)) == WsaErrno.WSAEINVAL
    assert table.WSPSocket(*arguments, 0)


def test_115_a_descriptor_is_not_reused_while_its_socket_is_open(bench):
    instance = bench.instance("a")
    seen = [instance.socket() for _ in range(20)]
    assert len(set(seen)) == 20
    instance.table.WSPCloseSocket(seen[0], 0)
    assert instance.socket() not in seen[1:]
