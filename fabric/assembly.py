"""From a topology to engines, and to who feeds whom: for the simulator (all nodes) and for a live node (its own share).

Ports of a node are numbered in the order in which the topology lists its links. Each link gives two *directed links*,
one engine each, owned by the transmitting side. Forwarding tables hold, per host address, every port on a shortest
path.
"""

from collections import deque
from dataclasses import dataclass

from fabric.ids import LinkName, NodeName
from fabric.link.model import LinkModel
from fabric.link.settings import LinkSettings
from fabric.netswitch.forwarding import ForwardingTable
from fabric.netswitch.network_switch import NetworkSwitch
from fabric.topology.spec import Topology
from fabric.units import Duration


@dataclass(frozen=True, slots=True)
class DirectedLink:
    """One direction of a link."""

    index: int
    name: LinkName
    source: str
    source_port: int
    sink: str
    sink_port: int
    settings: LinkSettings


def ip_bytes(ip: str) -> bytes:
    """A dotted address as four bytes."""
    return bytes(int(part) for part in ip.split("."))


def mac_of(ip: bytes) -> bytes:
    """The locally administered Ethernet address of the adapter with this IP address: 02:00 and the address."""
    return b"\x02\x00" + ip


class Plan:
    """See the module text."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.links: list[DirectedLink] = []
        self._neighbours: dict[str, list[tuple[str, int]]] = {
            name: [] for name in [*topology.hosts, *topology.network_switches]
        }
        for link in topology.links:
            port_a, port_b = len(self._neighbours[link.a]), len(self._neighbours[link.b])
            self._neighbours[link.a].append((link.b, port_a))
            self._neighbours[link.b].append((link.a, port_b))
            for source, source_port, sink, sink_port, settings in (
                (link.a, port_a, link.b, port_b, link.forward),
                (link.b, port_b, link.a, port_a, link.reverse),
            ):
                name = LinkName(f"{source}->{sink}")
                self.links.append(DirectedLink(len(self.links), name, source, source_port, sink, sink_port, settings))

    def links_from(self, node: str) -> list[DirectedLink]:
        """What the node transmits on."""
        return [link for link in self.links if link.source == node]

    def links_to(self, node: str) -> list[DirectedLink]:
        """What the node receives from."""
        return [link for link in self.links if link.sink == node]

    def addresses(self) -> dict[bytes, bytes]:
        """IP address -> Ethernet address of every host."""
        return {ip_bytes(host.ip): mac_of(ip_bytes(host.ip)) for host in self.topology.hosts.values()}

    def names(self) -> dict[str, str]:
        """Host name -> dotted address."""
        return {host.name: host.ip for host in self.topology.hosts.values()}

    def link_model(self, link: DirectedLink, seed: int) -> LinkModel:
        """The engine of one directed link."""
        return LinkModel(link.name, link.settings, seed)

    def network_switch(self, name: str) -> NetworkSwitch:
        """The engine of one network switch, with all equal-cost ports to every host."""
        routes: dict[bytes, tuple[int, ...]] = {}
        for host in self.topology.hosts.values():
            distances = self._distances(host.name)
            ports = [
                port
                for neighbour, port in self._neighbours[name]
                if neighbour in distances and distances[neighbour] + 1 == distances[name]
            ]
            if ports:
                routes[ip_bytes(host.ip)] = tuple(ports)
        return NetworkSwitch(NodeName(name), ForwardingTable(routes, salt=name))

    def max_round_trip(self) -> Duration:
        """The longest time there and back between two hosts, without queues, over a shortest path."""
        longest = max((link.settings.latency + link.settings.jitter for link in self.links), default=0)
        hops = 0
        for host in self.topology.hosts:
            distances = self._distances(host)
            hops = max([hops, *(distances[other] for other in self.topology.hosts if other in distances)])
        return 2 * hops * longest

    def _distances(self, start: str) -> dict[str, int]:
        """Hops from ``start``; hosts do not forward."""
        distances = {start: 0}
        waiting = deque([start])
        while waiting:
            node = waiting.popleft()
            if node in self.topology.hosts and node != start:
                continue
            for neighbour, _ in self._neighbours[node]:
                if neighbour not in distances:
                    distances[neighbour] = distances[node] + 1
                    waiting.append(neighbour)
        return distances
