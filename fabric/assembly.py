"""From a topology to engines and who feeds whom, for all nodes (simulator) or for one (a live process).

Ports: a host has port 0; a network switch numbers its ports from 0 in the order in which its links stand in the file.
"""

from collections import deque
from dataclasses import dataclass

from fabric.ids import LinkName, NodeName
from fabric.link import LinkModel, LinkSettings
from fabric.netswitch import ForwardingTable, NetworkSwitch
from fabric.topology.spec import Topology


@dataclass(frozen=True, slots=True)
class DirectedLink:
    """One direction of a link."""

    index: int
    """Unique in the topology; orders frames that are due at the same instant."""
    name: LinkName
    source: NodeName
    source_port: int
    sink: NodeName
    sink_port: int
    settings: LinkSettings


@dataclass(frozen=True, slots=True)
class Address:
    """A host's addresses, as they stand in frames."""

    ip: bytes
    mac: bytes


def address_of(ip: str) -> Address:
    """IPv4 text -> 4 bytes, and the locally administered MAC 02:00:<ip>."""
    packed = bytes(int(part) for part in ip.split("."))
    return Address(packed, b"\x02\x00" + packed)


class Plan:
    """How the nodes of ``topology`` are wired, addressed and routed. Immutable."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.addresses: dict[NodeName, Address] = {n: address_of(host.ip) for n, host in topology.hosts.items()}
        self._macs = {address.ip: address.mac for address in self.addresses.values()}
        next_port: dict[NodeName, int] = dict.fromkeys((*topology.hosts, *topology.network_switches), 0)
        self._from: dict[NodeName, list[DirectedLink]] = {n: [] for n in next_port}
        self._to: dict[NodeName, list[DirectedLink]] = {n: [] for n in next_port}
        links: list[DirectedLink] = []
        for spec in topology.links:
            port_a, port_b = next_port[spec.a], next_port[spec.b]
            next_port[spec.a] += 1
            next_port[spec.b] += 1
            for source, source_port, sink, sink_port, settings in (
                (spec.a, port_a, spec.b, port_b, spec.forward),
                (spec.b, port_b, spec.a, port_a, spec.reverse),
            ):
                name = LinkName(f"{source}->{sink}")
                link = DirectedLink(len(links), name, source, source_port, sink, sink_port, settings)
                links.append(link)
                self._from[source].append(link)
                self._to[sink].append(link)
        self.directed_links: tuple[DirectedLink, ...] = tuple(links)
        self._entries = self._route()

    def _route(self) -> dict[NodeName, dict[bytes, tuple[int, ...]]]:
        """Per network switch: destination address -> ports of all shortest paths, found by a search from each host."""
        entries: dict[NodeName, dict[bytes, tuple[int, ...]]] = {n: {} for n in self.topology.network_switches}
        for host, address in self.addresses.items():
            distance = {host: 0}
            queue = deque([host])
            while queue:
                node = queue.popleft()
                for link in self._to[node]:
                    if link.source not in distance:
                        distance[link.source] = distance[node] + 1
                        if link.source in entries:  # hosts do not forward
                            queue.append(link.source)
            for node, table in entries.items():
                if node in distance:
                    table[address.ip] = tuple(
                        link.source_port
                        for link in self._from[node]
                        if distance.get(link.sink) == distance[node] - 1 and (link.sink == host or link.sink in entries)
                    )
        return entries

    def neighbour_mac(self, ip: bytes) -> bytes | None:
        """The MAC address of the host with this address, or None."""
        return self._macs.get(ip)

    def links_from(self, node: NodeName) -> tuple[DirectedLink, ...]:
        """The directions on which ``node`` transmits, by port."""
        return tuple(self._from[node])

    def links_to(self, node: NodeName) -> tuple[DirectedLink, ...]:
        """The directions on which ``node`` receives, by port."""
        return tuple(self._to[node])

    def network_switch(self, name: NodeName) -> NetworkSwitch:
        """A fresh network switch with its forwarding table. KeyError for a name that is none."""
        return NetworkSwitch(name, ForwardingTable(self._entries[name], salt=name))

    def link_model(self, link: DirectedLink, seed: int) -> LinkModel:
        """A fresh model of one direction; its draws depend on the seed and its name only."""
        return LinkModel(link.name, link.settings, seed)
