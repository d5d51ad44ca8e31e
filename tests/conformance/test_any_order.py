"""Calls of many processes on two hosts in any order, right and wrong ones, over lossy links: nothing raises but
WsaError, and when all processes have ended nothing is left and no timer runs.

A seed decides everything; a failure prints it.
"""

import random

import pytest

from fabric.ids import ProcessInstance
from fabric.units import MILLISECOND, SECOND
from provider.errors import WsaError
from provider.sockets_switch import events, switch_core
from tests.support.handoff_run import build

IPS = {"client": "10.77.0.1", "server": "10.77.0.2"}
WEIGHTS = {
    "socket": 2,
    "bind": 2,
    "listen": 2,
    "connect": 4,
    "accept": 8,
    "send": 8,
    "consume": 8,
    "shutdown": 2,
    "close": 3,
    "duplicate": 8,
    "redeem": 8,
    "die": 1.5,
    "wait": 14,
    "option": 1,
    "meet": 8,
    "inherit": 4,
    "take": 8,
}


class Walk:
    """One random walk; each method named in WEIGHTS is a step."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.run = build(seed, rng.choice([0, 0, 0.02, 0.2]))
        self.world = self.run.world
        self.world._on_event = self.on_event
        self.stacks = {"client": self.run.client, "server": self.run.server}
        self.tickets = {host: [] for host in self.stacks}
        self.pid = 100
        self.processes = {host: [self.new_process(host) for _ in range(3)] for host in self.stacks}
        self.descriptors = {host: {} for host in self.stacks}
        """Per host: s -> process."""

    def new_process(self, host):
        self.pid += 1
        process = ProcessInstance(self.pid, 1)
        self.stacks[host].half.attach(process, "", self.world.now)
        return process

    def on_event(self, host, event, now):
        half = self.stacks[host].half
        if isinstance(event, events.RevokeChannel):
            late = b"late" if half.send_space(event.s) and self.rng.random() < 0.4 else b""
            half.channel_revoked(event.s, late, b"", self.rng.random() < 0.1, now)
            self.stacks[host].settle(now)
        elif isinstance(event, events.DuplicateDone):
            self.tickets[host].append(event.info)

    def call(self, host, function):
        try:
            return self.world.command(host, function)
        except WsaError:
            return None

    def keep(self, host, process, descriptor):
        if descriptor is not None:
            self.descriptors[host][descriptor.s] = process

    def step(self):
        host = self.rng.choice(list(self.stacks))
        process = self.rng.choice(self.processes[host])
        own = [s for s, holder in self.descriptors[host].items() if holder == process]
        s = self.rng.choice(own) if own and self.rng.random() < 0.95 else self.rng.randrange(1, 40)
        name = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        getattr(self, name)(host, self.stacks[host].half, process, s)

    # --------------------------------------------------------------------- steps

    def socket(self, host, half, process, _s):
        self.keep(host, process, self.call(host, lambda now: half.socket(process, 2, 1, 0, now)))

    def bind(self, host, half, process, s):
        name = (self.rng.choice(["0.0.0.0", "127.0.0.1", IPS[host], "1.2.3.4"]), self.rng.choice([0, 7000, 7001]))
        self.call(host, lambda now: half.bind(process, s, name, now))

    def listen(self, host, half, process, s):
        backlog = self.rng.choice([0, 1, 5])
        self.call(host, lambda now: half.listen(process, s, backlog, now))

    def connect(self, host, half, process, s):
        name = (self.rng.choice(["127.0.0.1", *IPS.values(), "10.77.0.9"]), self.rng.choice([7000, 7001, 1]))
        self.call(host, lambda now: half.connect(process, s, name, now))

    def accept(self, host, half, process, s):
        self.keep(host, process, self.call(host, lambda now: half.accept(process, s, now)))

    def meet(self, host, half, process, _s):
        """A listener, a caller from anywhere, and mostly an accept."""
        listener = self.call(host, lambda now: half.socket(process, 2, 1, 0, now))
        if listener is None:
            return
        self.keep(host, process, listener)
        self.call(host, lambda now: half.bind(process, listener.s, ("0.0.0.0", 0), now))
        self.call(host, lambda now: half.listen(process, listener.s, self.rng.choice([1, 3]), now))
        other = self.rng.choice(list(self.stacks))
        there, caller = self.stacks[other].half, self.rng.choice(self.processes[other])
        made = self.call(other, lambda now: there.socket(caller, 2, 1, 0, now))
        if made is None or listener.socket.local is None:
            return
        self.keep(other, caller, made)
        self.call(other, lambda now: there.connect(caller, made.s, (IPS[host], listener.socket.local[1]), now))
        self.world.run_until(self.world.now + self.rng.choice([0, 3, 9, 50, 300]) * MILLISECOND)
        if self.rng.random() < 0.8:
            self.accept(host, half, process, listener.s)

    def send(self, host, half, _process, s):
        space = half.send_space(s)
        if space:
            data = bytes(self.rng.randrange(1, min(space, 9000) + 1))
            self.call(host, lambda now: half.send(s, data, now))

    def consume(self, host, half, _process, s):
        data = half.peek(s, self.rng.randrange(1, 9000))
        if data:
            self.call(host, lambda now: half.consume(s, len(data), now))

    def shutdown(self, host, half, process, s):
        self.call(host, lambda now: half.shutdown_send(process, s, now))

    def close(self, host, half, process, s):
        self.call(host, lambda now: half.close(process, s, now))
        if self.descriptors[host].get(s) == process:
            del self.descriptors[host][s]

    def duplicate(self, host, half, process, s):
        target, mode = self.rng.choice(self.processes[host]), self.rng.choice(["suspend", "local", "rehome", None, "x"])
        self.call(host, lambda now: half.duplicate(process, s, target, mode, now))

    def redeem(self, host, half, process, _s):
        tickets = self.tickets[host] + self.tickets["client"]
        if not tickets:
            return
        info = bytearray(self.rng.choice(tickets[-4:]))
        if self.rng.random() < 0.1:
            info[self.rng.randrange(len(info))] ^= 1
        for taker in [process] if self.rng.random() < 0.3 else list(self.processes[host]):
            self.keep(host, taker, self.call(host, lambda now, taker=taker: half.redeem(taker, bytes(info), now)))

    def inherit(self, host, half, process, s):
        child = self.rng.choice(self.processes[host])
        self.keep(host, child, self.call(host, lambda now: half.relatives.inherit(process, s, child, now)))

    def take(self, host, half, process, s):
        self.call(host, lambda now: half.relatives.take(half.core.descriptor(process, s), now))
        if s in half.core.descriptors and self.rng.random() < 0.7:
            half.claimed(s)

    def die(self, host, half, process, _s):
        self.call(host, lambda now: half.detach(process, now))
        self.processes[host].remove(process)
        self.processes[host].append(self.new_process(host))
        self.descriptors[host] = {s: holder for s, holder in self.descriptors[host].items() if holder != process}

    def option(self, host, half, process, s):
        name, value = self.rng.choice([0x80, 8, 0x1008, 4]), self.rng.choice([0, 1, 65536, 2**40])
        self.call(host, lambda now: half.set_option(process, s, 0xFFFF, name, value, now))
        self.call(host, lambda now: half.get_option(process, s, 0xFFFF, 0x1007, now))

    def wait(self, *_):
        self.world.run_until(self.world.now + self.rng.choice([1, 5, 20, 300, 6000]) * MILLISECOND)

    def end(self):
        """Every process ends; what is left then, per host."""
        for host, stack in self.stacks.items():
            for process in self.processes[host]:
                self.call(host, lambda now, stack=stack, process=process: stack.half.detach(process, now))
        self.world.run_until(self.world.now + 300 * SECOND)
        return {host: (stack.statistics(), stack.poll_timeout()) for host, stack in self.stacks.items()}


@pytest.mark.parametrize(("seed", "at_once"), [*((seed, 8) for seed in range(40)), *((seed, 1) for seed in range(15))])
def test_nothing_breaks_and_nothing_is_left(seed, at_once, monkeypatch):
    monkeypatch.setattr(switch_core, "AT_ONCE", at_once)  # 1: what a dead process leaves takes its time to end
    walk = Walk(seed)
    for _ in range(150):
        walk.step()
    for host, (left, deadline) in walk.end().items():
        counted = (
            left.processes,
            left.sockets,
            left.descriptors,
            left.endpoints,
            left.parked,
            left.adapter.queue_pairs,
        )
        assert counted == (0,) * 6, f"seed {seed}, {host}: {left}"
        assert (left.registry.sockets, left.registry.tickets, deadline) == (0, 0, None), f"seed {seed}, {host}"
