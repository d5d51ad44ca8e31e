"""The TCP/IP provider's calls on real sockets of this process."""

import os
import socket

import pytest

from provider import constants as c
from provider.catalog import FIRST_ENTRY_ID, SAN_ENTRY, TCPIP_ENTRY, Catalog
from provider.errors import WsaErrno, WsaError
from provider.protocol_info import SIZE
from provider.spi import ConditionDecision, ConditionResult
from provider.tcpip_provider.entries import ENTRIES, UDP6_ENTRY, UDP_ENTRY
from provider.tcpip_provider.options import IPV6_V6ONLY
from provider.tcpip_provider.service_provider import VERSION_2_2, TcpIpServiceProvider
from provider.tcpip_provider.spi_tables import IfsUpcallTable
from provider.tcpip_provider.winsock_errors import winsock_error
from tests.support.labs import wait_until
from tests.support.spi_processes import descriptors

UNTOUCHED = IfsUpcallTable(lambda _entry, handle: handle)
LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture
def table():
    """A started provider's table; at the end nothing of it is open."""
    before = descriptors(os.getpid())
    provider = TcpIpServiceProvider()
    yield provider.startup(VERSION_2_2, TCPIP_ENTRY.info, UNTOUCHED)
    provider.cleanup()
    wait_until(lambda: descriptors(os.getpid()) == before)  # tickets' threads close their connections last


def error_of(call, *arguments):
    with pytest.raises(WsaError) as caught:
        call(*arguments)
    return caught.value.wsa


def tcp(table, family=c.AF_INET):
    return table.WSPSocket(family, c.SOCK_STREAM, c.IPPROTO_TCP)


def listening(table):
    listener = tcp(table)
    table.WSPBind(listener, LOOPBACK)
    table.WSPListen(listener, 5)
    return listener, table.WSPGetSockName(listener)


def connected(table):
    listener, name = listening(table)
    near = tcp(table)
    table.WSPConnect(near, name)
    far, _ = table.WSPAccept(listener)
    table.WSPCloseSocket(listener)
    return near, far


@pytest.mark.parametrize("version", [0x0000, 0x0002, 0x0101, 0x0102])
def test_it_is_started_with_2_2_and_its_own_entry(version):
    provider = TcpIpServiceProvider()
    assert error_of(provider.startup, version, TCPIP_ENTRY.info, UNTOUCHED) == WsaErrno.WSAVERNOTSUPPORTED
    assert error_of(provider.startup, VERSION_2_2, SAN_ENTRY.info, UNTOUCHED) == WsaErrno.WSAEINVAL
    assert error_of(provider.socket, c.AF_INET, 1, 6) == WsaErrno.WSANOTINITIALISED
    assert error_of(provider.cleanup) == WsaErrno.WSANOTINITIALISED


def test_starts_are_counted_and_the_last_cleanup_closes():
    before = descriptors(os.getpid())
    provider = TcpIpServiceProvider()
    provider.startup(VERSION_2_2, TCPIP_ENTRY.info, UNTOUCHED)
    table = provider.startup(VERSION_2_2, UDP6_ENTRY.info, UNTOUCHED)
    near, far = connected(table)
    provider.cleanup()
    table.WSPSend(near, b"x")
    assert table.WSPRecv(far, 1) == b"x"
    provider.cleanup()
    assert error_of(table.WSPSend, near, b"x") == WsaErrno.WSANOTINITIALISED
    assert descriptors(os.getpid()) == before


def test_the_catalogue_takes_its_entries():
    catalog = Catalog((SAN_ENTRY, *ENTRIES))
    assert [entry.entry_id for entry in catalog.entries()] == list(range(FIRST_ENTRY_ID, FIRST_ENTRY_ID + 5))
    assert catalog.choose(c.AF_INET, c.SOCK_DGRAM, 0) is UDP_ENTRY
    assert catalog.choose(c.AF_INET6, c.SOCK_DGRAM, c.IPPROTO_UDP) is UDP6_ENTRY
    for entry in ENTRIES:
        assert len(entry.info.pack()) == SIZE
        connectionless = entry.info.iSocketType == c.SOCK_DGRAM
        assert bool(entry.info.dwServiceFlags1 & c.XP1_CONNECTIONLESS) is connectionless


def test_wrong_family_type_protocol_and_what_contradicts_the_structure(table):
    assert error_of(table.WSPSocket, 1, c.SOCK_STREAM, 0) == WsaErrno.WSAEAFNOSUPPORT
    assert error_of(table.WSPSocket, c.AF_INET, 3, 0) == WsaErrno.WSAEPROTOTYPE
    assert error_of(table.WSPSocket, c.AF_INET, c.SOCK_STREAM, 17) == WsaErrno.WSAEPROTONOSUPPORT
    info = table.WSPDuplicateSocket(tcp(table), os.getpid())
    assert error_of(table.WSPSocket, 23, -1, -1, info) == WsaErrno.WSAEAFNOSUPPORT
    assert error_of(table.WSPSocket, -1, 2, -1, info) == WsaErrno.WSAEPROTOTYPE
    assert error_of(table.WSPSocket, -1, -1, 17, info) == WsaErrno.WSAEPROTONOSUPPORT
    assert table.WSPSocket(c.AF_INET, -1, c.IPPROTO_TCP, info)
    new = table.WSPSocket(-1, -1, -1, UDP_ENTRY.info)  # an entry of the catalogue, not a ticket
    assert table.WSPGetSockOpt(new, c.SOL_SOCKET, c.SO_TYPE) == c.SOCK_DGRAM


def test_use_after_close_and_of_what_never_was(table):
    near, far = connected(table)
    table.WSPCloseSocket(near)
    for call, *arguments in (
        (table.WSPSend, b"x"),
        (table.WSPRecv, 1),
        (table.WSPShutdown, c.SD_SEND),
        (table.WSPCloseSocket,),
        (table.WSPDuplicateSocket, os.getpid()),
    ):
        assert error_of(call, near, *arguments) == WsaErrno.WSAENOTSOCK
        assert error_of(call, 0, *arguments) == WsaErrno.WSAENOTSOCK  # a descriptor, but not ours
    assert table.WSPRecv(far, 1) == b""


def test_a_close_that_is_not_the_last_resets_nobody(table):
    near, far = connected(table)
    twin = table.WSPSocket(-1, -1, -1, table.WSPDuplicateSocket(near, os.getpid()))
    table.WSPSetSockOpt(twin, c.SOL_SOCKET, c.SO_LINGER, 1 << 16)
    table.WSPCloseSocket(near)
    table.WSPSend(twin, b"alive")
    assert table.WSPRecv(far, 5) == b"alive"
    table.WSPCloseSocket(twin)
    assert error_of(table.WSPRecv, far, 1) == WsaErrno.WSAECONNRESET
    assert error_of(table.WSPSend, far, b"x") == WsaErrno.WSAECONNRESET


def test_linger_keeps_nobody_who_is_not_connected(table):
    for prepare in (lambda s: None, lambda s: (table.WSPBind(s, LOOPBACK), table.WSPListen(s, 1))):
        s = tcp(table)
        prepare(s)
        table.WSPIoctl(s, c.FIONBIO, 1)
        table.WSPSetSockOpt(s, c.SOL_SOCKET, c.SO_LINGER, 1 << 16 | 5)
        table.WSPCloseSocket(s)


def test_linger_without_a_time_never_waits(table):
    near, far = connected(table)
    table.WSPIoctl(near, c.FIONBIO, 1)
    table.WSPSetSockOpt(near, c.SOL_SOCKET, c.SO_LINGER, 1 << 16)
    table.WSPCloseSocket(near)
    assert error_of(table.WSPRecv, far, 1) == WsaErrno.WSAECONNRESET


def test_non_blocking_connect_tells_its_outcome_by_so_error(table):
    listener, name = listening(table)
    s = tcp(table)
    table.WSPIoctl(s, c.FIONBIO, 1)
    assert error_of(table.WSPConnect, s, name) == WsaErrno.WSAEWOULDBLOCK
    table.WSPIoctl(listener, c.FIONBIO, 1)
    accepted = []

    def accept():
        try:
            accepted.append(table.WSPAccept(listener)[0])
        except BlockingIOError:
            pass
        return accepted

    wait_until(accept)
    assert error_of(table.WSPRecv, accepted[0], 1) == WsaErrno.WSAEWOULDBLOCK  # as its listener is
    assert table.WSPGetSockOpt(s, c.SOL_SOCKET, c.SO_ERROR) == 0
    assert table.WSPGetPeerName(s) == name
    table.WSPCloseSocket(listener)
    late = tcp(table)
    table.WSPIoctl(late, c.FIONBIO, 1)
    assert error_of(table.WSPConnect, late, name) == WsaErrno.WSAEWOULDBLOCK
    wait_until(lambda: table.WSPGetSockOpt(late, c.SOL_SOCKET, c.SO_ERROR) == WsaErrno.WSAECONNREFUSED)


def test_the_condition_function_may_reject(table):
    listener, name = listening(table)
    near = tcp(table)
    table.WSPConnect(near, name)
    asked = []

    def reject(caller):
        asked.append(caller)
        return ConditionDecision(ConditionResult.CF_REJECT)

    assert error_of(table.WSPAccept, listener, reject) == WsaErrno.WSAECONNREFUSED
    assert (asked[0].caller, asked[0].callee) == (table.WSPGetSockName(near), name)
    assert error_of(table.WSPRecv, near, 1) == WsaErrno.WSAECONNRESET
    again = tcp(table)
    table.WSPConnect(again, name)
    accepted, peer = table.WSPAccept(listener, lambda _: ConditionDecision(ConditionResult.CF_ACCEPT))
    assert peer == table.WSPGetSockName(again)
    table.WSPSend(accepted, b"in")
    assert table.WSPRecv(again, 2) == b"in"


@pytest.mark.parametrize(("family", "ip"), [(c.AF_INET, "127.0.0.1"), (c.AF_INET6, "::1")])
def test_datagrams(table, family, ip):
    one, two = (table.WSPSocket(family, c.SOCK_DGRAM, 0) for _ in range(2))
    for s in (one, two):
        table.WSPBind(s, (ip, 0))
    assert table.WSPSendTo(one, b"datagram", table.WSPGetSockName(two)) == 8
    assert table.WSPIoctl(two, c.FIONREAD) == 8
    assert table.WSPRecvFrom(two, 100) == (b"datagram", table.WSPGetSockName(one))
    table.WSPSendTo(one, b"too long", table.WSPGetSockName(two))
    assert error_of(table.WSPRecvFrom, two, 3) == WsaErrno.WSAEMSGSIZE
    assert error_of(table.WSPShutdown, two, c.SD_SEND) == WsaErrno.WSAENOTCONN


def test_options(table):
    s = tcp(table, c.AF_INET6)
    for level, name, value in (
        (c.SOL_SOCKET, c.SO_KEEPALIVE, 1),
        (c.IPPROTO_TCP, c.TCP_NODELAY, 1),
        (c.IPPROTO_IPV6, IPV6_V6ONLY, 1),
        (c.SOL_SOCKET, c.SO_LINGER, 1 << 16 | 7),
    ):
        assert table.WSPGetSockOpt(s, level, name) != value
        table.WSPSetSockOpt(s, level, name, value)
        assert table.WSPGetSockOpt(s, level, name) == value
    assert table.WSPGetSockOpt(s, c.SOL_SOCKET, c.SO_DONTLINGER) == 0
    table.WSPSetSockOpt(s, c.SOL_SOCKET, c.SO_DONTLINGER, 1)
    assert table.WSPGetSockOpt(s, c.SOL_SOCKET, c.SO_LINGER) >> 16 == 0
    assert error_of(table.WSPSetSockOpt, s, c.SOL_SOCKET, c.SO_MAX_RDMA_SIZE, 1) == WsaErrno.WSAENOPROTOOPT
    assert error_of(table.WSPIoctl, s, c.SIO_GET_QOS) == WsaErrno.WSAEOPNOTSUPP
    assert error_of(table.WSPRecv, s, 1, c.MSG_PARTIAL) == WsaErrno.WSAEOPNOTSUPP


def test_peeking_leaves_the_bytes(table):
    near, far = connected(table)
    table.WSPSend(near, b"look")
    assert table.WSPRecv(far, 4, c.MSG_PEEK) == b"look"
    assert table.WSPRecv(far, 4) == b"look"


def test_names_before_there_are_any(table):
    s = tcp(table)
    assert error_of(table.WSPGetSockName, s) == WsaErrno.WSAEINVAL
    assert error_of(table.WSPGetPeerName, s) == WsaErrno.WSAENOTCONN
    assert error_of(table.WSPListen, s, 1) == WsaErrno.WSAEINVAL
    assert error_of(table.WSPRecv, s, 1) == WsaErrno.WSAENOTCONN
    assert error_of(table.WSPBind, s, ("192.0.2.1", 0)) == WsaErrno.WSAEADDRNOTAVAIL


def test_the_switch_may_refuse_a_handle():
    before = descriptors(os.getpid())

    def full(_entry, _handle):
        raise WsaError(WsaErrno.WSAENOBUFS, "no handle left")

    provider = TcpIpServiceProvider()
    table = provider.startup(VERSION_2_2, TCPIP_ENTRY.info, IfsUpcallTable(full))
    assert error_of(table.WSPSocket, c.AF_INET, c.SOCK_STREAM, 0) == WsaErrno.WSAENOBUFS
    with socket.socket() as sock:
        from provider.tcpip_provider.duplication import duplicate

        info = duplicate(sock, os.getpid())
        assert error_of(table.WSPSocket, -1, -1, -1, info) == WsaErrno.WSAENOBUFS
        provider.startup(VERSION_2_2, TCPIP_ENTRY.info, UNTOUCHED)
        table.WSPCloseSocket(table.WSPSocket(-1, -1, -1, info))  # the ticket was still good
    provider.cleanup()
    provider.cleanup()
    wait_until(lambda: descriptors(os.getpid()) == before)


def test_the_default_timeout_of_pythons_sockets_is_not_ours(table):
    socket.setdefaulttimeout(0.01)
    try:
        near, far = connected(table)
        assert os.get_blocking(near)
        assert os.get_blocking(far)
        table.WSPIoctl(near, c.FIONBIO, 1)
        twin = table.WSPSocket(-1, -1, -1, table.WSPDuplicateSocket(near, os.getpid()))
        assert not os.get_blocking(twin)
        assert not os.get_blocking(near)
    finally:
        socket.setdefaulttimeout(None)


def test_errors_of_the_kernel_have_winsock_numbers():
    from errno import EADDRINUSE, EINPROGRESS, EIO, EPERM

    assert winsock_error(OSError(EADDRINUSE, "x")).wsa == WsaErrno.WSAEADDRINUSE
    assert winsock_error(OSError(EPERM, "x")).wsa == WsaErrno.WSAEACCES
    assert winsock_error(OSError(EIO, "x")).wsa == WsaErrno.WSAENETDOWN
    pending = winsock_error(OSError(EINPROGRESS, "x"))
    assert (pending.wsa, pending.errno) == (WsaErrno.WSAEWOULDBLOCK, EINPROGRESS)
    assert winsock_error(pending) is pending
    assert winsock_error(socket.gaierror(-2, "no name")).wsa == WsaErrno.WSAEADDRNOTAVAIL
