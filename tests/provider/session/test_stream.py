"""The byte stream of a session: exact bytes, half close, close, abort, and a peer that breaks the protocol."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.wire.sdp import BSDH_SIZE, Mid, decode_header, encode_message
from provider.errors import WsaErrno, WsaError
from provider.session.session import (
    Aborted,
    Closed,
    Established,
    PeerShutdown,
    Readable,
    Role,
    Session,
    SessionConfig,
    Writable,
)
from tests.support.session_pair import SMALL, SessionPair


def test_both_ends_are_established_and_bytes_go_both_ways():
    pair = SessionPair()
    assert [end.events for end in pair.ends] == [[Established()], [Established()]]
    pair.left.session.send(b"question", 0)
    pair.right.session.send(b"answer", 0)
    pair.settle()
    assert pair.right.session.peek(4) == b"ques"
    assert pair.right.session.receive(100, 0) == b"question"
    assert pair.left.session.receive(3, 0) == b"ans"
    assert pair.left.session.receive(100, 0) == b"wer"
    assert pair.left.seen(Readable) == [Readable()]


def test_bytes_taken_back_come_first_and_occupy_no_receive():
    pair = SessionPair()
    pair.left.session.send(b"abcdef", 0)
    pair.settle()
    right = pair.right.session
    assert right.receive(4, 0) == b"abcd"
    right.push_front(b"bcd")
    right.push_front(b"a")
    assert right.unread == 6
    assert right.receive(5, 0) == b"abcde"
    assert right.receive(5, 0) == b"f"


def test_send_buffer_is_bounded_and_writable_follows():
    pair = SessionPair()
    left = pair.left.session
    assert left.send(bytes(5000), 0) == SMALL.send_buffer
    assert left.send_space == 0
    assert left.send(bytes(100), 0) == 0
    assert left.send(bytes(100), 0, beyond_limit=True) == 100
    pair.settle()
    assert len(pair.read_all(pair.right)) == SMALL.send_buffer + 100
    assert pair.left.seen(Writable) == [Writable()]


def test_half_close_then_close():
    pair = SessionPair()
    left, right = pair.left.session, pair.right.session
    left.send(b"last words", 0)
    left.shutdown_send(0)
    left.shutdown_send(0)
    with pytest.raises(WsaError) as refused:
        left.send(b"x", 0)
    assert refused.value.wsa is WsaErrno.WSAESHUTDOWN
    pair.settle()
    assert right.peer_finished
    assert pair.right.seen(PeerShutdown) == []  # not before the bytes are read
    right.send(b"heard", 0)
    assert pair.read_all(pair.right) == b"last words"
    assert pair.right.seen(PeerShutdown) == [PeerShutdown()]
    right.close(0)
    assert pair.read_all(pair.left) == b"heard"
    for end in pair.ends:
        assert end.seen(Closed) == [Closed()]
        assert end.seen(Aborted) == []
        assert end.session.is_closed
        assert dict(end.session.statistics().messages_sent)["DISCONNECT"] == 1
        assert end.session.poll_transmit(0) is None
        assert end.session.poll_timeout() is None
        assert end.session.receives_wanted() == 0


def test_close_with_unread_bytes_aborts():
    pair = SessionPair()
    pair.left.session.send(b"unread", 0)
    pair.settle()
    pair.right.session.close(0)
    pair.settle()
    assert pair.left.seen(Aborted) == [Aborted(WsaErrno.WSAECONNRESET)]
    assert pair.right.seen(Aborted) == []


def test_bytes_for_a_closed_end_reset_the_connection():
    pair = SessionPair()
    pair.right.session.close(0)
    pair.left.session.send(b"too late", 0)
    pair.settle()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNRESET)]
    assert pair.left.seen(Aborted) == [Aborted(WsaErrno.WSAECONNRESET)]


def test_abort_is_said_once_and_received_bytes_stay_readable():
    pair = SessionPair()
    pair.left.session.send(b"kept", 0)
    pair.settle()
    pair.left.session.abort(0)
    pair.left.session.abort(0)
    assert pair.settle() == 1
    assert pair.right.session.receive(9, 0) == b"kept"
    assert dict(pair.left.session.statistics().messages_sent)["ABORT"] == 1
    assert "ABORT" not in dict(pair.right.session.statistics().messages_sent)


def _message(pair, mid, body=b"", **changes):
    header = {"bufs": 32, "mseq": pair.left.session._credits.sent + 1, "mseqack": 0} | changes
    return encode_message(mid, body=body, **header)


@pytest.mark.parametrize(
    "make",
    [
        lambda pair: b"",
        lambda pair: _message(pair, Mid.DATA, b"x") + b"y",
        lambda pair: _message(pair, Mid.DATA, b"x", mseq=2),
        lambda pair: _message(pair, Mid.DATA, b"x", mseq=0),
        lambda pair: _message(pair, Mid.DATA, b"x", mseqack=1),
        lambda pair: _message(pair, Mid.DATA, bytes(SMALL.receive_size)),
        lambda pair: _message(pair, Mid.DATA, b"x", flags=1),
        lambda pair: _message(pair, 0x55),
        lambda pair: _message(pair, Mid.SOURCE_AVAILABLE),
        lambda pair: _message(pair, Mid.HELLO),
        lambda pair: _message(pair, Mid.DISCONNECT, b"x"),
        lambda pair: _message(pair, Mid.SUSPEND_ACK),
        lambda pair: _message(pair, Mid.RESUME, bytes(12)),
        lambda pair: _message(pair, Mid.SUSPEND, b"xyz"),
        lambda pair: _message(pair, Mid.SUSPEND, b"\1" * 8),
    ],
)
def test_a_violation_aborts_once(make):
    pair = SessionPair()
    pair.right.session.handle_message(make(pair), 0)
    pair.right.session.handle_message(make(pair), 0)
    pair.flush()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]
    assert [decode_header(m).mid for m in pair.right.under_way] == [Mid.ABORT]


def test_data_after_disconnect_aborts():
    pair = SessionPair()
    pair.right.session.handle_message(_message(pair, Mid.DISCONNECT), 0)
    pair.right.session.handle_message(_message(pair, Mid.DATA, b"x", mseq=2), 0)
    pair.flush()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]


@given(st.lists(st.binary(max_size=80), max_size=8), st.booleans())
def test_random_bytes_never_raise(messages, framed):
    pair = SessionPair()
    for number, data in enumerate(messages):
        if framed and data:
            data = encode_message(data[0], bufs=9, mseq=number + 1, mseqack=0, body=data[1:])
        pair.right.session.handle_message(data, 0)
        pair.flush()
    assert len(pair.right.seen(Aborted)) <= 1


@pytest.mark.parametrize("private", [b"", bytes(91), bytes(92), b"\xff" * 92])
def test_what_is_no_hello_is_refused(private):
    config = SessionConfig()
    acceptor = Session(Role.ACCEPTOR, config, ("10.0.0.2", 80), ("10.0.0.1", 1))
    initiator = Session(Role.INITIATOR, config, ("10.0.0.1", 1), ("10.0.0.2", 80))
    assert not acceptor.handle_hello(private, 0)
    assert not initiator.handle_hello_ack(private, 0)


def test_large_sends_become_full_messages():
    pair = SessionPair(SessionConfig())
    data = bytes(range(256)) * 1024
    for offset in range(0, len(data), 65536):
        pair.left.session.send(data[offset : offset + 65536], 0)
    pair.flush()
    sizes = [len(m) for m in pair.left.under_way]
    assert max(sizes) == SessionConfig().receive_size
    assert sum(sizes) - BSDH_SIZE * len(sizes) == len(data)
    pair.settle()
    assert pair.read_all(pair.right) == data


def test_numbers_wrap_at_32_bits():
    pair = SessionPair()
    near = (1 << 32) - 5
    for end in pair.ends:
        window = end.session._credits
        window.sent = window.received = window.acknowledged = near
        window.limit += near
        window.posted += near
        window.told += near
    for number in range(20):
        pair.left.session.send(bytes([number]) * 50, 0)
        assert pair.read_all(pair.right) == bytes([number]) * 50
    assert pair.left.session._credits.sent > 1 << 32
