"""Topologies: what a lab consists of. Reading YAML is in ``yaml_model`` (pydantic, PyYAML), which nodes never import."""

from fabric.topology.spec import HostSpec, LinkSpec, NetworkSwitchSpec, Topology

__all__ = ["HostSpec", "LinkSpec", "NetworkSwitchSpec", "Topology"]
