"""Network switches: forwarding by destination address, equal-cost paths per flow."""

from fabric.netswitch.forwarding import ForwardingTable
from fabric.netswitch.network_switch import FrameRefused, NetworkSwitch, NetworkSwitchStatistics, PortStatistics

__all__ = ["ForwardingTable", "FrameRefused", "NetworkSwitch", "NetworkSwitchStatistics", "PortStatistics"]
