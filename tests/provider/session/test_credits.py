"""Credits: an application that does not read silences data and nothing else; nobody talks without need."""

from provider.session.credits import Credits, unwrap
from provider.session.session import Aborted, Closed, PeerResumed, Suspended
from tests.support.session_pair import SMALL, SessionPair


def _stalled_both_ways():
    pair = SessionPair()
    for end in pair.ends:
        end.session.send(bytes(4096), 0)
    pair.settle()
    return pair


def test_data_stops_at_the_reserve_and_the_rest_follows_when_it_is_read():
    pair = _stalled_both_ways()
    for end in pair.ends:
        figures = end.session.statistics()
        assert figures.stalls == 1
        assert figures.credits_left == 8
        assert end.session.unread == 24 * 48
    assert len(pair.read_all(pair.left)) == len(pair.read_all(pair.right)) == 4096


def test_control_messages_pass_although_neither_application_reads():
    pair = _stalled_both_ways()
    for epoch in range(1, 40):
        giving = pair.ends[epoch % 2]
        giving.session.suspend(epoch, 1000, 0)
        pair.settle()
        assert giving.events[-1] == Suspended(epoch)
        giving.session.resume(epoch, 0)
        pair.settle()
        assert pair.other(giving).events[-1] == PeerResumed(epoch)
    pair.left.session.abort(0)
    pair.settle()
    assert len(pair.right.seen(Aborted)) == 1


def test_disconnects_cross_although_both_windows_are_zero():
    pair = SessionPair()
    for end in pair.ends:
        end.session.send(bytes(24 * 48), 0)
        end.session.shutdown_send(0)
    pair.settle()
    for end in pair.ends:
        assert end.seen(Closed) == [Closed()]
        assert len(pair.read_all(end)) == 24 * 48


def test_updates_are_few_and_end():
    pair = SessionPair()
    for _ in range(20):
        pair.left.session.send(bytes(4096), 0)
        pair.read_all(pair.right)
    sent = dict(pair.right.session.statistics().messages_sent)["CREDITS"]
    data = dict(pair.left.session.statistics().messages_sent)["DATA"]
    assert sent * 4 <= data
    assert pair.settle() == 0


def test_a_message_beyond_what_was_posted_is_refused():
    window = Credits(4)
    window.posted = 1
    assert window.arrive(1)
    assert not window.arrive(2)


def test_unwrap_goes_both_ways():
    assert unwrap(3, (1 << 32) - 2) == (1 << 32) + 3
    assert unwrap(0xFFFFFFFE, (1 << 32) + 1) == 0xFFFFFFFE
    assert SMALL.receive_buffers == 32
