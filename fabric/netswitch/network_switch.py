"""The network switch: takes a frame in on one port and gives it out at once on another, by destination IP address.

It owns a forwarding table and counters, nothing else: queues, rates and delays belong to the links. It looks at a frame
through ``fabric.wire.fast`` peeks, changes no byte of it (hence no hop limit and no new ICRC; the shortest paths of a
forwarding table cannot loop) and never raises, whatever the bytes. A frame that it cannot forward is counted and
reported:

=================  =====================================================================
reason             meaning
=================  =====================================================================
``malformed``      no IPv4 or IPv6 destination can be read
``unreachable``    the forwarding table has no entry for the destination
``ingress-port``   the way to the destination leads back out of the port it came in on
=================  =====================================================================
"""

from collections import deque
from dataclasses import dataclass

from fabric.engine import Transmit
from fabric.ids import NodeName
from fabric.netswitch.forwarding import ForwardingTable
from fabric.units import Instant
from fabric.wire.fast import destination_ip, flow_key


@dataclass(frozen=True, slots=True)
class FrameRefused:
    """The network switch could not forward a frame."""

    network_switch: NodeName
    port: int
    """Where it came in."""
    reason: str
    frame: bytes
    at: Instant

    @property
    def comment(self) -> str:
        """For a capture: ``refused by s1, port 2: unreachable``."""
        return f"refused by {self.network_switch}, port {self.port}: {self.reason}"


@dataclass(frozen=True, slots=True)
class PortStatistics:
    """Counters of one port."""

    port: int
    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    refused: tuple[tuple[str, int], ...]
    """(reason, frames) of what came in here and could not be forwarded."""


@dataclass(frozen=True, slots=True)
class NetworkSwitchStatistics:
    """Counters of all ports that have seen a frame, by port number."""

    ports: tuple[PortStatistics, ...]

    @property
    def frames_in(self) -> int:
        """Frames that came in on any port."""
        return sum(port.frames_in for port in self.ports)

    @property
    def frames_out(self) -> int:
        """Frames given out on any port."""
        return sum(port.frames_out for port in self.ports)

    def refused_by(self, reason: str) -> int:
        """Frames refused for ``reason`` on any port."""
        return sum(dict(port.refused).get(reason, 0) for port in self.ports)


class _PortCounters:
    __slots__ = ("bytes_in", "bytes_out", "frames_in", "frames_out", "refused")

    def __init__(self) -> None:
        self.frames_in = self.bytes_in = self.frames_out = self.bytes_out = 0
        self.refused: dict[str, int] = {}


class NetworkSwitch:
    """A network switch as an engine.

    Input ``handle_frame``; output ``poll_transmit``, ``poll_event`` (``FrameRefused``); getters ``name``, ``table``,
    ``statistics``. There are no commands and no timeouts.
    """

    def __init__(self, name: NodeName, table: ForwardingTable) -> None:
        self.name = name
        self.table = table
        self._transmits: deque[Transmit] = deque()
        self._refusals: deque[FrameRefused] = deque()
        self._counters: dict[int, _PortCounters] = {}

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """Forward ``frame`` that came in on ``port``, or refuse it."""
        size = len(frame)
        ingress = self._counters.get(port) or self._add_counters(port)
        ingress.frames_in += 1
        ingress.bytes_in += size

        destination = destination_ip(frame)
        ports = self.table.ports(destination)
        if not ports:
            self._refuse(port, "unreachable" if destination else "malformed", frame, now)
            return
        out_port = ports[0] if len(ports) == 1 else self.table.choose(ports, flow_key(frame))
        if out_port == port:
            self._refuse(port, "ingress-port", frame, now)
            return

        egress = self._counters.get(out_port) or self._add_counters(out_port)
        egress.frames_out += 1
        egress.bytes_out += size
        self._transmits.append(Transmit(out_port, frame, now))

    def handle_timeout(self, now: Instant) -> None:
        """Nothing to do: a network switch waits for nothing."""

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """The next forwarded frame; its time is that of its arrival."""
        return self._transmits.popleft() if self._transmits else None

    def poll_event(self) -> FrameRefused | None:
        """The next frame that could not be forwarded."""
        return self._refusals.popleft() if self._refusals else None

    def poll_timeout(self) -> Instant | None:
        """Always ``None``."""
        return None

    def statistics(self) -> NetworkSwitchStatistics:
        """A snapshot of the counters."""
        return NetworkSwitchStatistics(
            tuple(
                PortStatistics(
                    port=port,
                    frames_in=counters.frames_in,
                    bytes_in=counters.bytes_in,
                    frames_out=counters.frames_out,
                    bytes_out=counters.bytes_out,
                    refused=tuple(counters.refused.items()),
                )
                for port, counters in sorted(self._counters.items())
            )
        )

    def _add_counters(self, port: int) -> _PortCounters:
        counters = self._counters[port] = _PortCounters()
        return counters

    def _refuse(self, port: int, reason: str, frame: bytes, now: Instant) -> None:
        refused = self._counters[port].refused
        refused[reason] = refused.get(reason, 0) + 1
        self._refusals.append(FrameRefused(self.name, port, reason, frame, now))
