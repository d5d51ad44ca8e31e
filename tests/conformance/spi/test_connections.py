"""Statements 30 to 65, 75 and 76, 111 to 119 that the SAN provider answers for."""

import pytest

from provider.errors import WsaErrno
from provider.spi import ConditionResult, NetworkEvent
from tests.support.spi_bench import IPS, error_of

CONNECT, ACCEPT = NetworkEvent.FD_CONNECT, NetworkEvent.FD_ACCEPT


def test_030_a_second_bind_is_refused(bench):
    instance = bench.instance("a")
    s = instance.bound(5000)
    assert error_of(lambda: instance.table.WSPBind(s, (IPS["a"], 5001), 0)) == WsaErrno.WSAEINVAL
    assert instance.bound(5000) != s  # the same port again is the switch's business


def test_033_to_035_connect_is_deferred_signalled_and_fetched(bench):
    client, server = bench.instance("a"), bench.instance("b")
    listener = server.listening(7000)
    s = client.bound(40_000)
    assert client.connect(s, (IPS["b"], 7000)) == WsaErrno.WSAEWOULDBLOCK
    assert client.signalled == []
    bench.settle()
    server.accept(listener)
    bench.settle()
    assert len(client.signalled) == 1
    found = client.events(s)
    assert (found.events, found.errors[CONNECT], found.callee_data[:7]) == (CONNECT, 0, b"welcome")


def test_035_and_046_a_refused_connect_has_its_error_in_the_events(bench):
    client, server = bench.instance("a"), bench.instance("b")
    listener = server.listening(7000)
    s = client.bound(40_000)
    client.connect(s, (IPS["b"], 7000))
    bench.settle()
    assert error_of(lambda: server.accept(listener, ConditionResult.CF_REJECT)) == 10061
    bench.settle()
    assert client.events(s).errors == {CONNECT: 10061}


def test_036_nobody_listens(bench):
    client, _ = bench.instance("a"), bench.instance("b")
    s = client.bound(40_000)
    client.connect(s, (IPS["b"], 7001))
    bench.settle()
    assert client.events(s).errors[CONNECT] in (10054, 10061)
    assert client.connect(client.bound(40_001), ("10.0.0.9", 7000)) == 10065


def test_041_a_connect_is_cancelled_by_closing(bench):
    client, server = bench.instance("a"), bench.instance("b")
    server.listening(7000)
    s = client.bound(40_000)
    client.connect(s, (IPS["b"], 7000))
    client.table.WSPCloseSocket(s, bench.now)
    assert not client.handles
    bench.settle()
    assert error_of(lambda: client.events(s)) == WsaErrno.WSAENOTSOCK


def test_043_a_full_backlog_refuses(bench):
    server = bench.instance("b")
    server.listening(7000, backlog=2)
    callers = [bench.instance("a") for _ in range(3)]
    sockets = [caller.bound(40_000 + n) for n, caller in enumerate(callers)]
    for caller, s in zip(callers, sockets, strict=True):
        caller.connect(s, (IPS["b"], 7000))
        bench.settle()
    assert callers[2].events(sockets[2]).errors == {CONNECT: 10061}
    assert callers[0].events(sockets[0]).errors == {}


def test_044_listening_unbound_or_connected(bench):
    client, s, _, _ = bench.connected()
    assert error_of(lambda: client.table.WSPListen(client.socket(), 5, 0)) == WsaErrno.WSAEINVAL
    assert error_of(lambda: client.table.WSPListen(s, 5, 0)) == WsaErrno.WSAEISCONN


def test_045_the_condition_is_asked_before_the_peer_is_told(bench):
    client, server = bench.instance("a"), bench.instance("b")
    listener = server.listening(7000)
    s = client.bound(40_000)
    client.connect(s, (IPS["b"], 7000), b"caller's data")
    bench.settle()
    asked = []

    def condition(caller):
        bench.settle()
        asked.append((caller.caller[0], caller.caller_data, caller.callee, client.events(s).errors))
        from provider.spi import ConditionDecision

        return ConditionDecision(ConditionResult.CF_ACCEPT)

    server.table.WSPAccept(listener, condition, bench.now)
    ((ip, data, callee, told),) = asked
    assert (ip, data[:13], callee, told) == (IPS["a"], b"caller's data", (IPS["b"], 7000), {})


def test_047_an_accepted_request_makes_one_handle_and_a_new_descriptor(bench):
    _, _, server, accepted = bench.connected()
    assert server.counts["WPUCreateSocketHandle"] == 2
    assert accepted != server.listener


def test_048_a_further_request_signals_anew(bench):
    server = bench.instance("b")
    listener = server.listening(7000)
    for number in range(2):
        caller = bench.instance("a")
        caller.connect(caller.bound(40_000 + number), (IPS["b"], 7000))
        bench.settle()
    server.events(listener)
    before = len(server.signalled)
    server.accept(listener)
    assert len(server.signalled) == before + 1
    assert server.events(listener).events == ACCEPT
    server.accept(listener)
    assert error_of(lambda: server.accept(listener)) == WsaErrno.WSAEWOULDBLOCK


def test_049_a_message_that_comes_early_is_kept(bench):
    client, s, server, accepted = bench.connected()
    server.send(accepted, b"a" * 256)
    server.send(accepted, b"second")
    bench.settle()
    assert client.completed[-1][1].data == b"a" * 256
    second = client.recv(s)
    for _ in range(30):
        bench.settle()
        bench.now += 10_000_000
        bench.hosts["b"].proxy.handle_timeout(bench.now)
    assert second.data == b"second"


def test_055_to_057_an_operation_is_pending_until_it_completes(bench):
    client, s, server, accepted = bench.connected()
    pending = client.recv(s)
    assert error_of(lambda: client.table.WSPGetOverlappedResult(s, pending, False, 0)) == 996
    server.send(accepted, b"one")
    server.send(accepted, b"two")
    bench.settle()
    assert client.table.WSPGetOverlappedResult(s, pending, False, 0) == 3


@pytest.mark.parametrize("notify", [True, False])
def test_056_the_low_bit_of_the_event_decides_the_upcall(bench, notify):
    client, s, server, accepted = bench.connected()
    server.send(accepted, b"first")
    bench.settle()
    client.completed.clear()
    posted = client.recv(s, notify=notify)
    server.send(accepted, b"second")
    bench.settle()
    assert posted.done
    assert [entry[1] for entry in client.completed] == ([posted] if notify else [])


def test_061_no_message_is_longer_than_the_option_says(bench):
    client, s, _, _ = bench.connected()
    longest = client.table.WSPGetSockOpt(s, 0xFFFF, 0x2003, 0)
    assert error_of(lambda: client.send(s, bytes(longest + 1))) == WsaErrno.WSAEMSGSIZE
    client.send(s, bytes(longest))


def test_065_send_without_a_connection(bench):
    instance = bench.instance("a")
    assert error_of(lambda: instance.send(instance.bound(1), b"x")) == WsaErrno.WSAENOTCONN
    assert error_of(lambda: instance.recv(instance.bound(2))) == WsaErrno.WSAENOTCONN


def test_076_events_are_copied_and_cleared_at_once(bench):
    client, server = bench.instance("a"), bench.instance("b")
    listener = server.listening(7000)
    client.connect(client.bound(40_000), (IPS["b"], 7000))
    bench.settle()
    assert server.events(listener).events == ACCEPT
    assert server.events(listener).events == NetworkEvent(0)
    assert server.events(listener).errors == {}


def test_113_pending_operations_end_with_995_each_once(bench):
    client, s, _, _ = bench.connected()
    posted = [client.recv(s) for _ in range(3)]
    client.completed.clear()
    client.table.WSPCloseSocket(s, bench.now)
    assert [error for _, _, error, _ in client.completed] == [995] * 4
    assert [entry[1] for entry in client.completed][1:] == posted


def test_114_closing_the_handle_is_the_last_upcall(bench):
    client, s, _, _ = bench.connected()
    (handle,) = client.handles
    client.table.WSPCloseSocket(s, bench.now)
    bench.settle()
    assert client.closed == [handle]
    assert all(entry[0] == handle for entry in client.completed)  # each was still known when it came


@pytest.mark.parametrize("call", ["send", "recv", "events", "connect", "close"])
def test_116_use_after_close(bench, call):
    client, s, _, _ = bench.connected()
    client.table.WSPCloseSocket(s, bench.now)
    calls = {
        "send": lambda: client.send(s, b"x"),
        "recv": lambda: client.recv(s),
        "events": lambda: client.events(s),
        "connect": lambda: client.table.WSPConnect(s, (IPS["b"], 1), b"", 0),
        "close": lambda: client.table.WSPCloseSocket(s, 0),
    }
    assert error_of(calls[call]) == WsaErrno.WSAENOTSOCK


def test_117_closing_never_blocks(bench):
    client, s, server, accepted = bench.connected()
    client.send(s, b"still under way")
    assert error_of(lambda: client.table.WSPCloseSocket(s, bench.now)) == 0
    assert error_of(lambda: server.table.WSPCloseSocket(accepted, bench.now)) == 0


def test_118_the_peer_closes_receives_fail_and_the_descriptor_stays(bench):
    client, s, server, accepted = bench.connected()
    server.table.WSPCloseSocket(accepted, bench.now)
    bench.settle()
    assert client.completed[-1][2] == WsaErrno.WSAECONNRESET
    assert len(client.handles) == 1
    client.table.WSPCloseSocket(s, bench.now)
    assert not client.handles
