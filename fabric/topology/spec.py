"""A topology as frozen values, and as the JSON that nodes read. No YAML, no pydantic: nodes start fast."""

from dataclasses import asdict, dataclass
from typing import Any

from fabric.link.settings import LinkSettings

RESTARTS = ("never", "on-failure")
SOCKETS_MAX, SOCKETS_PER_PROCESS_MAX = 16_384, 4096


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """A program that runs on a host of the lab. ``after`` are names HOST.APPLICATION; ``restart`` is one of
    RESTARTS.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    after: tuple[str, ...] = ()
    restart: str = "never"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """An end system with one channel adapter."""

    name: str
    ip: str
    applications: tuple[ApplicationSpec, ...] = ()
    sockets: int | None = None
    """That all its processes together may have; ``None`` for the default."""
    sockets_per_process: int | None = None


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
        """Plain values for ``json.dump``; what a host does not say is not mentioned."""
        data = asdict(self)
        for host in data["hosts"].values():
            for member in ("applications", "sockets", "sockets_per_process"):
                if not host[member]:
                    del host[member]
        return data

    def applications(self) -> list[tuple[str, ApplicationSpec]]:
        """(host, application) of all hosts: each after those that it comes after, else in the file's order."""
        waiting = [(host.name, application) for host in self.hosts.values() for application in host.applications]
        started: dict[str, None] = {}
        ordered = []
        while waiting:
            ready = [pair for pair in waiting if all(other in started for other in pair[1].after)]
            assert ready, "the file was checked for circles"
            host, application = ready[0]
            waiting.remove(ready[0])
            started[f"{host}.{application.name}"] = None
            ordered.append(ready[0])
        return ordered

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Topology":
        """The inverse of ``to_json``; the data is trusted, it comes from our own launcher."""
        return cls(
            data["name"],
            data["seed"],
            {name: _host(host) for name, host in data["hosts"].items()},
            {name: NetworkSwitchSpec(**spec) for name, spec in data["network_switches"].items()},
            tuple(
                LinkSpec(link["a"], link["b"], LinkSettings(**link["forward"]), LinkSettings(**link["reverse"]))
                for link in data["links"]
            ),
        )


def _host(data: dict[str, Any]) -> HostSpec:
    applications = tuple(
        ApplicationSpec(**{**one, "command": tuple(one["command"]), "after": tuple(one["after"])})
        for one in data.get("applications", ())
    )
    return HostSpec(data["name"], data["ip"], applications, data.get("sockets"), data.get("sockets_per_process"))
