"""Frames per second of the simulator: a stream between two hosts with their whole stacks, in virtual time; against an
event queue that holds and gives out as many frames and does nothing with them.
"""

import heapq
import time
from functools import partial

from fabric.assembly import Plan, ip_bytes, mac_of
from fabric.ids import ProcessInstance
from fabric.journal import NullJournal
from fabric.sim.world import World
from fabric.topology.yaml_model import parse
from fabric.units import MILLISECOND, SECOND
from nodes.bench.figures import Figure, from_rounds
from provider.sockets_switch import events
from provider.stack import HostConfig, HostStack

TOPOLOGY = """name: bench
defaults: {link: {latency: 100us}}
hosts: {client: {}, server: {}}
network-switches: {s1: {}}
links: [{endpoints: [client, s1]}, {endpoints: [server, s1]}]
"""
WAITING = 64
SENDER, RECEIVER = ProcessInstance(1, 1), ProcessInstance(2, 1)


def measure(*, size: int, rounds: int) -> list[Figure]:
    """A transfer of ``size`` bytes per round; frames count once per link."""
    pairs = []
    for _ in range(rounds):
        rate, frames = _transfer(size)
        pairs.append((rate, _bare_queue(frames)))
    ours, bare = zip(*pairs, strict=True)
    return [from_rounds("simulator", "frames/s", ours, bare, "bare event queue")]


def _bare_queue(frames: int) -> float:
    """Frames per second through a heap that always holds WAITING of them."""
    heap = [(number, 0, number, b"frame") for number in range(WAITING)]
    began = time.perf_counter()
    for number in range(WAITING, WAITING + frames):
        heapq.heappush(heap, (number, 0, number, b"frame"))
        heapq.heappop(heap)
    return frames / (time.perf_counter() - began)


def _transfer(size: int) -> tuple[float, int]:
    plan = Plan(parse(TOPOLOGY, "bench"))
    stacks: dict[str, HostStack] = {}
    for name, ip in plan.names().items():
        config = HostConfig(name, ip, mac_of(ip_bytes(ip)), plan.addresses(), plan.names(), 1, bytes(32))
        stacks[name] = HostStack(config, lambda event, **members: None)
    seen: list[object] = []
    world = World(plan, 1, stacks, NullJournal(), on_event=lambda node, event, now: seen.append(event))
    client, server = stacks["client"].half, stacks["server"].half
    client.attach(SENDER, "", 0)
    server.attach(RECEIVER, "", 0)
    listener = server.socket(RECEIVER, 2, 1, 0, 0)
    server.bind(RECEIVER, listener.s, ("0.0.0.0", 7000), 0)
    server.listen(RECEIVER, listener.s, 5, 0)
    socket = client.socket(SENDER, 2, 1, 0, 0)
    server_address = (plan.names()["server"], 7000)
    world.command("client", lambda now: client.connect(SENDER, socket.s, server_address, now))
    world.run_while(lambda: not any(isinstance(e, events.ConnectionWaiting) for e in seen), 10 * SECOND)
    accepted = world.command("server", lambda now: server.accept(RECEIVER, listener.s, now))
    began = time.perf_counter()
    sent = got = 0
    chunk = bytes(1 << 16)
    while got < size:
        if space := min(client.send_space(socket.s), size - sent, len(chunk)):
            world.command("client", partial(client.send, socket.s, chunk[:space]))
            sent += space
        world.run_until(world.now + MILLISECOND // 10)
        if waiting := len(server.peek(accepted.s, 1 << 20)):
            world.command("server", partial(server.consume, accepted.s, waiting))
            got += waiting
    took = time.perf_counter() - began
    frames = sum(model.statistics().frames_in for model in world.link_models().values())
    return frames / took, frames
