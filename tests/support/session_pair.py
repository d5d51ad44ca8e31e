"""Two sessions joined by an in-order reliable message pipe that a test empties by hand."""

from collections import deque

from provider.session.session import Role, Session, SessionConfig

SMALL = SessionConfig(receive_buffers=32, receive_size=64, send_buffer=4096)


class End:
    """One session with what it said (under way to the other end) and the events that it gave."""

    def __init__(self, role, config):
        addresses = (("10.0.0.1", 1000), ("10.0.0.2", 80))
        local, remote = addresses if role is Role.INITIATOR else addresses[::-1]
        self.session = Session(role, config, local, remote)
        self.under_way = deque()
        self.events = []
        self.posted = config.receive_buffers
        self.arrived = 0
        self.said = 0
        self.session.posted(config.receive_buffers)

    def flush(self, now):
        """What the sockets switch does after every input: post what is wanted, send what is due, take the events."""
        wanted = self.session.receives_wanted()
        if wanted:
            self.session.posted(wanted)
            self.posted += wanted
        while (message := self.session.poll_transmit(now)) is not None:
            self.said += 1
            self.under_way.append(message)
            assert self.said < 1_000_000
        while (event := self.session.poll_event()) is not None:
            self.events.append(event)

    def seen(self, kind):
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class SessionPair:
    """``left`` is the initiator. Nothing is delivered until a test says so."""

    def __init__(self, config=SMALL, right_config=None):
        self.now = 0
        self.left = End(Role.INITIATOR, config)
        self.right = End(Role.ACCEPTOR, right_config or config)
        assert self.right.session.handle_hello(self.left.session.hello(0), 0)
        assert self.left.session.handle_hello_ack(self.right.session.hello_ack(0), 0)
        self.flush()

    @property
    def ends(self):
        return (self.left, self.right)

    def other(self, end):
        return self.right if end is self.left else self.left

    def flush(self):
        for end in self.ends:
            end.flush(self.now)

    def deliver_one(self, end):
        """Give ``end`` the oldest message of the other; a message without a posted receive is a broken invariant."""
        sender = self.other(end)
        message = sender.under_way.popleft()
        end.arrived += 1
        assert end.arrived <= end.posted, "more messages than receives were posted"
        end.session.handle_message(message, self.now)
        end.flush(self.now)
        return message

    def settle(self, limit=5000):
        """Deliver until nothing is under way; returns how many messages that took."""
        self.flush()
        count = 0
        while self.left.under_way or self.right.under_way:
            for end in self.ends:
                if self.other(end).under_way:
                    self.deliver_one(end)
                    count += 1
            assert count < limit, "the sessions talk for ever"
        return count

    def read_all(self, end):
        """Read until nothing more comes."""
        data = b""
        while True:
            part = end.session.receive(1 << 20, self.now)
            data += part
            if not part and not self.settle():
                return data
