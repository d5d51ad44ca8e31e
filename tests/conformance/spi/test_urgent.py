"""Statement 53: urgent data inside a control message, on two simulated hosts watched at the SPI, and on real ones."""

import pytest

from fabric.wire.sdp import BSDH_SIZE, Mid, decode_header
from provider import constants as c
from provider.errors import WsaErrno
from provider.session.urgent import OOB_PENDING, OOB_PRESENT
from provider.sockets_switch.transfers import MODES
from tests.nodes.handoff.conftest import lab, pair, puppets, read_exactly
from tests.support.handoff_run import SENDER, SOURCE, TARGET
from tests.support.puppet import PuppetError
from tests.support.session_pair import SessionPair
from tests.support.spi_bench import error_of
from tests.support.spi_run import SpiRun

__all__ = ["lab", "pair", "puppets"]


@pytest.fixture
def connected():
    """(run, the peer's descriptor, the source's)."""
    spi = SpiRun()
    return spi, *spi.connected()


def test_053_urgent_data_goes_inside_a_control_message_without_flags(connected):
    spi, peer, source = connected
    half = spi.half(SOURCE)

    def write(now):
        half.send(source.s, b"a" * 5000, now)
        half.send_urgent(SOURCE, source.s, b"!", now)
        half.send(source.s, b"after", now)

    spi.world.command("server", write)
    spi.pass_time()
    sends = spi.named("WSPSend", process=SOURCE)
    assert all(len(call.arguments) == 3 for call in sends)  # s, lpOverlapped, now: there are no flags to give
    headers = [decode_header(call.arguments[1].data) for call in sends]
    assert [(h.mid, h.length - BSDH_SIZE, h.flags) for h in headers] == [
        (Mid.DATA, 4080, OOB_PENDING),
        (Mid.DATA, 921, OOB_PRESENT),
        (Mid.DATA, 5, 0),
    ]
    assert spi.call(SENDER, "receive_urgent", peer.s, True) == ord("!")
    assert spi.call(SENDER, "receive_urgent", peer.s, False) == ord("!")
    assert error_of(lambda: spi.call(SENDER, "receive_urgent", peer.s, False)) == WsaErrno.WSAEINVAL
    assert spi.read(SENDER, peer, 5005) == b"a" * 5000 + b"after"


def test_053_the_receive_of_an_urgent_byte_is_posted_again(connected):
    spi, peer, source = connected
    for number in range(2000):
        spi.call(SOURCE, "send_urgent", source.s, bytes([number % 256]))
        if number % 100 == 0:
            spi.pass_time()
    spi.pass_time()
    assert spi.call(SENDER, "receive_urgent", peer.s, False) == 1999 % 256
    buffers = spi.half(SENDER).core.config.session.receive_buffers
    assert peer.socket.session.statistics().receives_outstanding == buffers


def test_053_inline_urgent_data_stays_in_the_stream(connected):
    spi, peer, source = connected
    spi.call(SENDER, "set_option", peer.s, c.SOL_SOCKET, c.SO_OOBINLINE, 1)
    spi.call(SOURCE, "send_urgent", source.s, b"x!")
    spi.act(SOURCE, "send", source.s, b"y")
    assert spi.read(SENDER, peer, 3) == b"x!y"
    assert error_of(lambda: spi.call(SENDER, "receive_urgent", peer.s, False)) == WsaErrno.WSAEINVAL


@pytest.mark.parametrize("mode", MODES)
def test_053_an_urgent_byte_moves_with_its_socket(connected, mode):
    spi, peer, source = connected
    spi.call(SENDER, "send_urgent", peer.s, b"z?")
    spi.pass_time()
    taken = spi.hand_over(SOURCE, source, TARGET, mode)
    assert error_of(lambda: spi.call(SOURCE, "receive_urgent", source.s, False)) == WsaErrno.WSAEINVAL
    assert spi.call(TARGET, "receive_urgent", taken.s, False) == ord("?")
    spi.call(TARGET, "send_urgent", taken.s, b"!")
    spi.pass_time()
    assert spi.call(SENDER, "receive_urgent", peer.s, False) == ord("!")
    assert spi.read(TARGET, taken, 1) == b"z"


def test_053_urgent_data_has_its_errors(connected):
    spi, peer, source = connected
    made = spi.call(SOURCE, "socket", 2, 1, 0)
    assert error_of(lambda: spi.call(SOURCE, "send_urgent", made.s, b"!")) == WsaErrno.WSAENOTCONN
    assert error_of(lambda: spi.call(SOURCE, "receive_urgent", made.s, False)) == WsaErrno.WSAENOTCONN
    info = spi.duplicate(SOURCE, source, TARGET)  # the peer holds still
    spi.act(SENDER, "send", peer.s, bytes(spi.half(SENDER).send_space(peer.s)))
    assert error_of(lambda: spi.call(SENDER, "send_urgent", peer.s, b"!")) == WsaErrno.WSAEWOULDBLOCK
    taken = spi.call(TARGET, "redeem", info)
    spi.call(TARGET, "shutdown_send", taken.s)
    assert error_of(lambda: spi.call(TARGET, "send_urgent", taken.s, b"!")) == WsaErrno.WSAESHUTDOWN


@pytest.mark.parametrize(("flags", "payload"), [(0x01, b""), (0x04, b"x"), (0x80, b"x")])
def test_053_flags_that_mean_nothing_end_the_session(flags, payload):
    pair = SessionPair()
    assert not pair.right.session.is_closed
    pair.left.session.send(payload or b"x", 0)
    pair.left.flush(0)
    message = bytearray(pair.left.under_way.pop())
    message[1] = flags
    message = message[: BSDH_SIZE + len(payload)]
    message[4:8] = len(message).to_bytes(4, "big")
    pair.left.under_way.append(bytes(message))
    pair.deliver_one(pair.right)
    assert pair.right.session.is_closed


@pytest.mark.live
def test_053_urgent_data_of_the_drop_in(pair):
    peer, source = pair
    with pytest.raises(PuppetError) as none_there:
        peer.run("c.recv(1, socket.MSG_OOB)")
    assert none_there.value.wsa == WsaErrno.WSAEINVAL
    assert source.run("c.sendall(b'a' * 100_000); c.send(b'bc!', socket.MSG_OOB)") == 3
    source.run("c.sendall(b'after')")
    assert peer.run(read_exactly("100_007")) == b"a" * 100_000 + b"bc" + b"after"
    assert peer.run("c.recv(9, socket.MSG_OOB | socket.MSG_PEEK)") == b"!"
    peer.run("buffer = bytearray(4); count = c.recv_into(buffer, 0, socket.MSG_OOB)")
    assert peer.run("bytes(buffer[:count])") == b"!"
