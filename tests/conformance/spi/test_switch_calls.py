"""Statements 9 to 75 and 119 about what the sockets switch asks of a provider, on two simulated hosts watched at the
SPI.
"""

import socket as stdlib

import pytest

from fabric.units import SECOND
from fabric.wire.sdp import BSDH_SIZE, Mid, decode_header, decode_hello, decode_hello_ack
from provider import constants as c
from provider.client.any_socket import AnySocket, SystemSocket
from provider.errors import WsaErrno
from provider.sockets_switch import events
from provider.sockets_switch.shared_socket import SharedSocket
from provider.spi import ConditionDecision, ConditionResult, NetworkEvent
from tests.support.handoff_run import SENDER, SOURCE, TARGET
from tests.support.spi_bench import error_of
from tests.support.spi_run import CLIENT_IP, SERVER_IP, SpiRun


@pytest.fixture
def spi():
    return SpiRun()


@pytest.fixture
def connected(spi):
    """(run, the peer's descriptor, the source's)."""
    return spi, *spi.connected()


def raw_listener(spi, callee_data):
    """A port of the client's whose owner speaks through the SPI alone; accepting answers ``callee_data``."""
    attached = spi.attached(SENDER)
    table, core = attached.table, spi.half(SENDER).core
    with core.creating(SharedSocket(999)):
        san = table.WSPSocket(c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP, None, c.WSA_FLAG_OVERLAPPED, spi.world.now)
    table.WSPBind(san, (CLIENT_IP, 7100), spi.world.now)
    table.WSPListen(san, 5, spi.world.now)

    def accept(now):
        with core.creating(SharedSocket(1000)):
            decision = ConditionDecision(ConditionResult.CF_ACCEPT, callee_data)
            return table.WSPAccept(san, lambda caller: decision, now)

    return lambda: spi.world.command("client", accept)


def test_009_a_process_that_dies_leaves_nothing(connected):
    spi, _, source = connected
    spi.listening(SOURCE, port=7500)
    spi.hand_over(SOURCE, source, TARGET)
    for process in (TARGET, SOURCE, SENDER):
        spi.call(process, "detach")
    spi.pass_time(200 * SECOND)
    for stack in (spi.run.client, spi.run.server):
        left = stack.statistics()
        assert (left.processes, left.sockets, left.descriptors, left.endpoints, left.parked) == (0, 0, 0, 0, 0)
        assert (stack.core.companions, stack.core.registry.statistics().sockets) == ({}, 0)
    assert [call.error for call in spi.named("WSPCleanup")] == [0, 0, 0]
    spi.attach(SOURCE)
    assert spi.listening(SOURCE, port=7500)


@pytest.mark.parametrize(("family", "kind"), [(2, 2), (2, 3), (23, 1)])
def test_015_the_switch_takes_no_datagrams_raw_sockets_or_other_families(spi, family, kind):
    assert error_of(lambda: spi.call(SOURCE, "socket", family, kind, 0)) in (10044, 10047)
    assert spi.trace == []


@pytest.mark.parametrize("kind", [stdlib.SOCK_DGRAM, stdlib.SOCK_SEQPACKET])
def test_015_the_process_half_leaves_them_to_the_operating_system(kind):
    family = stdlib.AF_INET if kind == stdlib.SOCK_DGRAM else stdlib.AF_UNIX
    with AnySocket(family, kind) as made:  # no agent is there to be asked
        assert type(made) is SystemSocket


def test_029_the_bind_follows_the_socket_and_has_its_address(spi):
    spi.listening()
    spi.listening(SENDER, CLIENT_IP, 7001)
    source = spi.connecting()
    assert spi.names(SOURCE)[:3] == ["WSPSocket", "WPUCreateSocketHandle", "WSPBind"]
    assert [bind.arguments[1] for bind in spi.named("WSPBind")] == [
        ("0.0.0.0", 7000),
        (CLIENT_IP, 7001),
        (SERVER_IP, source.socket.local[1]),
    ]
    assert source.socket.local[1] != 0


def test_031_options_that_were_set_before_are_set_on_the_companion(spi):
    made = spi.call(SOURCE, "socket", 2, 1, 0)
    spi.call(SOURCE, "set_option", made.s, c.SOL_SOCKET, c.SO_DEBUG, 1)
    spi.call(SOURCE, "set_option", made.s, c.SOL_SOCKET, c.SO_KEEPALIVE, 1)  # the switch's own business
    assert spi.trace == []
    spi.call(SOURCE, "connect", made.s, (CLIENT_IP, 7000))
    names = spi.names(SOURCE)
    assert names[names.index("WSPBind") + 1] == "WSPSetSockOpt"
    (call,) = spi.named("WSPSetSockOpt")
    assert call.arguments[1:4] == (c.SOL_SOCKET, c.SO_DEBUG, 1)


def test_038_there_is_no_fall_back_after_the_connection_is_up(connected):
    spi, _, source = connected
    before = spi.count(SOURCE)
    spi.call(SENDER, "detach")
    spi.pass_time()
    (reset,) = spi.events(events.ChannelReset)
    assert (reset.s, reset.error) == (source.s, WsaErrno.WSAECONNRESET)
    after = spi.count(SOURCE)
    assert all(after[name] == before[name] for name in ("WSPSocket", "WSPConnect", "WSPBind"))
    assert spi.events(events.ConnectFailed) == []


def test_039_connect_completes_only_when_the_session_is_negotiated(spi):
    accept = raw_listener(spi, b"not a HelloAck")
    spi.connecting(SOURCE, (CLIENT_IP, 7100))
    spi.pass_time()
    assert spi.named("WSPConnect")[0].error == WsaErrno.WSAEWOULDBLOCK
    assert spi.events(events.ChannelOpened) == []
    accept()
    spi.pass_time()
    (found,) = spi.named("WSPEnumNetworkEvents", process=SOURCE)
    assert found.result.errors == {NetworkEvent.FD_CONNECT: 0}  # the provider's connection was up
    assert spi.events(events.ChannelOpened) == []
    assert [event.error for event in spi.events(events.ConnectFailed)] == [WsaErrno.WSAECONNREFUSED]


def test_040_a_connected_socket_is_never_connected_again(connected):
    spi, _, source = connected
    assert error_of(lambda: spi.call(SOURCE, "connect", source.s, (CLIENT_IP, 7000))) == WsaErrno.WSAEISCONN
    taken = spi.hand_over(SOURCE, source, TARGET)
    assert error_of(lambda: spi.call(TARGET, "connect", taken.s, (CLIENT_IP, 7000))) == WsaErrno.WSAEISCONN
    assert spi.count()["WSPConnect"] == 1


def test_050_both_tell_their_receives_and_the_acceptor_posts_before_it_answers(connected):
    spi, _, _ = connected
    told = decode_hello(spi.named("WSPConnect")[0].arguments[2])
    assert told.bufs == len(spi.named("WSPRecv", process=SOURCE))
    names = spi.names(SENDER)
    accepting = names.index("WSPAccept")
    answered = spi.named("WSPEnumNetworkEvents", process=SOURCE)[0]
    ack = decode_hello_ack(answered.result.callee_data)
    receives = spi.named("WSPRecv", process=SENDER)
    assert names[accepting + 2 :][: ack.bufs] == ["WSPRecv"] * ack.bufs
    assert all(call.at < answered.at for call in receives[: ack.bufs])


def test_058_and_059_every_message_has_a_receive_which_is_posted_again(connected):
    spi, peer, source = connected
    spi.act(SOURCE, "send", source.s, b"a" * 5_000_000)  # nobody reads: the session stops by itself
    spi.pass_time()
    outstanding = spi.half(SENDER).core.config.session.receive_buffers
    messages = consumed = 0
    for call in spi.trace:
        if call.process == SOURCE and call.name == "WSPSend":
            messages += 1
        if call.process == SENDER and call.name == "WSPRecv":
            consumed += 1
        assert messages <= consumed, "a message without a receive"
    assert spi.run.client.statistics().adapter.rnr_sent == 0
    assert messages > outstanding - 20
    before = spi.count(SENDER)["WSPRecv"]
    assert before < outstanding + 20
    assert spi.read(SENDER, peer, 5_000_000) == b"a" * 5_000_000
    session = peer.socket.session.statistics()
    assert session.receives_outstanding == outstanding
    assert spi.count(SENDER)["WSPRecv"] == outstanding + sum(n for _, n in session.messages_received)


def test_066_the_application_sees_no_boundaries(connected):
    spi, peer, source = connected
    for part in (b"one", b"two", b"three" * 3000, b"four"):
        spi.act(SOURCE, "send", source.s, part)
    whole = b"onetwo" + b"three" * 3000 + b"four"
    spi.pass_time()
    assert spi.half(SENDER).peek(peer.s, 1 << 20) == whole
    for size in (1, 4, 9000, len(whole) - 9005):
        part, whole = whole[:size], whole[size:]
        assert spi.read(SENDER, peer, size) == part


def test_075_only_two_events_reach_the_provider(connected, bench):
    spi, _, source = connected
    spi.hand_over(TARGET, spi.hand_over(SOURCE, source, TARGET), SOURCE)
    spi.hand_over(SENDER, spi.listener, SENDER)
    asked = {call.arguments[1] for call in spi.named("WSPEventSelect")}
    assert asked == {NetworkEvent.FD_ACCEPT, NetworkEvent.FD_CONNECT}
    instance = bench.instance("a")
    for other in (0x01, 0x02, 0x20, 0x11):
        assert error_of(lambda other=other: instance.table.WSPEventSelect(instance.bound(), other, 0)) == 10022


def test_119_a_graceful_end_uses_messages_and_the_one_close(connected):
    spi, peer, source = connected
    spi.write(SOURCE, source, b"last words")
    spi.trace.clear()
    spi.call(SOURCE, "close", source.s)
    assert spi.read(SENDER, peer, 10) == b"last words"
    spi.pass_time()
    assert spi.half(SENDER).peer_finished(peer.s)
    spi.call(SENDER, "close", peer.s)
    spi.pass_time(10 * SECOND)
    said = [decode_header(call.arguments[1].data) for call in spi.named("WSPSend")]
    assert [header.mid for header in said if header.mid != Mid.CREDITS] == [Mid.DISCONNECT, Mid.DISCONNECT]
    assert all(header.length == BSDH_SIZE for header in said)
    verbs = {"WSPSend", "WSPRecv", "WSPCloseSocket", "WPUCompleteOverlappedRequest", "WPUCloseSocketHandle"}
    assert set(spi.count()) == verbs
    assert spi.count()["WSPCloseSocket"] == 2
