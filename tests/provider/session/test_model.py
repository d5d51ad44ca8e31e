"""Two sessions against two byte queues: whatever both ends do in any order, the bytes are exact and the talking ends.

Only deliberate ends are in here (shutdown, close with nothing unread); so no session may ever abort, except that
bytes for an end that was closed reset the connection, which is a rule of its own at the end of a run.
"""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from provider.session.session import Aborted, Closed, PeerShutdown, SessionConfig
from tests.support.session_pair import SessionPair

WHICH = st.integers(0, 1)


class Model(RuleBasedStateMachine):
    """``accepted[i]``: what end i got accepted; ``read[i]``: what end i's application has kept."""

    @initialize(buffers=st.sampled_from([32, 40, 64]), size=st.sampled_from([64, 100]))
    def start(self, buffers, size):
        config = SessionConfig(receive_buffers=buffers, receive_size=size, send_buffer=3000)
        self.pair = SessionPair(config)
        self.accepted = [bytearray(), bytearray()]
        self.read = [bytearray(), bytearray()]
        self.shut = [False, False]
        self.epochs = [0, 0]
        self.counter = 0

    def _end(self, which):
        return self.pair.ends[which]

    @rule(which=WHICH, size=st.integers(0, 4000), beyond=st.booleans())
    def send(self, which, size, beyond):
        end = self._end(which)
        if self.shut[which]:
            return
        data = bytes((self.counter + i) % 251 for i in range(size))
        self.counter += size
        count = end.session.send(data, 0, beyond_limit=beyond)
        assert count == size if beyond else count <= size
        self.accepted[which] += data[:count]
        end.flush(0)

    @rule(which=WHICH, limit=st.integers(1, 3000))
    def receive(self, which, limit):
        end = self._end(which)
        peeked = end.session.peek(limit)
        data = end.session.receive(limit, 0)
        assert data == peeked
        self.read[which] += data
        end.flush(0)

    @rule(which=WHICH, count=st.integers(1, 500))
    def take_back(self, which, count):
        count = min(count, len(self.read[which]))
        if count:
            self._end(which).session.push_front(bytes(self.read[which][-count:]))
            del self.read[which][-count:]

    @rule(which=WHICH)
    def suspend(self, which):
        session = self._end(which).session
        if session.is_peer_suspended or session.is_suspended or session._suspension.state.value != "RUNNING":
            return
        self.epochs[which] += 1
        session.suspend(self.epochs[which], 1000, 0)

    @rule(which=WHICH)
    def resume(self, which):
        session = self._end(which).session
        if session.is_suspended:
            session.resume(self.epochs[which], 0)

    @rule(which=WHICH)
    def flush(self, which):
        self._end(which).flush(0)

    @rule(which=WHICH, count=st.integers(1, 30))
    def deliver(self, which, count):
        end = self._end(which)
        while count and self.pair.other(end).under_way:
            self.pair.deliver_one(end)
            count -= 1

    @precondition(lambda self: self.counter > 500)
    @rule(which=WHICH)
    def shutdown(self, which):
        self._end(which).session.shutdown_send(0)
        self.shut[which] = True

    @precondition(lambda self: all(self.shut))
    @rule(which=WHICH)
    def close(self, which):
        """As an application does that has read to the end."""
        end = self._end(which)
        if end.session.peer_finished and not end.session.unread:
            end.session.close(0)

    @invariant()
    def bytes_are_a_prefix(self):
        if not hasattr(self, "pair"):
            return
        for which in (0, 1):
            assert self.accepted[1 - which].startswith(self.read[which])
            assert self._end(which).seen(Aborted) == []
            assert self._end(which).session._incoming.held <= self._end(which).session.config.receive_buffers

    def teardown(self):
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        pair.settle()
        for which in (0, 1):
            if self._end(which).session.is_suspended:
                self._end(which).session.resume(self.epochs[which], 0)
        pair.settle()
        for _ in range(2):
            for which in (0, 1):
                self.read[which] += pair.read_all(self._end(which))
        for which in (0, 1):
            assert self.read[which] == self.accepted[1 - which]
            assert self._end(which).session._suspension.state.value == "RUNNING"
            self._end(which).session.close(0)
        pair.settle()
        for which in (0, 1):
            end = self._end(which)
            assert len(end.seen(Closed)) == 1
            assert end.seen(PeerShutdown)
            assert end.seen(Aborted) == []
            assert dict(end.session.statistics().messages_sent)["DISCONNECT"] == 1
            assert end.session.poll_transmit(0) is None


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestModel = Model.TestCase


@pytest.mark.soak
class TestModelLong(Model.TestCase):
    settings = settings(max_examples=3000, stateful_step_count=100, deadline=None)
