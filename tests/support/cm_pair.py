"""Hosts with a connection manager each, on a fake datagram wire under a manual clock.

Who tests through it says only what differs: the fate of a datagram (``wire.fate``) and what a host's consumer does with
an event (``host.react``). Times are integer nanoseconds.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fabric.cm.manager import (
    CmConfig,
    ConnectionManager,
    Disconnected,
    ReplyReceived,
    RequestReceived,
)
from fabric.rng import stream
from fabric.units import MILLISECOND
from fabric.wire.cm import ConnectRequest, decode_mad, encode_mad

SERVICE = 0x0001_0000 | 7471
LATENCY = 2 * MILLISECOND


class CmHost:
    """One host: a manager and an obliging consumer that accepts, gets ready, and agrees to disconnect."""

    def __init__(self, wire: "CmWire", name: str, number: int, config: CmConfig) -> None:
        self.wire, self.name, self.ip, self.guid = wire, name, bytes((10, 0, 0, number)), 0x0200_0000_0000_0000 | number
        self.manager = ConnectionManager(guid=self.guid, rng=stream(wire.seed, f"cm/{name}"), config=config)
        self.events: list[Any] = []
        self.react: Callable[[CmHost, Any], object] = oblige
        self.next_qpn = 0x100 * number
        self.used_ids: list[int] = []

    def connect(self, remote: "CmHost", **changes: Any) -> Any:
        """REQ to ``remote`` from a fresh queue pair."""
        arguments: dict[str, Any] = {
            "local_ip": self.ip,
            "local_qpn": self.new_qpn(),
            "starting_psn": 0xABCDE,
            "private_data": b"hello",
            "now": self.wire.now,
        } | changes
        service_id = arguments.pop("service_id", SERVICE)
        comm_id = self.manager.connect(remote.ip, service_id, **arguments)
        self.used_ids.append(comm_id)
        self.wire.drain()
        return comm_id

    def command(self, name: str, comm_id: int, **arguments: Any) -> None:
        """One of the manager's commands, now."""
        getattr(self.manager, name)(comm_id, now=self.wire.now, **arguments)
        self.wire.drain()

    def new_qpn(self) -> int:
        self.next_qpn += 1
        return self.next_qpn

    def of(self, kind: type) -> list[Any]:
        """The events of one kind so far."""
        return [event for event in self.events if isinstance(event, kind)]

    def state(self, comm_id: int) -> str:
        """Name of a connection's state, ``CLOSED`` if it is forgotten."""
        connection = self.manager._core.connections.get(comm_id)  # type: ignore[call-overload]
        return "CLOSED" if connection is None else connection.state.value


def ignore(host: CmHost, event: Any) -> None:
    """A consumer that never decides."""


def oblige(host: CmHost, event: Any) -> None:
    """The consumer that most tests want."""
    now = host.wire.now
    if isinstance(event, RequestReceived):
        host.manager.accept(event.comm_id, local_qpn=host.new_qpn(), starting_psn=0x12345, private_data=b"ack", now=now)
    elif isinstance(event, ReplyReceived):
        host.manager.ready(event.comm_id, now)
    elif isinstance(event, Disconnected) and event.by_peer:
        host.manager.disconnect(event.comm_id, now)


class CmWire:
    """Hosts ``a`` and ``b`` (and more with ``add``), and what travels between them.

    ``fate(sender, message)`` gives the delays at which copies of a datagram arrive: ``()`` loses it.
    ``log`` has ``(now, sender name, message)`` for everything that was sent.
    """

    def __init__(self, seed: int = 1, **config: Any) -> None:
        self.seed, self.now = seed, 0
        self.config = CmConfig(**config)
        self.hosts: dict[bytes, CmHost] = {}
        self.log: list[tuple[int, str, Any]] = []
        self.fate: Callable[[CmHost, Any], tuple[int, ...]] = lambda sender, message: (LATENCY,)
        self.rng = random.Random(seed)
        self._under_way: list[tuple[int, int, bytes, bytes, bytes]] = []
        self._serial = 0
        self.a, self.b = self.add("a", 1), self.add("b", 2)
        self.b.manager.listen(SERVICE)

    def add(self, name: str, number: int, **config: Any) -> CmHost:
        """One more host, 10.0.0.<number>."""
        host = CmHost(self, name, number, replace(self.config, **config))
        self.hosts[host.ip] = host
        return host

    def inject(self, source_ip: bytes, target: CmHost, message: Any) -> None:
        """Hand ``target`` a message as if it came from ``source_ip``, at once."""
        mad = message if isinstance(message, bytes) else encode_mad(message)
        target.manager.handle_mad(source_ip, mad, self.now)
        self.drain()

    def drain(self) -> None:
        """Events to consumers and datagrams onto the wire until nothing moves."""
        moved = True
        while moved:
            moved = False
            for host in self.hosts.values():
                while (event := host.manager.poll_event()) is not None:
                    host.events.append(event)
                    if isinstance(event, RequestReceived):
                        host.used_ids.append(event.comm_id)
                    host.react(host, event)
                    moved = True
                while (datagram := host.manager.poll_transmit(self.now)) is not None:
                    self._send(host, datagram)
                    moved = True

    def step(self, until: int) -> bool:
        """The next arrival or timeout up to ``until``; False if there is none (then it is ``until``)."""
        deadlines = [host.manager.poll_timeout() for host in self.hosts.values()]
        instants = [at for at in deadlines if at is not None] + [entry[0] for entry in self._under_way[:1]]
        if not instants or min(instants) > until:
            self.now = max(self.now, until)
            return False
        self.now = max(self.now, min(instants))
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, source_ip, target_ip, mad = heapq.heappop(self._under_way)
            if target_ip in self.hosts:
                self.hosts[target_ip].manager.handle_mad(source_ip, mad, self.now)
                self.drain()
        for host in self.hosts.values():
            host.manager.handle_timeout(self.now)
            deadline = host.manager.poll_timeout()
            assert deadline is None or deadline > self.now, "a timeout that is due again at once"
        self.drain()
        return True

    def run(self, duration: int) -> None:
        """Let time pass."""
        self.drain()
        until = self.now + duration
        while self.step(until):
            pass

    def established(self) -> tuple[Any, Any]:
        """A connection from ``a`` to ``b``, set up: (a's id, b's id)."""
        comm_id = self.a.connect(self.b)
        self.run(3 * LATENCY)
        assert self.a.state(comm_id) == "ESTABLISHED"
        return comm_id, self.b.of(RequestReceived)[-1].comm_id

    def sent(self, kind: type, by: CmHost | None = None) -> list[Any]:
        """Messages of one kind sent so far, by one host or by all."""
        return [m for _, name, m in self.log if isinstance(m, kind) and (by is None or by.name == name)]

    def sent_at(self, kind: type) -> list[int]:
        """When messages of one kind were sent."""
        return [at for at, _, message in self.log if isinstance(message, kind)]

    def request(self, **changes: Any) -> ConnectRequest:
        """A REQ of a stranger at 10.0.0.99, to be injected."""
        template: dict[str, Any] = {
            "transaction_id": 77,
            "local_comm_id": 4711,
            "service_id": SERVICE,
            "local_ca_guid": 0xC0FFEE,
            "local_qpn": 99,
            "remote_cm_response_timeout": 16,
            "local_cm_response_timeout": 16,
            "max_cm_retries": 8,
            "starting_psn": 5,
            "path_mtu": 3,
            "local_ack_timeout": 14,
        }
        return ConnectRequest(**(template | changes))

    def _send(self, sender: CmHost, datagram: Any) -> None:
        message = decode_mad(datagram.mad)
        assert encode_mad(message) == datagram.mad
        self.log.append((self.now, sender.name, message))
        for delay in self.fate(sender, message):
            self._serial += 1
            entry = (self.now + delay, self._serial, sender.ip, datagram.remote_ip, datagram.mad)
            heapq.heappush(self._under_way, entry)


STRANGER = bytes((10, 0, 0, 99))
"""Where :meth:`CmWire.request` comes from; nobody lives there, so answers vanish (but are in the log)."""
