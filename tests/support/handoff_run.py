"""One simulated run: a stream from client to server over the pair topology, handed over and back.

Run as a program it prints the journal, for the determinism test: ``python -m tests.support.handoff_run SEED MODE``.
"""

import random
import sys
from dataclasses import dataclass, field

from fabric.assembly import Plan, ip_bytes, mac_of
from fabric.ids import ProcessInstance
from fabric.journal import LineJournal
from fabric.link.settings import LinkSettings
from fabric.sim.world import World
from fabric.topology.spec import HostSpec, LinkSpec, NetworkSwitchSpec, Topology
from fabric.units import MILLISECOND, SECOND
from provider.sockets_switch import events
from provider.sockets_switch.quotas import Quotas
from provider.stack import HostConfig, HostStack

_QUOTAS = Quotas()
SENDER, SOURCE, TARGET = ProcessInstance(10, 1), ProcessInstance(20, 1), ProcessInstance(21, 1)


@dataclass
class Run:
    """The world, its journal and what came out."""

    world: World
    client: HostStack
    server: HostStack
    lines: list[str]
    seen: list[tuple[str, object]] = field(default_factory=list)

    def wait(self, kind, limit=20 * SECOND):
        """The next event of a kind on the server."""
        found = lambda: [e for n, e in self.seen if n == "server" and isinstance(e, kind)]  # noqa: E731
        assert self.world.run_while(lambda: not found(), self.world.now + limit), f"no {kind.__name__}"
        return found()[0]


def topology(loss: float, rate: int = 10**9) -> Topology:
    """The pair with its latency and any loss."""
    settings = LinkSettings(latency=2 * MILLISECOND, jitter=MILLISECOND // 5, loss=loss, rate=rate)
    hosts = {"client": HostSpec("client", "10.77.0.1"), "server": HostSpec("server", "10.77.0.2")}
    links = (LinkSpec("client", "s1", settings, settings), LinkSpec("server", "s1", settings, settings))
    return Topology("pair", 1, hosts, {"s1": NetworkSwitchSpec("s1")}, links)


def build(seed: int, loss: float, quotas: Quotas = _QUOTAS, rate: int = 10**9) -> Run:
    """Two host stacks in one world."""
    plan = Plan(topology(loss, rate))
    lines: list[str] = []
    journal = LineJournal(lines.append)
    stacks: dict[str, HostStack] = {}
    run: Run

    def make(name: str) -> HostStack:
        ip = plan.names()[name]
        config = HostConfig(
            name,
            ip,
            mac_of(ip_bytes(ip)),
            plan.addresses(),
            plan.names(),
            seed,
            f"key of {name}".ljust(32).encode(),
            quotas=quotas,
        )
        return HostStack(config, lambda event, **members: journal.record(run.world.now, name, event, **members))

    def on_event(node: str, event: object, now: int) -> None:
        run.seen.append((node, event))
        if isinstance(event, events.RevokeChannel):
            stacks[node].half.channel_revoked(event.s, b"", b"", False, now)
            stacks[node].settle(now)

    for name in ("client", "server"):
        stacks[name] = make(name)
    world = World(plan, seed, stacks, journal, on_event=on_event, frame_records=True)
    run = Run(world, stacks["client"], stacks["server"], lines)
    return run


def execute(seed: int, mode: str, *, loss: float = 0.02, size: int = 400_000) -> tuple[Run, bool]:
    """Transfer ``size`` bytes with two hand-overs; the run, and whether every byte came in order."""
    run = build(seed, loss)
    world, client, server = run.world, run.client.half, run.server.half
    for stack, process in ((run.client, SENDER), (run.server, SOURCE), (run.server, TARGET)):
        stack.half.attach(process, "", 0)
    listener = client.socket(SENDER, 2, 1, 0, 0)
    client.bind(SENDER, listener.s, ("0.0.0.0", 7000), 0)
    client.listen(SENDER, listener.s, 5, 0)
    socket = server.socket(SOURCE, 2, 1, 0, 0)
    world.command("server", lambda now: server.connect(SOURCE, socket.s, ("10.77.0.1", 7000), now))
    run.wait(events.ChannelOpened)
    world.run_until(world.now + SECOND)
    accepted = world.command("client", lambda now: client.accept(SENDER, listener.s, now))
    data = random.Random(seed).randbytes(size)
    state = {"sent": 0, "got": b"", "current": socket}

    def pump(until: int) -> None:
        turns = 0
        while len(state["got"]) < until:
            part = data[state["sent"] : state["sent"] + client.send_space(accepted.s)]
            if part:
                world.command("client", lambda now, part=part: client.send(accepted.s, part, now))
                state["sent"] += len(part)
            world.run_until(world.now + MILLISECOND)
            s = state["current"].s
            waiting = server.peek(s, 1 << 20)[: until - len(state["got"])]
            if waiting:
                state["got"] += waiting
                world.command("server", lambda now, s=s, data=waiting: server.consume(s, len(data), now))
            turns += 1
            assert turns < 60_000, f"the stream stands still at {len(state['got'])} bytes, seed {seed}"

    for owner, target, share in ((SOURCE, TARGET, 1), (TARGET, SOURCE, 2)):
        pump(size * share // 3)
        old = state["current"]
        run.seen.clear()
        world.command("server", lambda now, o=owner, s=old.s, t=target: server.duplicate(o, s, t, mode, now))
        info = run.wait(events.DuplicateDone).info
        state["current"] = world.command("server", lambda now, t=target, i=info: server.redeem(t, i, now))
        world.command("server", lambda now, o=owner, s=old.s: server.close(o, s, now))
    pump(size)
    world.command("client", lambda now: client.close(SENDER, accepted.s, now))
    world.run_until(world.now + 2 * SECOND)
    assert server.peer_finished(state["current"].s)
    world.command("server", lambda now: server.close(SOURCE, state["current"].s, now))
    world.command("client", lambda now: client.close(SENDER, listener.s, now))
    world.run_until(world.now + 120 * SECOND)
    return run, state["got"] == data


if __name__ == "__main__":
    finished, _ = execute(int(sys.argv[1]), sys.argv[2], size=120_000)
    sys.stdout.write("".join(finished.lines))
