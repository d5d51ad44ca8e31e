"""Statements 78 to 91 and 103 to 112: WSPDuplicateSocket, the WSPSocket that redeems, and closing in between."""

import pytest

from provider import constants as c
from provider.errors import WsaErrno
from provider.protocol_info import WSAPROTOCOL_INFOW
from tests.support.spi_bench import IPS, error_of


@pytest.fixture
def pair(bench):
    """(bench, source on a, its descriptor, target on a, peer on b, its descriptor)."""
    source, s, peer, theirs = bench.connected()
    return bench, source, s, bench.instance("a"), peer, theirs


def duplicate(source, s, target):
    return source.table.WSPDuplicateSocket(s, target.process, source.bench.now)


def redeem(target, info):
    whatever = c.FROM_PROTOCOL_INFO
    return target.socket(info, family=whatever, kind=whatever, protocol=whatever)


def test_078_it_fills_the_structure(pair):
    _, source, s, target, _, _ = pair
    info = duplicate(source, s, target)
    assert isinstance(info, WSAPROTOCOL_INFOW)
    assert info.dwProviderReserved != 0


def test_079_to_081_its_errors(pair):
    bench, source, s, target, peer, _ = pair
    documented = {10050, 10022, 10024, 10055, 10038}
    found = [error_of(lambda: duplicate(source, 999, target))]
    found.append(error_of(lambda: duplicate(source, source.bound(1), target)))
    found.append(error_of(lambda: duplicate(peer, peer.listener, target)))
    duplicate(source, s, target)
    found.append(error_of(lambda: duplicate(source, s, target)))
    assert found[0] == WsaErrno.WSAENOTSOCK
    assert set(found) <= documented
    assert bench.now


@pytest.mark.parametrize("pid", [0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_082_any_number_of_32_bits_is_a_process(pair, pid):
    from fabric.ids import ProcessInstance

    bench, source, s, _, _, _ = pair
    assert source.table.WSPDuplicateSocket(s, ProcessInstance(pid, 1), bench.now).dwProviderReserved


def test_083_and_084_receives_come_back_before_it_returns(pair):
    _, source, s, target, _, _ = pair
    posted = [source.recv(s) for _ in range(3)]
    source.completed.clear()
    duplicate(source, s, target)
    assert [(error, size) for _, _, error, size in source.completed] == [(0, 0)] * 4
    assert all(overlapped.done for overlapped in posted)
    assert source.provider.endpoint(s) is None


def test_085_tokens_differ(bench):
    pairs = [bench.connected(7000 + n) for n in range(5)]
    target = bench.instance("a")
    tokens = {duplicate(source, s, target).dwProviderReserved for source, s, _, _ in pairs}
    assert len(tokens) == 5


def test_086_and_107_a_token_is_good_for_its_process_only(pair):
    bench, source, s, target, _, _ = pair
    info = duplicate(source, s, target)
    for other in (source, bench.instance("a"), bench.instance("b")):
        assert error_of(lambda other=other: redeem(other, info)) == WsaErrno.WSAEINVAL
    assert redeem(target, info)


def test_087_the_old_descriptor_can_only_be_closed(pair):
    bench, source, s, target, _, _ = pair
    info = duplicate(source, s, target)
    assert error_of(lambda: source.send(s, b"x")) == WsaErrno.WSAENOTCONN
    assert error_of(lambda: source.recv(s)) == WsaErrno.WSAENOTCONN
    source.table.WSPCloseSocket(s, bench.now)
    assert redeem(target, info)


def test_089_only_a_connected_socket_is_duplicated_by_the_provider(pair):
    _, source, _, target, peer, _ = pair
    assert error_of(lambda: duplicate(source, source.bound(1), target)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: duplicate(peer, peer.listener, target)) == WsaErrno.WSAEINVAL


def test_090_the_token_survives_a_copy_of_the_bytes(pair):
    _, source, s, target, _, _ = pair
    info = duplicate(source, s, target)
    copied = WSAPROTOCOL_INFOW.unpack(bytes(bytearray(info.pack())))
    assert copied.dwProviderReserved == info.dwProviderReserved
    assert redeem(target, copied)


def test_091_a_failure_leaves_the_source_usable(pair):
    bench, source, s, target, peer, theirs = pair
    source.provider._parking.add = lambda parked: (_ for _ in ()).throw(full())
    assert error_of(lambda: duplicate(source, s, target)) == WsaErrno.WSAENOBUFS
    source.send(s, b"still mine")
    bench.settle()
    assert peer.completed[-1][1].data == b"still mine"
    assert theirs


def full():
    from provider.errors import WsaError

    return WsaError(WsaErrno.WSAENOBUFS, "no room")


def test_103_and_108_the_target_gets_a_new_descriptor_and_one_handle(pair):
    _, source, s, target, _, _ = pair
    assert redeem(target, duplicate(source, s, target))
    assert target.counts["WPUCreateSocketHandle"] == 1


def test_106_twice_is_refused(pair):
    _, source, s, target, _, _ = pair
    info = duplicate(source, s, target)
    redeem(target, info)
    assert error_of(lambda: redeem(target, info)) == WsaErrno.WSAEINVAL


def test_109_the_stream_goes_on_where_it_was(pair):
    bench, source, s, target, peer, theirs = pair
    peer.send(theirs, b"before")
    bench.settle()
    assert source.completed[-1][1].data == b"before"
    source.table.WSPSetSockOpt(s, 0xFFFF, 1, 1, bench.now)
    taken = redeem(target, duplicate(source, s, target))
    peer.send(theirs, b"after")
    posted = target.recv(taken)
    for _ in range(30):
        bench.settle()
        bench.now += 10_000_000
        bench.hosts["b"].proxy.handle_timeout(bench.now)
    assert posted.data == b"after"
    assert target.table.WSPGetSockOpt(taken, 0xFFFF, 1, bench.now) == 1
    assert target.provider._sockets[taken].remote == (IPS["b"], 7000)


def test_105_and_112_the_source_closes_and_the_connection_lives(pair):
    bench, source, s, target, peer, _ = pair
    info = duplicate(source, s, target)
    source.table.WSPCloseSocket(s, bench.now)
    bench.settle()
    taken = redeem(target, info)
    target.send(taken, b"alive")
    bench.settle()
    assert peer.completed[-1][1].data == b"alive"
    back = redeem(source, duplicate(target, taken, source))
    assert back != s
    target.table.WSPCloseSocket(taken, bench.now)
    source.send(back, b"home")
    peer.recv(pair[5])
    bench.settle()
    assert not target.handles


def test_111_the_last_close_ends_the_connection(pair):
    bench, source, s, target, peer, _ = pair
    taken = redeem(target, duplicate(source, s, target))
    source.table.WSPCloseSocket(s, bench.now)
    bench.settle()
    assert peer.completed == peer.completed.__class__()
    target.table.WSPCloseSocket(taken, bench.now)
    bench.settle()
    assert peer.completed[-1][2] == WsaErrno.WSAECONNRESET
