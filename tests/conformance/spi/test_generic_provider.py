"""Statements 120 to 126 and 128: the TCP/IP provider, between two real processes of one host."""

import os
import signal
import socket

import pytest

from provider import constants as c
from provider.catalog import SAN_ENTRY, TCPIP_ENTRY
from provider.errors import WsaErrno
from tests.support.labs import wait_until
from tests.support.puppet import PuppetError
from tests.support.spi_processes import rendezvous_name, rendezvous_names, start_process

pytestmark = pytest.mark.live
SECONDS = 20.0


@pytest.fixture
def processes():
    """``processes()`` starts one; all end with the test."""
    started = []

    def start():
        started.append(start_process())
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(SECONDS)
        yield made


@pytest.fixture
def three(processes, listener):
    """(source, target, peer): the source's ``s`` is connected to ``peer``, a socket of this process."""
    source, target = processes(), processes()
    source.run("s = tcp(); t.WSPConnect(s, address)", address=listener.getsockname())
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(SECONDS)
        yield source, target, peer


def share(source, target):
    """Steps 5 to 8: the target's ``s`` is a descriptor of the source's socket."""
    info = source.run(f"t.WSPDuplicateSocket(s, {target.pid}).pack()")
    target.run("s = redeem(info)", info=info)
    return info


def number_of(process, code):
    """The number of the WsaError that the code raises."""
    with pytest.raises(PuppetError) as caught:
        process.run(code)
    return caught.value.wsa


def exactly(peer, count):
    data = b""
    while len(data) < count:
        part = peer.recv(count - len(data))
        assert part, "the stream ended early"
        data += part
    return data


def test_120_both_processes_use_the_socket_at_once(three):
    source, target, peer = three
    share(source, target)
    for process in (source, target, source):
        peer.sendall(b"?")
        assert process.run("t.WSPRecv(s, 1)") == b"?"
        assert process.run("t.WSPSend(s, b'!')") == 1
        assert exactly(peer, 1) == b"!"
    source.start("t.WSPRecv(s, 1)")
    target.start("t.WSPRecv(s, 1)")
    peer.sendall(b"1")
    peer.sendall(b"2")
    assert {source.result(), target.result()} == {b"1", b"2"}


def test_120_options_and_blocking_mode_are_the_sockets_not_a_descriptors(three):
    source, target, _ = three
    share(source, target)
    target.run("t.WSPSetSockOpt(s, c.SOL_SOCKET, c.SO_KEEPALIVE, 1); t.WSPIoctl(s, c.FIONBIO, 1)")
    assert source.run("t.WSPGetSockOpt(s, c.SOL_SOCKET, c.SO_KEEPALIVE)") == 1
    assert number_of(source, "t.WSPRecv(s, 1)") == WsaErrno.WSAEWOULDBLOCK


def test_121_an_ifs_provider_asks_for_its_handle_to_be_modified_for_the_duplicate_too(three):
    source, target, peer = three
    assert TCPIP_ENTRY.info.dwServiceFlags1 & c.XP1_IFS_HANDLES
    share(source, target)
    assert source.run("[upcalls == [(1002, s)], counts['WSPSocket']]") == [True, 1]
    assert target.run("upcalls == [(1002, s)]") is True
    peer.sendall(b"x")
    # The switch's word is the handle: what it makes of the proposed one is returned, and understood.
    info = source.run(f"t.WSPDuplicateSocket(s, {target.pid}).pack()")
    target.run(
        """
other = TcpIpServiceProvider()
u = other.startup(VERSION_2_2, TCPIP_ENTRY.info, IfsUpcallTable(lambda entry, handle: handle + 1000))
h = u.WSPSocket(whatever, whatever, whatever, WSAPROTOCOL_INFOW.unpack(info))
""",
        info=info,
    )
    assert target.run("[h > 1000, u.WSPRecv(h, 1) == b'x']") == [True, True]


def test_121_a_provider_without_ifs_handles_asks_for_one_to_be_created_for_the_duplicate_too(bench):
    source, s, _, _ = bench.connected()
    target = bench.instance("a")
    assert not SAN_ENTRY.info.dwServiceFlags1 & c.XP1_IFS_HANDLES
    assert target.counts["WPUCreateSocketHandle"] == 0
    target.socket(source.table.WSPDuplicateSocket(s, target.process, bench.now))
    assert target.counts["WPUCreateSocketHandle"] == 1


def test_122_the_source_closes_and_the_target_keeps_working(three):
    source, target, peer = three
    share(source, target)
    source.run("t.WSPCloseSocket(s)")
    assert number_of(source, "t.WSPSend(s, b'x')") == WsaErrno.WSAENOTSOCK
    peer.sendall(b"question")
    assert target.run("t.WSPRecv(s, 100)") == b"question"
    target.run("t.WSPSend(s, b'answer')")
    assert exactly(peer, 6) == b"answer"
    target.run("t.WSPCloseSocket(s)")
    assert peer.recv(1) == b""


def test_123_shutdown_with_a_bad_direction_or_without_a_connection(three):
    source, target, peer = three
    share(source, target)
    for how in (-1, 3, 0x7FFF_FFFF):
        assert number_of(source, f"t.WSPShutdown(s, {how})") == WsaErrno.WSAEINVAL == 10022
    source.run("fresh = tcp()")
    for how in ("c.SD_SEND", "c.SD_RECEIVE", "c.SD_BOTH"):
        assert number_of(source, f"t.WSPShutdown(fresh, {how})") == WsaErrno.WSAENOTCONN == 10057
    source.run("t.WSPBind(fresh, ('127.0.0.1', 0)); t.WSPListen(fresh, 1)")
    assert number_of(source, "t.WSPShutdown(fresh, c.SD_RECEIVE)") == WsaErrno.WSAENOTCONN
    source.run("t.WSPShutdown(s, c.SD_SEND)")  # which is the socket's, so the target's too
    assert peer.recv(1) == b""
    assert number_of(target, "t.WSPSend(s, b'x')") == WsaErrno.WSAESHUTDOWN == 10058
    peer.sendall(b"rest")
    assert target.run("t.WSPRecv(s, 4)") == b"rest"
    target.run("t.WSPShutdown(s, c.SD_RECEIVE)")
    assert number_of(source, "t.WSPRecv(s, 4)") == WsaErrno.WSAESHUTDOWN


def test_124_linger_0_resets_the_peer(processes):
    source, peer = processes(), processes()
    address = peer.run("l = tcp(); t.WSPBind(l, ('127.0.0.1', 0)); t.WSPListen(l, 5); t.WSPGetSockName(l)")
    source.run("s = tcp(); t.WSPConnect(s, tuple(address))", address=address)
    peer.run("s, _ = t.WSPAccept(l)")
    peer.start("t.WSPRecv(s, 1)")
    source.run("t.WSPSetSockOpt(s, c.SOL_SOCKET, c.SO_LINGER, 1 << 16); t.WSPCloseSocket(s)")
    with pytest.raises(PuppetError) as caught:
        peer.result()
    assert caught.value.wsa == WsaErrno.WSAECONNRESET == 10054


def test_124_the_default_close_is_graceful_in_the_background(three):
    source, _, peer = three
    sent = source.run("""
t.WSPIoctl(s, c.FIONBIO, 1)
sent = 0
try:
    while True: sent += t.WSPSend(s, b"d" * 65536)
except BlockingIOError: pass
t.WSPCloseSocket(s)
sent
""")  # it has returned, and nothing has been read
    assert sent > 100_000
    assert exactly(peer, sent) == b"d" * sent
    assert peer.recv(1) == b""


def test_125_a_close_that_would_wait_fails_and_leaves_the_socket_open(three):
    source, target, peer = three
    source.run("t.WSPIoctl(s, c.FIONBIO, 1); t.WSPSetSockOpt(s, c.SOL_SOCKET, c.SO_LINGER, 1 << 16 | 5)")
    share(source, target)
    for process in (source, target, source):
        assert number_of(process, "t.WSPCloseSocket(s)") == WsaErrno.WSAEWOULDBLOCK == 10035
    source.run("t.WSPSend(s, b'open')")
    assert exactly(peer, 4) == b"open"
    source.run("t.WSPIoctl(s, c.FIONBIO, 0); t.WSPCloseSocket(s)")
    target.run("t.WSPCloseSocket(s)")
    assert peer.recv(1) == b""


def test_126_a_process_that_dies_has_closed_its_descriptors(three):
    source, target, peer = three
    share(source, target)
    source.kill()  # neither WSPCloseSocket nor WSPCleanup
    peer.sendall(b"still there")
    assert target.run("t.WSPRecv(s, 100)") == b"still there"
    target.run("t.WSPSend(s, b'yes')")
    assert exactly(peer, 3) == b"yes"
    target.kill()
    assert peer.recv(1) == b""


def test_126_a_process_that_dies_with_a_ticket_out_takes_it_along(three):
    source, target, peer = three
    info = source.run(f"t.WSPDuplicateSocket(s, {target.pid}).pack()")
    source.run("t.WSPCloseSocket(s)")
    assert rendezvous_name(info) in rendezvous_names()
    os.kill(source.pid, signal.SIGKILL)
    assert peer.recv(1) == b""
    with pytest.raises(PuppetError) as caught:
        target.run("redeem(info)", info=info)
    assert caught.value.wsa == WsaErrno.WSAEINVAL
    wait_until(lambda: rendezvous_name(info) not in rendezvous_names())


def test_128_the_ten_steps_end_with_the_target_still_open(processes, listener):
    source, target = processes(), processes()
    source.run("s = tcp(); t.WSPConnect(s, address)", address=listener.getsockname())  # 1
    peer, _ = listener.accept()
    peer.settimeout(SECONDS)
    with peer:
        pid = target.run("os.getpid()")  # 2, 3, 4
        info = source.run(f"t.WSPDuplicateSocket(s, {pid}).pack()")  # 5
        assert len(info) == 628
        target.run("s = redeem(info)", info=info)  # 6, 7, 8
        for question in (b"one", b"two"):  # 9, with the source using it too
            peer.sendall(question)
            assert target.run("t.WSPRecv(s, 3)") == question
            source.run("t.WSPSend(s, b'from the source')")
            assert exactly(peer, 15) == b"from the source"
        source.run("t.WSPCloseSocket(s)")  # 10
        assert source.run("[n for n in calls if n not in ('WSPSend', 'WSPRecv')]") == [
            *("WSPSocket", "WSPConnect", "WSPDuplicateSocket", "WSPCloseSocket")
        ]
        source.run("t.WSPCleanup()")
        source.close()
        assert target.run("calls") == ["WSPSocket"]
        peer.sendall(b"last")
        assert target.run("t.WSPRecv(s, 4)") == b"last"
        target.run("t.WSPCloseSocket(s)")
        assert peer.recv(1) == b""
    wait_until(lambda: rendezvous_name(info) not in rendezvous_names())
