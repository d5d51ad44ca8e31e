"""The whole of a host below its applications, as one engine: adapter, connection manager, proxy driver, sockets
switch, registry.

``HostStack`` is what the agent drives live and what the simulator drives in virtual time. Frames go in and out on
port 0; commands and events are those of :class:`provider.sockets_switch.agent_half.AgentHalf`. After a command call
``settle``; drivers do so.
"""

from collections import deque
from dataclasses import dataclass

from fabric.cm.manager import ConnectionManager
from fabric.engine import Transmit
from fabric.rc.adapter import ChannelAdapter
from fabric.rng import stream
from fabric.units import MILLISECOND, Duration, Instant
from provider.catalog import SAN_ENTRY
from provider.handoff.registry import HandoffRegistry
from provider.protocol_info import GUID
from provider.san_provider.config import ProxyConfig
from provider.san_provider.proxy_driver import ProxyDriver
from provider.session.session import SessionConfig
from provider.sockets_switch.agent_half import AgentHalf
from provider.sockets_switch.events import SwitchEvent
from provider.sockets_switch.quotas import Quotas
from provider.sockets_switch.switch_core import Report, SwitchConfig, SwitchCore

_PROXY = ProxyConfig()
_QUOTAS = Quotas()
_SESSION = SessionConfig()


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What distinguishes one host from another."""

    name: str
    ip: str
    mac: bytes
    neighbours: dict[bytes, bytes]
    """IP address -> MAC address of every host of the fabric."""
    names: dict[str, str]
    """Host name -> IP address."""
    seed: int
    """Seeds queue pair numbers, communication ids, packet sequence numbers; live hosts mix entropy into it."""
    node_key: bytes
    """Secret of this node's tickets, at least 16 bytes."""
    default_mode: str = "suspend"
    quotas: Quotas = _QUOTAS
    spread_interval: Duration = MILLISECOND
    proxy: ProxyConfig = _PROXY
    session: SessionConfig = _SESSION
    tcp_on_san: tuple[GUID, ...] = (SAN_ENTRY.info.ProviderId,)
    """ProviderIds of the providers that the sockets switch may use beside TCP/IP."""


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """Counters of a host, as a snapshot."""

    adapter: object
    manager: object
    registry: object
    processes: int
    sockets: int
    descriptors: int
    endpoints: int
    parked: int


class HostStack:
    """See the module text."""

    def __init__(self, config: HostConfig, report: Report) -> None:
        self.config = config
        ip = bytes(int(part) for part in config.ip.split("."))
        guid = int.from_bytes(config.mac[:3] + b"\xff\xfe" + config.mac[3:], "big")
        self._ip = ip
        self._adapter = ChannelAdapter(
            mac=config.mac,
            ip=ip,
            neighbours=config.neighbours.get,
            rng=stream(config.seed, f"adapter/{config.name}"),
            guid=guid,
        )
        manager = ConnectionManager(guid=guid, rng=stream(config.seed, f"cm/{config.name}"))
        self._proxy = ProxyDriver(self._adapter, manager, config.proxy, stream(config.seed, f"proxy/{config.name}"))
        self.core = SwitchCore(
            SwitchConfig(
                config.ip,
                config.names,
                config.session,
                config.default_mode,
                quotas=config.quotas,
                tcp_on_san=config.tcp_on_san,
                spread_interval=config.spread_interval,
            ),
            self._proxy,
            HandoffRegistry(config.node_key),
            stream(config.seed, f"switch/{config.name}"),
            report,
        )
        self.half = AgentHalf(self.core)
        self._looped: deque[bytes] = deque()

    # ------------------------------------------------------------------- input

    def handle_frame(self, port: int, frame: bytes, now: Instant) -> None:
        """A frame from the fabric; whatever is wrong with it is counted, never raised."""
        core = self.core
        core.now = now
        self._proxy.handle_frame(port, frame, now)
        if core.dirty or core.signalled:
            self.half.settle(now)

    def handle_timeout(self, now: Instant) -> None:
        """All overdue work."""
        self.core.now = now
        self._proxy.handle_timeout(now)
        self.half.handle_timeout(now)
        self.half.settle(now)

    def settle(self, now: Instant) -> None:
        """Call after every command on :attr:`half`, with the same ``now``."""
        self.core.now = now
        self.half.settle(now)

    # ------------------------------------------------------------------ output

    def poll_transmit(self, now: Instant) -> Transmit | None:
        """The next frame for the fabric; frames of this host to itself never leave it."""
        while True:
            transmit = self._proxy.poll_transmit(now)
            if transmit is None:
                return None
            frame = transmit.frame
            if frame[30:34] != self._ip or frame[12:14] != b"\x08\x00":
                return transmit
            self._looped.append(bytes(frame))
            if len(self._looped) == 1:
                while self._looped:
                    self.handle_frame(0, self._looped[0], now)
                    self._looped.popleft()

    def poll_event(self) -> SwitchEvent | None:
        """The next event for the driver."""
        events = self.core.events
        return events.popleft() if events else None

    def poll_timeout(self) -> Instant | None:
        """The earliest deadline of all parts."""
        proxy, half = self._proxy.poll_timeout(), self.half.poll_timeout()
        if proxy is None or half is None:
            return half if proxy is None else proxy
        return min(proxy, half)

    def statistics(self) -> HostStatistics:
        """A frozen snapshot."""
        core = self.core
        return HostStatistics(
            adapter=self._adapter.statistics(),
            manager=self._proxy.manager.statistics(),
            registry=core.registry.statistics(),
            processes=len(core.processes),
            sockets=len(core.sockets),
            descriptors=len(core.descriptors),
            endpoints=len(self._proxy.endpoints()),
            parked=len(core.parking),
        )
