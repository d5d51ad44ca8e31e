"""Suspension: the peer holds still, nothing is lost, crossings have one winner, deadlines end."""

import pytest

from fabric.errors import IllegalTransition
from fabric.units import MILLISECOND
from fabric.wire.sdp import Mid, Resume, decode_header, encode_message, encode_resume
from provider.errors import WsaErrno, WsaError
from provider.session.session import (
    Aborted,
    Closed,
    PeerResumed,
    PeerShutdown,
    PeerSuspended,
    Suspended,
    SuspensionLost,
)
from provider.session.states import STREAM, SUSPENSION, StreamState, SuspensionState
from tests.support.session_pair import SessionPair


def test_bytes_under_way_arrive_before_the_answer_and_the_rest_waits():
    pair = SessionPair()
    left, right = pair.left.session, pair.right.session
    right.send(b"early", 0)
    pair.flush()
    left.suspend(7, 500, 0)
    left.send(b"mine", 0)
    pair.settle()
    assert pair.left.seen(Suspended) == [Suspended(7)]
    assert pair.right.seen(PeerSuspended) == [PeerSuspended(7, 500 * MILLISECOND)]
    assert left.is_suspended
    assert right.is_peer_suspended
    assert left.receive(99, 0) == b"early"
    right.send(b"late", 0)
    assert pair.settle() == 0
    left.resume(7, 0)
    pair.settle()
    assert pair.right.seen(PeerResumed) == [PeerResumed(7)]
    assert left.receive(99, 0) == b"late"
    assert right.receive(99, 0) == b"mine"
    assert left.poll_timeout() is None
    assert right.poll_timeout() is None


def test_crossing_suspensions_have_one_winner():
    pair = SessionPair()
    pair.left.session.suspend(3, 500, 0)
    pair.right.session.suspend(9, 500, 0)
    pair.settle()
    assert pair.left.seen(Suspended) == [Suspended(3)]
    assert pair.left.seen(PeerSuspended) == []
    assert pair.right.seen(SuspensionLost) == [SuspensionLost(9)]
    assert pair.right.seen(Suspended) == []
    pair.left.session.resume(3, 0)
    pair.settle()
    pair.right.session.suspend(10, 500, 0)
    pair.settle()
    assert pair.right.seen(Suspended) == [Suspended(10)]


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("who", [0, 1])
def test_a_suspension_given_up_before_the_answer(crossing, who):
    pair = SessionPair()
    end = pair.ends[who]
    end.session.suspend(3, 500, 0)
    if crossing:
        pair.other(end).session.suspend(4, 500, 0)
    pair.flush()
    end.session.cancel_suspension(3, 0)
    pair.settle()
    assert end.seen(Suspended) == []
    other = pair.other(end).session
    if other.is_suspended:
        other.resume(4, 0)
    end.session.send(b"on", 0)
    pair.settle()
    assert other.receive(9, 0) == b"on"
    assert not end.seen(Aborted)


def test_half_closed_and_a_disconnect_that_falls_due():
    pair = SessionPair()
    left, right = pair.left.session, pair.right.session
    left.shutdown_send(0)
    pair.settle()
    left.suspend(1, 500, 0)
    pair.settle()
    right.send(b"rest", 0)
    right.close(0)
    assert pair.settle() == 0
    left.resume(1, 0)
    assert pair.read_all(pair.left) == b"rest"
    for end in pair.ends:
        assert end.seen(Closed) == [Closed()]
        assert end.seen(PeerShutdown) == [PeerShutdown()]
        assert dict(end.session.statistics().messages_sent)["DISCONNECT"] == 1


def test_a_finished_stream_counts_as_suspended():
    pair = SessionPair()
    pair.left.session.shutdown_send(0)
    pair.right.session.shutdown_send(0)
    pair.flush()
    pair.left.session.suspend(5, 500, 0)
    pair.settle()
    assert pair.left.seen(Suspended) == [Suspended(5)]
    pair.right.session.suspend(6, 500, 0)
    pair.flush()
    assert pair.right.seen(Suspended) == [Suspended(6)]
    pair.right.session.resume(6, 0)


@pytest.mark.parametrize("resume", [Resume(1, 0, 1), Resume(1, 1, 0), Resume(1, 2, 1)])
def test_a_resume_that_does_not_fit_aborts(resume):
    pair = SessionPair()
    pair.left.session.suspend(1, 500, 0)
    pair.settle()
    body = encode_resume(resume)
    pair.right.session.handle_message(encode_message(Mid.RESUME, bufs=9, mseq=2, mseqack=1, body=body), 0)
    pair.flush()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]
    assert decode_header(pair.right.under_way[-1]).mid == Mid.ABORT


def test_an_older_epoch_aborts():
    pair = SessionPair()
    for epoch in (5, 4):
        pair.left.session.suspend(epoch, 500, 0)
        pair.settle()
        pair.left.session.resume(epoch, 0)
        pair.settle()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]


def test_a_peer_that_speaks_while_suspended_is_cut_off():
    pair = SessionPair()
    pair.left.session.suspend(1, 500, 0)
    pair.settle()
    pair.left.session.handle_message(encode_message(Mid.DATA, bufs=9, mseq=2, mseqack=1, body=b"x"), 0)
    pair.flush()
    assert pair.left.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]


def test_a_peer_that_never_resumes():
    pair = SessionPair()
    pair.left.session.suspend(1, 500, 0)
    pair.settle()
    right = pair.right.session
    right.handle_timeout(500 * MILLISECOND - 1)
    assert right.is_peer_suspended
    assert right.poll_timeout() == 500 * MILLISECOND
    right.handle_timeout(500 * MILLISECOND)
    pair.settle()
    assert pair.right.seen(Aborted) == [Aborted(WsaErrno.WSAECONNABORTED)]
    assert pair.left.seen(Aborted) == [Aborted(WsaErrno.WSAECONNRESET)]
    assert right.poll_timeout() is None


def test_a_peer_that_never_answers():
    pair = SessionPair()
    left = pair.left.session
    left.suspend(1, 500, 0)
    pair.flush()
    assert left.poll_timeout() == 1000 * MILLISECOND
    left.handle_timeout(1000 * MILLISECOND)
    pair.flush()
    assert pair.left.seen(Aborted) == [Aborted(WsaErrno.WSAETIMEDOUT)]


def test_the_callers_mistakes():
    pair = SessionPair()
    with pytest.raises(IllegalTransition, match="resume"):
        pair.left.session.resume(1, 0)
    pair.left.session.suspend(1, 500, 0)
    with pytest.raises(IllegalTransition, match="suspend"):
        pair.left.session.suspend(2, 500, 0)
    pair.right.session._peer_extension = None
    with pytest.raises(WsaError) as refused:
        pair.right.session.suspend(1, 500, 0)
    assert refused.value.wsa is WsaErrno.WSAEOPNOTSUPP


def test_the_tables_are_whole():
    assert {state for state, _ in STREAM} | {StreamState.CLOSED, StreamState.ABORTED} == set(StreamState)
    assert set(STREAM.values()) == set(StreamState) - {StreamState.OPENING}
    assert {state for state, _ in SUSPENSION} == set(SUSPENSION.values()) == set(SuspensionState)
