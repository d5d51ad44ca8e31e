"""Topologies: what a lab consists of. Only ``yaml_model`` needs pydantic and PyYAML; nodes never import it."""

from fabric.topology.spec import HostSpec, LinkSpec, NetworkSwitchSpec, Topology

__all__ = ["HostSpec", "LinkSpec", "NetworkSwitchSpec", "Topology"]
