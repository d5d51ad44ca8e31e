"""The stage of the fault scenarios (handoff.md 7) in virtual time: a peer on ``client``; source, target and a third
process on ``server``; and a second connection that must not notice anything.

Parties do what processes do, each call running the world until it is answered. What a scenario cannot do to live
processes stands in :class:`SimulatedStage` alone (``simulated`` is true). The stream's state is one of STATES:

* ``idle``: nothing moves;
* ``unread``: the source's process has not read what the peer sent;
* ``load``: the peer sends as fast as it can, and whoever owns the connection reads.
"""

import random
from collections.abc import Callable
from typing import Any

from fabric.ids import ProcessInstance
from fabric.units import MILLISECOND, SECOND
from fabric.wire.opcodes import Opcode
from fabric.wire.sdp import Mid
from provider.errors import WsaErrno, WsaError
from provider.handoff.fault_points import Fault
from provider.sockets_switch import events
from provider.sockets_switch.shared_socket import Descriptor
from tests.support.handoff_run import Run, build

MODES = ("suspend", "local", "rehome")
STATES = ("idle", "unread", "load")
RATE = 20_000_000
TURN = MILLISECOND
PORT, OTHER_PORT = 7000, 7001
_OPCODE, _PAYLOAD = 14 + 20 + 8, 14 + 20 + 8 + 12


def message_of(frame: bytes) -> str:
    """The name of what a frame carries, if it is one that scenarios are about."""
    if frame[_OPCODE] == Opcode.RC_SEND_ONLY and frame[_PAYLOAD] in Mid._value2member_map_:
        return Mid(frame[_PAYLOAD]).name
    is_request = frame[_OPCODE] == Opcode.UD_SEND_ONLY and frame[_PAYLOAD + 8 + 16 : _PAYLOAD + 8 + 18] == b"\0\x10"
    return "REMAKE" if is_request else ""


class Died(Exception):
    """The process that should act has been killed."""


class Stream:
    """One direction: what was accepted from the writers, and what the readers have got, of a random but known text."""

    def __init__(self, seed: int) -> None:
        self._text = random.Random(seed).randbytes(1 << 20)
        self.sent = self.got = 0

    def next(self, size: int) -> bytes:
        """The next ``size`` bytes to send; the text repeats itself."""
        return self._slice(self.sent, size)

    def take(self, data: bytes) -> None:
        """``data`` was read; it must be what comes next, and have been sent."""
        assert data == self._slice(self.got, len(data)), f"wrong bytes after {self.got}"
        self.got += len(data)
        assert self.got <= self.sent, "more came than was sent"

    def _slice(self, start: int, size: int) -> bytes:
        start %= len(self._text)
        return (self._text * (1 + (start + size) // len(self._text)))[start : start + size]


class Connection:
    """Both directions of one connection; ``in_`` is towards ``server``."""

    def __init__(self, seed: int) -> None:
        self.in_, self.out = Stream(seed), Stream(seed + 1)


class Party:
    """One process, with at most one descriptor that it works with (``current``)."""

    def __init__(
        self, stage: "SimulatedStage", host: str, name: str, pid: int, connection: Connection, start: int = 1
    ) -> None:
        self.stage, self.host, self.name, self.connection = stage, host, name, connection
        self.process = ProcessInstance(pid, start)
        self.half = stage.stacks[host].half
        self.half.attach(self.process, name, 0)
        self.current: Descriptor | None = None
        self.unread = b""
        """Given to the process, not read by it."""
        self.usable = False
        self.dormant: Descriptor | None = None
        """What it had before it redeemed a ticket."""
        self.dead = self.stopped = self.doomed = False
        """``doomed``: killed in this instant; it does nothing more."""

    # ----------------------------------------------------------------- helpers

    @property
    def reads(self) -> Stream:
        """What this host's side reads."""
        return self.connection.in_ if self.host == "server" else self.connection.out

    @property
    def writes(self) -> Stream:
        """What it writes."""
        return self.connection.out if self.host == "server" else self.connection.in_

    @property
    def s(self) -> Any:
        """Its descriptor's number."""
        assert self.current is not None, f"{self.name} has no descriptor"
        return self.current.s

    def call(self, function: Callable[[int], Any]) -> Any:
        """A call to the agent."""
        if self.dead:
            raise Died(self.name)
        return self.stage.world.command(self.host, function)

    # ------------------------------------------------------------------- steps

    def share(self, to: "Party", mode: str | None = None) -> bytes:
        """WSPDuplicateSocket; WsaError, and still the owner, when it fails."""
        return self.begin_share(to, mode)()

    def begin_share(self, to: "Party", mode: str | None = None) -> Callable[[], bytes]:
        """Ask for it; calling the result waits for the answer."""
        number = self.call(
            lambda now: self.half.duplicate(self.process, self.s, to.process, mode or self.stage.mode, now)
        )

        def answer() -> bytes:
            found: list[Any] = []

            def answered() -> bool:
                kinds = events.DuplicateDone | events.DuplicateFailed
                found[:] = [
                    e for h, e in self.stage.seen if h == self.host and isinstance(e, kinds) and e.operation == number
                ]
                return bool(found) or self.dead

            self.stage.until(answered, 20)
            if self.dead:
                raise Died(self.name)
            if isinstance(found[0], events.DuplicateFailed):
                raise WsaError(found[0].error, found[0].text)
            return bytes(found[0].info)

        return answer

    def redeem(self, info: bytes) -> None:
        """WSPSocket with a ticket: this process owns the connection."""
        descriptor = self.call(lambda now: self.half.redeem(self.process, info, now))
        self.dormant, self.current = self.current, descriptor
        self.unread = b""
        self.usable = descriptor.has_channel and not (descriptor.socket.ended or self.doomed)

    def close(self) -> None:
        """WSPCloseSocket of the current descriptor."""
        s = self.s
        self.call(lambda now: self.half.close(self.process, s, now))
        self.current, self.usable, self.unread = None, False, b""

    def close_dormant(self) -> None:
        """WSPCloseSocket of the descriptor that it had before."""
        assert self.dormant is not None
        s, self.dormant = self.dormant.s, None
        self.call(lambda now: self.half.close(self.process, s, now))

    def shutdown(self) -> None:
        """End of what this side sends."""
        s = self.s
        self.call(lambda now: self.half.shutdown_send(self.process, s, now))

    def option(self, level: int, name: int, value: int | None = None) -> int:
        """Get, or set and get."""
        s = self.s
        if value is not None:
            self.call(lambda now: self.half.set_option(self.process, s, level, name, value, now))
        return int(self.call(lambda now: self.half.get_option(self.process, s, level, name, now)))

    def write(self, size: int) -> int:
        """Write up to ``size`` bytes; how many were accepted."""
        if not self.usable or self.dead or self.stopped:
            return 0
        size = min(size, self.half.send_space(self.s))
        if size > 0:
            data = self.writes.next(size)
            self.call(lambda now: self.half.send(self.s, data, now))
            self.writes.sent += size
        return max(size, 0)

    def fill(self, size: int) -> None:
        """What the agent gives to the process, up to ``size`` bytes."""
        if not self.usable or self.dead:
            return
        data = self.half.peek(self.s, size)
        if data:
            self.unread += data
            self.call(lambda now: self.half.consume(self.s, len(data), now))

    def read(self) -> None:
        """Read all that is there."""
        if self.dead or self.stopped:
            return
        self.fill(1 << 20)
        self.reads.take(self.unread)
        self.unread = b""

    def at_end(self) -> bool:
        """Whether the other side sends no more and all was read."""
        return self.half.peer_finished(self.s)

    def try_use(self) -> WsaErrno | None:
        """The error that a use of the current descriptor meets, None if it is fine."""
        try:
            self.option(0xFFFF, 0x0008, 1)
        except WsaError as error:
            return error.wsa
        socket = self.current.socket if self.current is not None else None
        return socket.error or WsaErrno.WSAECONNABORTED if socket is not None and socket.ended else None

    def kill(self) -> None:
        """SIGKILL; the agent notices at once."""
        if not self.dead:
            self.dead, self.usable = True, False
            self.stage.world.command(self.host, lambda now: self.half.detach(self.process, now))

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        self.stopped = False


class SimulatedStage:
    """See the module text. ``seen`` holds every event of the agents, in order."""

    simulated = True

    def __init__(self, mode: str, state: str, seed: int = 1) -> None:
        self.mode, self.state, self.seed = mode, state, seed
        self.run: Run = build(seed, 0.0, rate=RATE)
        self.world = self.run.world
        self.world._on_event = self._on_event
        self.stacks = {"client": self.run.client, "server": self.run.server}
        self.seen: list[tuple[str, Any]] = []
        self.filters: list[Callable[[str, bytes], bool]] = []
        """Called with link and frame; true loses the frame."""
        self._filter_links()
        self.parties: list[Party] = []
        self.bystanders: list[Party] = []
        main, other = Connection(seed), Connection(seed + 1000)
        self.peer = Party(self, "client", "peer", 10, main)
        self.source = Party(self, "server", "source", 20, main)
        self.target = Party(self, "server", "target", 21, main)
        self.third = Party(self, "server", "third", 22, main)
        self.parties = [self.peer, self.source, self.target, self.third]
        self.bystanders = [Party(self, "client", "bystander", 30, other), Party(self, "server", "bystander", 31, other)]
        for stack in self.stacks.values():
            stack.core.faults.act = self._act
        self.connect(self.peer, self.source, PORT)
        self.connect(*self.bystanders, OTHER_PORT)
        self.loaded = True
        if state != "idle":
            self.advance(0.05)
        if state == "unread":
            self.peer.write(3000)
            self.advance(0.05)
            self.source.fill(2000)

    def connect(self, peer: Party, source: Party, port: int) -> None:
        """``peer`` listens for ``source``."""
        listener = peer.call(lambda now: peer.half.socket(peer.process, 2, 1, 0, now))
        peer.call(lambda now: peer.half.bind(peer.process, listener.s, ("0.0.0.0", port), now))
        peer.call(lambda now: peer.half.listen(peer.process, listener.s, 5, now))
        source.current = source.call(lambda now: source.half.socket(source.process, 2, 1, 0, now))
        source.call(lambda now: source.half.connect(source.process, source.s, ("10.77.0.1", port), now))
        self.world.run_until(self.world.now + SECOND)
        peer.current = peer.call(lambda now: peer.half.accept(peer.process, listener.s, now))
        peer.call(lambda now: peer.half.close(peer.process, listener.s, now))
        for party in (peer, source):
            party.usable = True

    def another(self, host: str, name: str) -> Party:
        """One more process for the same connection."""
        return Party(self, host, name, 50 + len(self.parties), self.peer.connection)

    # ------------------------------------------------------------------- time

    def turn(self) -> None:
        """One turn of what the processes do by themselves."""
        if self.state == "load" and self.loaded:
            self.peer.write(1 << 18)
            for party in self.parties[1:]:
                party.read()
        self.world.run_until(self.world.now + TURN)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.world.now + int(seconds * SECOND)
        while self.world.now < end:
            if self.state == "load" and self.loaded:
                self.turn()
            else:
                self.world.run_until(end)

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Let time pass until it is true; AssertionError at the deadline."""
        end = self.world.now + int(seconds * SECOND)
        while not condition():
            assert self.world.now < end, f"not within {seconds} s of virtual time, seed {self.seed}"
            self.turn()

    # ------------------------------------------------------------------ faults

    def plan(self, point: str, action: str, who: str = "self", host: str = "server") -> None:
        """A fault at a point of the agent."""
        self.stacks[host].core.faults.plan([Fault(point, action, who)])

    def fired(self, host: str = "server") -> bool:
        """Whether all that was planned has happened."""
        told = self.stacks[host].core.faults.describe()
        return bool(told["fired"]) and not told["pending"]

    def cut(self, cut: bool = True) -> None:
        """A partition of client and server, or its end."""
        for model in self.world.link_models().values():
            model.cut = cut

    @property
    def retry_budget(self) -> float:
        """Seconds after which a silent link ends a connection."""
        proxy = self.stacks["server"].config.proxy
        return (proxy.retry_count + 1) * (4096 << proxy.ack_timeout) / SECOND

    def lose_message(self, name: str, times: int, link: str) -> Callable[[], int]:
        """Lose the first ``times`` frames on ``link`` that carry a message (a MID of SDP, or ``REMAKE``: a connection
        request); gives how many were lost.
        """
        lost = [0]

        def drop(at: str, frame: bytes) -> bool:
            hit = at == link and lost[0] < times and message_of(frame) == name
            lost[0] += hit
            return hit

        self.filters.append(drop)
        return lambda: lost[0]

    # ------------------------------------------------------------------ private

    def _filter_links(self) -> None:
        send = self.world._send

        def filtered(link: Any, model: Any, frame: bytes) -> None:
            if not any(drop(str(link.name), bytes(frame)) for drop in list(self.filters)):
                send(link, model, frame)

        self.world._send = filtered  # type: ignore[method-assign]

    def _party(self, host: str, s: int) -> Party | None:
        everybody = [*self.parties, *self.bystanders]
        return next((p for p in everybody if p.host == host and p.current is not None and p.current.s == s), None)

    def _on_event(self, host: str, event: Any, now: int) -> None:
        self.seen.append((host, event))
        party = self._party(host, event.s) if hasattr(event, "s") else None
        if isinstance(event, events.RevokeChannel):
            unread = b""
            if party is not None:
                unread, party.unread, party.usable = party.unread, b"", False
            self.stacks[host].half.channel_revoked(event.s, b"", unread, False, now)
            self.stacks[host].settle(now)
        elif party is None:
            return
        elif isinstance(event, events.ControlReturned):
            assert party.current is not None
            party.usable = party.current.has_channel and not party.dead
        elif isinstance(event, events.ChannelReset):
            party.usable = False

    def _act(self, fault: Fault, process: ProcessInstance | None) -> None:
        party = next(p for p in self.parties if p.process == process)
        if fault.action == "stop":
            party.stop()
            return
        party.usable, party.doomed = False, True
        self.world.at(self.world.now, party.kill)
