"""Two simulated hosts whose sockets switches are watched at the SPI: every call down and every upcall, with its
arguments, in the order in which they begin.

``SENDER`` listens on the host *client*; ``SOURCE`` and ``TARGET`` are processes of the host *server*, which connects.
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass

from fabric.units import MILLISECOND, SECOND
from provider.errors import WsaError
from provider.sockets_switch import events
from provider.sockets_switch.routing import Routing
from tests.support.handoff_run import SENDER, SOURCE, TARGET, build

CLIENT_IP, SERVER_IP = "10.77.0.1", "10.77.0.2"
AF_INET, SOCK_STREAM = 2, 1


@dataclass
class Call:
    """One call or upcall; ``error`` is the WSA error's number, 0 for success."""

    process: object
    name: str
    arguments: tuple
    at: int
    error: int = 0
    result: object = None


class SpiRun:
    """See the module text; ``trace`` is the list of all calls."""

    def __init__(self, seed=1, loss=0.0, tcp_on_san=None):
        self.run = build(seed, loss)
        if tcp_on_san is not None:
            for stack in (self.run.client, self.run.server):
                stack.core.routing = Routing(tcp_on_san, stack.config.names)
        self.world = self.run.world
        self.stacks = {SENDER: self.run.client, SOURCE: self.run.server, TARGET: self.run.server}
        self.trace = []
        self.failing = {}
        """Calls by name that fail from now on, and how."""
        for process in self.stacks:
            self.attach(process)

    # -------------------------------------------------------------- processes and commands

    def attach(self, process):
        """The process attaches to its host; its calls and upcalls are recorded from here on."""
        attached = self.call(process, "attach", "")
        attached.table = self._watched(process, attached.table)
        if attached.provider.is_started:
            attached.provider.upcalls = self._watched(process, attached.provider.upcalls)
        return attached

    def node(self, process):
        return "client" if self.stacks[process] is self.run.client else "server"

    def call(self, process, name, *arguments):
        """A command of the process on its agent half, with everything that follows from it at once."""
        half = self.stacks[process].half
        return self.world.command(self.node(process), lambda now: getattr(half, name)(process, *arguments, now))

    def act(self, process, name, *arguments):
        """A call of the driver (send, consume), which names no process."""
        half = self.stacks[process].half
        return self.world.command(self.node(process), lambda now: getattr(half, name)(*arguments, now))

    def half(self, process):
        return self.stacks[process].half

    def attached(self, process):
        return self.half(process).core.process(process)

    def pass_time(self, duration=SECOND):
        self.world.run_until(self.world.now + duration)

    def events(self, kind):
        """Events of one kind, of both hosts."""
        return [event for _, event in self.run.seen if isinstance(event, kind)]

    # ----------------------------------------------------------------------- what one often does

    def listening(self, process=SENDER, address="0.0.0.0", port=7000):
        """A descriptor that listens."""
        listener = self.call(process, "socket", AF_INET, SOCK_STREAM, 0)
        self.call(process, "bind", listener.s, (address, port))
        self.call(process, "listen", listener.s, 5)
        return listener

    def connecting(self, process=SOURCE, address=(CLIENT_IP, 7000)):
        """A descriptor that has begun to connect."""
        made = self.call(process, "socket", AF_INET, SOCK_STREAM, 0)
        self.call(process, "connect", made.s, address)
        return made

    def connected(self):
        """(the peer's descriptor, the source's) of a fresh connection; the listener goes on."""
        self.listener = self.listening()
        source = self.connecting()
        self.run.wait(events.ChannelOpened)
        self.pass_time()
        return self.call(SENDER, "accept", self.listener.s), source

    def write(self, process, descriptor, data):
        """All of ``data``; AssertionError if that is not taken within 20 s."""
        deadline = self.world.now + 20 * SECOND
        while data:
            assert self.world.now < deadline, f"{len(data)} bytes are left"
            space = self.half(process).send_space(descriptor.s)
            self.act(process, "send", descriptor.s, data[:space])
            data = data[space:]
            self.pass_time(MILLISECOND)

    def read(self, process, descriptor, count):
        """Exactly ``count`` bytes; AssertionError if they do not come within 20 s."""
        got = b""
        deadline = self.world.now + 20 * SECOND
        while len(got) < count:
            part = self.half(process).peek(descriptor.s, count - len(got))
            self.act(process, "consume", descriptor.s, len(part))
            got += part
            if not part:
                assert self.world.now < deadline, f"{len(got)} of {count} bytes came"
                self.pass_time(MILLISECOND)
        return got

    def duplicate(self, process, descriptor, target, mode="suspend"):
        """WSPDuplicateSocket; the 628 bytes."""
        self.run.seen.clear()
        self.call(process, "duplicate", descriptor.s, target, mode)
        found = lambda: [e for n, e in self.run.seen if n == node and isinstance(e, events.DuplicateDone)]  # noqa: E731
        node = self.node(process)
        assert self.world.run_while(lambda: not found(), self.world.now + 20 * SECOND), "no DuplicateDone"
        return found()[0].info

    def hand_over(self, process, descriptor, target, mode="suspend"):
        """WSPDuplicateSocket and the WSPSocket that redeems; the target's descriptor."""
        return self.call(target, "redeem", self.duplicate(process, descriptor, target, mode))

    # ------------------------------------------------------------------------------------- the trace

    def named(self, *names, process=None):
        """The recorded calls of these names, in order."""
        return [c for c in self.trace if c.name in names and process in (None, c.process)]

    def count(self, process=None):
        """How often each function was called."""
        return Counter(c.name for c in self.trace if process in (None, c.process))

    def names(self, process):
        """The names alone, in order."""
        return [c.name for c in self.trace if c.process == process]

    def _watched(self, process, table):
        def watch(name, function):
            def watched(*arguments):
                if name in self.failing:
                    call = Call(process, name, arguments, self.world.now, int(self.failing[name]))
                    self.trace.append(call)
                    raise WsaError(self.failing[name], "as the test wants it")
                call = Call(process, name, arguments, self.world.now)
                self.trace.append(call)
                try:
                    call.result = function(*arguments)
                except WsaError as error:
                    call.error = int(error.wsa)
                    raise
                return call.result

            return watched

        members = {f.name: getattr(table, f.name) for f in dataclasses.fields(table)}
        return dataclasses.replace(table, **{name: watch(name, function) for name, function in members.items()})
