"""Hand-overs against a model of two byte queues: any order of operations by up to four processes of one host, with
deaths, lost frames and time passing anywhere.

What must hold after every step: at most one descriptor may use the socket; what the processes together have read is a
prefix of what the peer sent, and what the peer has read a prefix of what they wrote; nothing raises but WsaError. When
everybody has gone nothing is left: no socket, descriptor, ticket, queue pair or parked connection.
"""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabric.ids import ProcessInstance
from fabric.units import MILLISECOND, SECOND
from provider.errors import WsaError
from provider.sockets_switch import events
from tests.support.handoff_run import SENDER, build

MODES = st.sampled_from(["suspend", "local", "rehome"])
SIZES = st.integers(1, 30_000)
SLOTS = st.integers(0, 3)


class Channel:
    """A descriptor's data channel: what the process has not read, and whether it is cut off."""

    def __init__(self, process):
        self.process = process
        self.unread = b""
        self.is_open = True


class Handoffs(RuleBasedStateMachine):
    """``slots`` are the processes of the host ``server``; the peer is one process on ``client``."""

    @initialize(loss=st.sampled_from([0.0, 0.02]), seed=st.integers(0, 1000))
    def connect(self, loss, seed):
        self.run = build(seed, loss)
        self.world, self.client, self.server = self.run.world, self.run.client.half, self.run.server.half
        self.world._on_event = self.on_event
        self.next_pid = 100
        self.slots = [self.new_process() for _ in range(4)]
        self.client.attach(SENDER, "", 0)
        self.listener = self.client.socket(SENDER, 2, 1, 0, 0)
        self.client.bind(SENDER, self.listener.s, ("0.0.0.0", 7000), 0)
        self.client.listen(SENDER, self.listener.s, 5, 0)
        first = self.server.socket(self.slots[0], 2, 1, 0, 0)
        self.channels = {first.s: Channel(self.slots[0])}
        self.tickets = []
        self.sent = {"client": b"", "server": b""}
        self.got = {"client": b"", "server": b""}
        self.peer_open = True
        self.command("server", lambda now: self.server.connect(self.slots[0], first.s, ("10.77.0.1", 7000), now))
        self.world.run_until(self.world.now + SECOND)
        self.peer = self.command("client", lambda now: self.client.accept(SENDER, self.listener.s, now))

    # ------------------------------------------------------------------- helpers

    def new_process(self):
        self.next_pid += 1
        process = ProcessInstance(self.next_pid, 1)
        self.server.attach(process, "", self.run.world.now)
        return process

    def on_event(self, node, event, now):
        self.run.seen.append((node, event))
        if isinstance(event, events.RevokeChannel):
            half = self.server if node == "server" else self.client
            unread = b""
            channel = self.channels.get(event.s) if node == "server" else None
            if channel is not None:
                unread, channel.unread, channel.is_open = channel.unread, b"", False
            half.channel_revoked(event.s, b"", unread, False, now)
            (self.run.server if node == "server" else self.run.client).settle(now)
        elif node == "server" and isinstance(event, events.ControlReturned):
            self.channels[event.s].is_open = True
        elif node == "server" and isinstance(event, events.ChannelReset) and event.s in self.channels:
            self.channels[event.s].is_open = False
        elif isinstance(event, events.DuplicateDone):
            self.tickets.append(event.info)

    def command(self, node, function):
        try:
            return self.world.command(node, function)
        except WsaError:
            return None

    def pattern(self, node, size):
        """The next bytes of a stream that repeats only after a long time."""
        start = len(self.sent[node])
        return bytes((start + n) * 2654435761 >> 13 & 0xFF for n in range(size))

    def pick(self, data):
        """A descriptor: mostly the one that works."""
        working = [s for s in sorted(self.channels) if self.usable(s)]
        return data.draw(st.sampled_from(working * 8 + sorted(self.channels)))

    def usable(self, s):
        return self.channels[s].is_open and s in self.server.core.descriptors

    # --------------------------------------------------------------------- rules

    @precondition(lambda self: self.peer is not None and self.peer_open)
    @rule(size=SIZES)
    def peer_writes(self, size):
        data = self.pattern("client", min(size, self.client.send_space(self.peer.s)))
        if data:
            self.command("client", lambda now: self.client.send(self.peer.s, data, now))
            self.sent["client"] += data

    @precondition(lambda self: self.peer is not None and self.peer_open)
    @rule(size=SIZES)
    def peer_reads(self, size):
        data = self.client.peek(self.peer.s, size)
        if data:
            self.command("client", lambda now: self.client.consume(self.peer.s, len(data), now))
            self.got["client"] += data

    @rule(data=st.data(), size=SIZES)
    def process_writes(self, data, size):
        s = self.pick(data)
        if self.usable(s):
            part = self.pattern("server", min(size, self.server.send_space(s)))
            if part:
                self.command("server", lambda now: self.server.send(s, part, now))
                self.sent["server"] += part

    @rule(data=st.data(), given=SIZES, read=SIZES)
    def process_reads(self, data, given, read):
        s = self.pick(data)
        if not self.usable(s):
            return
        channel = self.channels[s]
        part = self.server.peek(s, given)
        if part:
            channel.unread += part
            self.command("server", lambda now: self.server.consume(s, len(part), now))
        self.got["server"] += channel.unread[:read]
        channel.unread = channel.unread[read:]

    @rule(data=st.data(), slot=SLOTS, mode=MODES)
    def hand_over(self, data, slot, mode):
        s = self.pick(data)
        process, target = self.channels[s].process, self.slots[slot]
        self.command("server", lambda now: self.server.duplicate(process, s, target, mode, now))

    @rule(data=st.data(), slot=SLOTS, mode=MODES)
    def hand_over_and_take(self, data, slot, mode):
        """Without anything in between; the peer may still be recovering from losses."""
        known = len(self.tickets)
        self.hand_over(data, slot, mode)
        self.world.run_while(lambda: len(self.tickets) == known, self.world.now + SECOND)
        if len(self.tickets) > known:
            self.take(self.tickets[-1], self.slots[slot])

    def take(self, info, process):
        made = self.command("server", lambda now: self.server.redeem(process, info, now))
        if made is not None:
            self.channels[made.s] = Channel(process)

    @rule(data=st.data(), slot=SLOTS)
    def redeem(self, data, slot):
        if self.tickets:
            info = data.draw(st.sampled_from(self.tickets[-3:]))
            self.take(info, self.slots[slot])

    @rule(data=st.data(), slot=SLOTS)
    def inherit(self, data, slot):
        """The process of the slot is a child that was forked just now."""
        s = data.draw(st.sampled_from(sorted(self.channels)))
        parent, child = self.channels[s].process, self.slots[slot]
        made = self.command("server", lambda now: self.server.relatives.inherit(parent, s, child, now))
        if made is not None:
            self.channels[made.s] = Channel(child)
            self.channels[made.s].is_open = False

    @rule(data=st.data())
    def take_from_a_relative(self, data):
        s = data.draw(st.sampled_from(sorted(self.channels)))
        process, core = self.channels[s].process, self.server.core
        self.command("server", lambda now: self.server.relatives.take(core.descriptor(process, s), now))
        descriptor = core.descriptors.get(s)
        if descriptor is not None and descriptor.has_channel:
            self.channels[s].is_open = True

    @rule(data=st.data())
    def close(self, data):
        s = self.pick(data)
        process = self.channels[s].process
        self.command("server", lambda now: self.server.close(process, s, now))

    @rule(slot=SLOTS)
    def die(self, slot):
        process, self.slots[slot] = self.slots[slot], self.new_process()
        self.command("server", lambda now: self.server.detach(process, now))

    @rule(milliseconds=st.sampled_from([0, 1, 5, 20, 300, 6000]))
    def wait(self, milliseconds):
        self.world.run_until(self.world.now + milliseconds * MILLISECOND)

    @precondition(lambda self: self.peer is not None and self.peer_open and len(self.sent["client"]) > 20_000)
    @rule()
    def peer_closes(self):
        self.peer_open = False
        self.command("client", lambda now: self.client.close(SENDER, self.peer.s, now))

    # ---------------------------------------------------------------- what holds

    @invariant()
    def never_two_owners(self):
        if hasattr(self, "channels"):
            core = self.server.core
            for socket in core.sockets.values():
                using = [d for d in socket.descriptors if d.has_channel]
                assert len(using) <= 1, using

    @invariant()
    def streams_are_prefixes(self):
        if hasattr(self, "channels"):
            assert self.sent["client"].startswith(self.got["server"])
            assert self.sent["server"].startswith(self.got["client"])

    def teardown(self):
        if not hasattr(self, "channels"):
            return
        for process in self.slots:
            self.command("server", lambda now, process=process: self.server.detach(process, now))
        self.command("client", lambda now: self.client.detach(SENDER, now))
        self.world.run_until(self.world.now + 200 * SECOND)
        for stack in (self.run.server, self.run.client):
            left = stack.statistics()
            counted = (left.processes, left.sockets, left.descriptors, left.endpoints, left.parked)
            assert counted == (0, 0, 0, 0, 0), left
            assert left.adapter.queue_pairs == 0
            assert (left.registry.sockets, left.registry.descriptors, left.registry.tickets) == (0, 0, 0)


Handoffs.TestCase.settings = settings(max_examples=150, stateful_step_count=80, deadline=None)
TestHandoffs = Handoffs.TestCase
