"""A topology as plain data: standard library only, because every node reads it (as JSON) when it starts."""

from dataclasses import asdict, dataclass
from typing import Any

from fabric.ids import NodeName
from fabric.link import LinkSettings


@dataclass(frozen=True, slots=True)
class HostSpec:
    """An end system with one channel adapter."""

    name: NodeName
    ip: str
    """Its IPv4 address as text."""


@dataclass(frozen=True, slots=True)
class NetworkSwitchSpec:
    """A box that forwards frames."""

    name: NodeName


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A link between two nodes; each direction has settings of its own."""

    a: NodeName
    b: NodeName
    forward: LinkSettings
    """From ``a`` to ``b``."""
    reverse: LinkSettings
    """From ``b`` to ``a``."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything a lab is built from. Dicts keep the order of the file, which decides addresses and port numbers."""

    name: str
    seed: int
    hosts: dict[NodeName, HostSpec]
    network_switches: dict[NodeName, NetworkSwitchSpec]
    links: tuple[LinkSpec, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of JSON values; durations in nanoseconds, rates in bits per second."""
        return {
            "name": self.name,
            "seed": self.seed,
            "hosts": {name: host.ip for name, host in self.hosts.items()},
            "network_switches": list(self.network_switches),
            "links": [
                {"a": link.a, "b": link.b, "forward": asdict(link.forward), "reverse": asdict(link.reverse)}
                for link in self.links
            ],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Topology":
        """The inverse of :meth:`to_json`; KeyError or ValueError for what :meth:`to_json` did not write."""
        return cls(
            name=data["name"],
            seed=data["seed"],
            hosts={NodeName(name): HostSpec(NodeName(name), ip) for name, ip in data["hosts"].items()},
            network_switches={NodeName(n): NetworkSwitchSpec(NodeName(n)) for n in data["network_switches"]},
            links=tuple(
                LinkSpec(
                    NodeName(link["a"]),
                    NodeName(link["b"]),
                    LinkSettings(**link["forward"]),
                    LinkSettings(**link["reverse"]),
                )
                for link in data["links"]
            ),
        )
