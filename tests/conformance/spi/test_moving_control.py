"""Statements 77, 88 and 92 to 110 about control that moves, on two simulated hosts watched at the SPI."""

from dataclasses import replace

import pytest

from fabric.units import MILLISECOND, SECOND
from fabric.wire.sdp import Mid, decode_header
from provider import constants as c
from provider.errors import WsaErrno
from provider.sockets_switch import events
from provider.sockets_switch.transfers import MODES
from tests.support.handoff_run import SENDER, SOURCE, TARGET, execute
from tests.support.spi_bench import error_of
from tests.support.spi_run import SERVER_IP, SpiRun


@pytest.fixture
def spi():
    return SpiRun()


@pytest.fixture
def connected(spi):
    """(run, the peer's descriptor, the source's)."""
    return spi, *spi.connected()


def mids(spi, process):
    """What the process's provider was given to send, by message identifier."""
    return [decode_header(call.arguments[1].data).mid for call in spi.named("WSPSend", process=process)]


def controllers(spi, socket):
    """The descriptors that may use the socket now."""
    core = spi.half(SOURCE).core
    return [d.owner.process for d in core.descriptors.values() if d.socket is socket and core.controlling(socket) is d]


def test_077_a_moved_listener_signals_its_new_process_only(spi):
    listener = spi.listening(SOURCE)
    spi.hand_over(SOURCE, listener, TARGET)
    assert [call.process for call in spi.named("WSPEventSelect")] == [SOURCE, TARGET]
    before = spi.count(SOURCE)
    spi.connecting(SENDER, (SERVER_IP, 7000))
    spi.pass_time()
    assert spi.count(SOURCE) == before
    assert [call.name for call in spi.named("WSPEnumNetworkEvents", process=TARGET)] == ["WSPEnumNetworkEvents"]


def ended_before(spi, call, process):
    """Whether every send that the process's provider was given had ended when ``call`` was made."""
    begun = spi.trace[: spi.trace.index(call)]
    sends = {id(c.arguments[1]) for c in begun if (c.name, c.process) == ("WSPSend", process)}
    ended = {id(c.arguments[1]) for c in begun if (c.name, c.process) == ("WPUCompleteOverlappedRequest", process)}
    return sends <= ended


@pytest.mark.parametrize("mode", MODES)
def test_088_no_send_is_under_way_when_the_provider_is_asked_to_duplicate(connected, mode):
    spi, peer, source = connected
    size = 6_000_000  # more than the peer has receives for
    got = []

    def read():
        if sum(got) < size:
            got.append(len(spi.half(SENDER).peek(peer.s, 100_000)))
            spi.act(SENDER, "consume", peer.s, got[-1])
            spi.world.at(spi.world.now + MILLISECOND, read)

    spi.act(SOURCE, "send", source.s, b"s" * size)
    assert source.socket.pump.sends_under_way
    read()
    info = spi.duplicate(SOURCE, source, TARGET, mode)
    (call,) = spi.named("WSPDuplicateSocket")
    assert ended_before(spi, call, SOURCE)
    assert source.socket.session.unsent  # it was not waited for the stream to end
    spi.call(TARGET, "redeem", info)
    spi.pass_time(3 * SECOND)
    assert sum(got) == size


@pytest.mark.parametrize("seed", range(8))
def test_088_not_even_when_acknowledgements_are_lost(seed):
    spi = SpiRun(seed, loss=0.15)
    _, source = spi.connected()
    spi.duplicate(SOURCE, source, TARGET)
    (call,) = spi.named("WSPDuplicateSocket")
    assert ended_before(spi, call, SOURCE)


def test_092_duplicating_calls_the_provider_at_once(connected):
    """The design's rule: the SPI call moves control, so the provider is asked inside WSPDuplicateSocket."""
    spi, _, source = connected
    spi.duplicate(SOURCE, source, TARGET)
    (call,) = spi.named("WSPDuplicateSocket")
    assert (call.process, call.arguments[1], call.error) == (SOURCE, TARGET, 0)
    assert spi.count(TARGET)["WSPSocket"] == 0


def test_093_control_moves_when_the_ticket_is_redeemed(connected):
    """The design's rule: at the WSPSocket that redeems, before the target has moved a byte."""
    spi, _, source = connected
    assert controllers(spi, source.socket) == [SOURCE]
    info = spi.duplicate(SOURCE, source, TARGET)
    assert controllers(spi, source.socket) == []
    spi.call(TARGET, "redeem", info)
    assert controllers(spi, source.socket) == [TARGET]


@pytest.mark.parametrize("mode", MODES)
def test_094_one_process_controls_and_the_first_request_is_served(connected, mode):
    spi, _, source = connected
    seen = set()

    def watch():
        seen.add(tuple(controllers(spi, source.socket)))

    for instant in range(200):
        spi.world.at(spi.world.now + instant * MILLISECOND // 4, watch)
    assert error_of(lambda: spi.call(TARGET, "duplicate", source.s, SENDER, mode)) == WsaErrno.WSAENOTSOCK
    spi.run.seen.clear()
    first = spi.call(SOURCE, "duplicate", source.s, TARGET, mode)
    assert error_of(lambda: spi.call(SOURCE, "duplicate", source.s, SOURCE, mode)) == WsaErrno.WSAEINVAL
    done = spi.run.wait(events.DuplicateDone)
    watch()
    assert done.operation == first
    taken = spi.call(TARGET, "redeem", done.info)
    watch()
    back = spi.hand_over(TARGET, taken, SOURCE, mode)
    spi.pass_time()
    assert back.owner.process is SOURCE
    assert seen == {(), (SOURCE,), (TARGET,)}


def test_095_a_process_that_does_not_control_is_refused(connected):
    """The design's rule: nobody waits for control; it comes with a ticket."""
    spi, _, source = connected

    def refused():
        assert error_of(lambda: spi.call(SOURCE, "shutdown_send", source.s)) == WsaErrno.WSAEINVAL
        assert error_of(lambda: spi.call(SOURCE, "set_option", source.s, c.SOL_SOCKET, c.SO_KEEPALIVE, 1)) == 10022
        assert spi.half(SOURCE).send_space(source.s) == 0

    info = spi.duplicate(SOURCE, source, TARGET)
    refused()
    spi.call(TARGET, "redeem", info)
    refused()


def test_096_the_suspension_is_the_last_word_and_the_peer_answers_when_it_has_heard_all(connected):
    spi, peer, source = connected
    spi.act(SENDER, "send", peer.s, b"p" * 30_000)
    spi.act(SOURCE, "send", source.s, b"s" * 30_000)
    spi.duplicate(SOURCE, source, TARGET)
    said, answered = mids(spi, SOURCE), mids(spi, SENDER)
    assert said[-1] == Mid.SUSPEND
    assert said.count(Mid.DATA) >= 8
    assert answered[-1] == Mid.SUSPEND_ACK
    assert answered.count(Mid.DATA) >= 8
    assert peer.socket.session.unread == 30_000  # the peer had everything when it answered
    assert source.socket.session.unread == 30_000
    spi.act(SENDER, "send", peer.s, b"waits")
    spi.pass_time()
    assert (mids(spi, SOURCE), mids(spi, SENDER)) == (said, answered)


@pytest.mark.parametrize("size", [None, 65_536, 3 << 20])
def test_097_a_suspended_peer_reads_nothing_new_and_sends_into_its_buffer(connected, size):
    spi, peer, source = connected
    if size is not None:
        spi.call(SENDER, "set_option", peer.s, c.SOL_SOCKET, c.SO_SNDBUF, size)
    info = spi.duplicate(SOURCE, source, TARGET)
    sent = len(mids(spi, SENDER))
    assert spi.half(SENDER).peek(peer.s, 100) == b""
    limit = spi.half(SENDER).get_option(SENDER, peer.s, c.SOL_SOCKET, c.SO_SNDBUF, spi.world.now)
    assert spi.half(SENDER).send_space(peer.s) == limit
    spi.act(SENDER, "send", peer.s, bytes(limit))
    assert spi.half(SENDER).send_space(peer.s) == 0
    assert len(mids(spi, SENDER)) == sent
    taken = spi.call(TARGET, "redeem", info)
    assert spi.read(TARGET, taken, limit) == bytes(limit)
    assert spi.half(SENDER).send_space(peer.s) == limit


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_099_the_stream_is_exact_over_two_hand_overs_and_loss(mode, seed):
    run, exact = execute(seed, mode, loss=0.03, size=150_000)
    assert exact, f"seed {seed}"
    assert run.server.statistics().registry.commits == 2


def test_100_a_listener_moves_without_a_suspension_and_with_what_waits(spi):
    listener = spi.listening(SOURCE)
    spi.connecting(SENDER, (SERVER_IP, 7000))
    spi.pass_time()
    info = spi.duplicate(SOURCE, listener, TARGET)
    spi.connecting(SENDER, (SERVER_IP, 7000))
    spi.pass_time()
    taken = spi.call(TARGET, "redeem", info)
    moved_at = spi.named("WSPListen", process=TARGET)[0].at
    assert all(call.at <= moved_at for call in spi.named("WSPAccept", process=SOURCE))
    for _ in range(2):
        child = spi.call(TARGET, "accept", taken.s)
        assert child.owner.process is TARGET
    spi.pass_time()
    assert mids(spi, SOURCE) == mids(spi, TARGET) == []


@pytest.mark.parametrize("mode", MODES)
def test_101_the_peers_application_notices_nothing(connected, mode):
    spi, peer, source = connected
    taken = spi.hand_over(SOURCE, source, TARGET, mode)
    spi.pass_time()
    assert [event for node, event in spi.run.seen if node == "client"] == []
    spi.write(SENDER, peer, b"on")
    assert spi.read(TARGET, taken, 2) == b"on"
    assert [type(event) for node, event in spi.run.seen if node == "client"] == []
    assert peer.socket.remote == (SERVER_IP, source.socket.local[1])


def test_102_a_suspended_peer_gives_up_when_the_other_host_dies(connected):
    spi, peer, source = connected
    spi.duplicate(SOURCE, source, TARGET)
    for name, link in spi.world.link_models().items():
        if "server" in name:
            link.configure(replace(link.settings, loss=1.0), spi.world.now)
    deadline = spi.half(SENDER).core.config.suspend_deadline
    spi.pass_time(deadline // 2)
    assert spi.events(events.ChannelReset) == []
    spi.pass_time(2 * deadline)
    resets = [event.s for node, event in spi.run.seen if node == "client" and isinstance(event, events.ChannelReset)]
    assert resets == [peer.s]
    assert peer.socket.error in (WsaErrno.WSAETIMEDOUT, WsaErrno.WSAECONNABORTED, WsaErrno.WSAECONNRESET)
    spi.pass_time(100 * SECOND)
    assert spi.run.client.statistics().endpoints == 0


def test_104_the_creator_gets_its_descriptor_back_when_nobody_redeemed(connected):
    """The freedom of this statement is used for RETURN; redeeming a ticket makes a new descriptor (105)."""
    spi, _, source = connected
    san = source.san
    spi.duplicate(SOURCE, source, TARGET)
    before = spi.count(SOURCE)
    spi.run.wait(events.ControlReturned)
    spi.pass_time()
    assert source.san == san
    assert source.socket.pump.san == san
    assert spi.count(SOURCE)["WPUCreateSocketHandle"] == before["WPUCreateSocketHandle"]
    taken = spi.hand_over(SOURCE, source, SOURCE)
    assert taken.san != san
    assert spi.count(SOURCE)["WPUCreateSocketHandle"] == before["WPUCreateSocketHandle"] + 1


def test_110_options_are_the_sockets_not_the_descriptors(connected):
    spi, _, source = connected
    for name, value in ((c.SO_KEEPALIVE, 1), (c.SO_LINGER, 1 << 16)):
        spi.call(SOURCE, "set_option", source.s, c.SOL_SOCKET, name, value)
    taken = spi.hand_over(SOURCE, source, TARGET)
    assert spi.call(TARGET, "get_option", taken.s, c.SOL_SOCKET, c.SO_KEEPALIVE) == 1
    spi.call(TARGET, "set_option", taken.s, c.SOL_SOCKET, c.SO_KEEPALIVE, 0)
    assert spi.call(SOURCE, "get_option", source.s, c.SOL_SOCKET, c.SO_KEEPALIVE) == 0
    assert spi.call(SOURCE, "get_option", source.s, c.SOL_SOCKET, c.SO_LINGER) == 1 << 16
