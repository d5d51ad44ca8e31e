"""A connection made anew: the streams go on, the last messages are compared, and nobody else gets in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.errors import IllegalTransition
from fabric.units import SECOND
from fabric.wire.sdp import Extension, HelloAck, decode_hello, encode_hello, encode_hello_ack
from provider.errors import WsaErrno
from provider.session.session import Aborted, PeerResumed, PeerSuspended, Suspended
from provider.session.suspension import STANDARD_DEADLINE_MS
from tests.support.session_pair import SMALL, SessionPair

SERVICE = 0xABCDE_00010050


def suspended(pair, who=0, epoch=3):
    """``who`` holds the connection still; gives that session and the other."""
    end = pair.ends[who]
    end.session.suspend(epoch, 500, pair.now, service_id=SERVICE)
    pair.settle()
    assert end.seen(Suspended)[-1] == Suspended(epoch)
    return end.session, pair.other(end).session


def remake(pair, who=0, epoch=3):
    """Make the connection anew, as a perfect fabric would."""
    end, other = pair.ends[who], pair.other(pair.ends[who])
    hello = end.session.remake(epoch, pair.now)
    assert end.session.receives_wanted() == 0
    answer = other.session.handle_remake(hello, pair.now)
    assert answer is not None
    assert end.session.handle_remake_ack(answer, pair.now)
    for each in pair.ends:
        each.arrived, each.posted = 0, each.session.receives_outstanding
    pair.flush()


@pytest.mark.parametrize("who", [0, 1])
def test_the_streams_go_on(who):
    pair = SessionPair()
    mover, stayer = pair.ends[who].session, pair.other(pair.ends[who]).session
    stayer.send(b"early", 0)
    pair.flush()
    suspended(pair, who)
    (told,) = pair.other(pair.ends[who]).seen(PeerSuspended)
    assert told == PeerSuspended(0, STANDARD_DEADLINE_MS * 1_000_000, SERVICE)
    mover.send(b"mine", 0)
    stayer.send(b"late", 0)
    assert pair.settle() == 0
    assert stayer.is_remaking
    remake(pair, who)
    assert pair.other(pair.ends[who]).seen(PeerResumed) == [PeerResumed(3)]
    pair.settle()
    assert mover.receive(99, 0) == b"earlylate"
    assert stayer.receive(99, 0) == b"mine"
    assert mover.poll_timeout() is stayer.poll_timeout() is None
    assert not mover.is_remaking
    assert not stayer.is_remaking
    suspended(pair, 1 - who, 4)  # and again, from the other end
    remake(pair, 1 - who, 4)


def test_a_suspension_for_a_remake_can_be_taken_back():
    pair = SessionPair()
    mover, stayer = suspended(pair)
    mover.resume(3, 0)
    pair.settle()
    assert not stayer.is_remaking
    stayer.send(b"on", 0)
    pair.settle()
    assert mover.receive(9, 0) == b"on"


@pytest.mark.parametrize("member", ["last_sent", "last_received"])
def test_a_gap_aborts_both_ends(member):
    pair = SessionPair()
    mover, stayer = suspended(pair)
    hello = decode_hello(mover.remake(3, 0))
    said = {name: getattr(hello.extension, name) for name in ("last_sent", "last_received", "connection_id")}
    said[member] += 1
    forged = encode_hello(
        type(hello)(hello.bufs, 64, hello.port, hello.source, hello.destination, Extension(3, **said))
    )
    assert stayer.handle_remake(forged, 0) is None
    pair.flush()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]
    assert not mover.handle_remake_ack(encode_hello_ack(HelloAck(32, 64, Extension(0, **said))), 0)
    pair.flush()
    assert pair.left.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]


def test_strangers_are_turned_away_without_effect():
    pair = SessionPair()
    mover, stayer = suspended(pair)
    hello = decode_hello(mover.remake(3, 0))
    told = hello.extension
    for port, extension in (
        (hello.port + 1, told),
        (hello.port, None),
        (hello.port, Extension(3, told.last_sent, told.last_received, told.connection_id + 1)),
    ):
        foreign = encode_hello(type(hello)(hello.bufs, 64, port, hello.source, hello.destination, extension))
        assert stayer.handle_remake(foreign, 0) is None
    assert stayer.handle_remake(b"no Hello", 0) is None
    assert stayer.is_remaking
    assert stayer.handle_remake(encode_hello(hello), 0) is not None
    assert stayer.handle_remake(encode_hello(hello), 0) is None, "a second one"


def test_a_peer_without_the_extension_is_handed_over_by_it_and_taken_at_its_word():
    pair = SessionPair()
    for end in pair.ends:
        end.session._peer_extension = None
    mover, stayer = suspended(pair)
    mover.resume(3, 0)  # it knows no Resume
    assert pair.settle() == 0
    hello = decode_hello(mover.remake(3, 0))
    plain = encode_hello(type(hello)(hello.bufs, 64, hello.port, hello.source, hello.destination, None))
    assert stayer.handle_remake(plain, 0) is not None
    assert mover.handle_remake_ack(encode_hello_ack(HelloAck(32, 64)), 0)


def test_nobody_waits_for_ever():
    pair = SessionPair()
    _, stayer = suspended(pair)
    pair.now = stayer.poll_timeout()
    assert pair.now == 10 * SECOND
    stayer.handle_timeout(pair.now)
    assert pair.right.session.is_closed


def test_remake_is_for_the_suspended_only():
    pair = SessionPair()
    with pytest.raises(IllegalTransition, match="RUNNING"):
        pair.left.session.remake(1, 0)
    assert pair.right.session.handle_remake(pair.left.session.hello(0), 0) is None


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(["send", "read", "deliver", "rehome"]), st.integers(1, 900)),
        max_size=60,
    )
)
def test_any_order_keeps_both_streams_exact(steps):
    pair = SessionPair()
    sent, got = [b"", b""], [b"", b""]
    epoch = 0
    for who, what, size in steps:
        end = pair.ends[who]
        if what == "send":
            data = bytes((len(sent[who]) + i) % 251 for i in range(size))
            sent[who] += data[: end.session.send(data, 0)]
        elif what == "read":
            got[who] += end.session.receive(size, 0)
        elif what == "deliver" and pair.other(end).under_way:
            pair.deliver_one(end)
        elif what == "rehome":
            epoch += 1
            suspended(pair, who, epoch)
            remake(pair, who, epoch)
        pair.flush()
    for who in (0, 1):
        got[who] += pair.read_all(pair.ends[who])
    got[0] += pair.read_all(pair.ends[0])
    assert got == sent[::-1]
    assert SMALL.receive_buffers >= pair.left.session.statistics().receives_outstanding
