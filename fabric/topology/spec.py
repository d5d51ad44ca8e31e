"""A topology as frozen values, and as the JSON that nodes read. No YAML, no pydantic: nodes start fast."""

from dataclasses import asdict, dataclass
from typing import Any

from fabric.link.settings import LinkSettings


@dataclass(frozen=True, slots=True)
class HostSpec:
    """An end system with one channel adapter."""

    name: str
    ip: str


@dataclass(frozen=True, slots=True)
class NetworkSwitchSpec:
    """A box that forwards frames."""

    name: str


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """A link between nodes ``a`` and ``b``; ``forward`` is the direction from a to b. All settings are one-way."""

    a: str
    b: str
    forward: LinkSettings
    reverse: LinkSettings


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole topology, already validated."""

    name: str
    seed: int
    hosts: dict[str, HostSpec]
    network_switches: dict[str, NetworkSwitchSpec]
    links: tuple[LinkSpec, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dump``."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Topology":
        """The inverse of ``to_json``; the data is trusted, it comes from our own launcher."""
        return cls(
            data["name"],
            data["seed"],
            {name: HostSpec(**host) for name, host in data["hosts"].items()},
            {name: NetworkSwitchSpec(**spec) for name, spec in data["network_switches"].items()},
            tuple(
                LinkSpec(link["a"], link["b"], LinkSettings(**link["forward"]), LinkSettings(**link["reverse"]))
                for link in data["links"]
            ),
        )
