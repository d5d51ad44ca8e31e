"""The stage of the fault scenarios in a live lab: real processes, real agents; the interface of
:class:`tests.support.stage.SimulatedStage`, as far as one can do such things to real processes.

The texts of the streams are made in the processes from the same seeds, so only numbers travel between them and us.
"""

import itertools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from nodes.lab import changes
from nodes.lab.process_engine import Lab
from provider.errors import WsaErrno, WsaError
from tests.support.puppet import Puppet, PuppetError
from tests.support.stage import Died

_ports = itertools.count(20_000)
_SETUP = """
import random
class Text:
    def __init__(self, seed): self.text = random.Random(seed).randbytes(1 << 20)
    def part(self, start, size):
        start %= len(self.text)
        return (self.text * (1 + (start + size) // len(self.text)))[start:start + size]
def use(connection):
    global c
    c = connection
    c.settimeout(20)
def write(start, size):
    c.settimeout(0)
    try:
        return c.send(outgoing.part(start, size))
    except BlockingIOError:
        return 0
    finally:
        c.settimeout(20)
def read(start, limit):
    c.settimeout(0)
    got = b""
    try:
        while len(got) < limit and (data := c.recv(limit - len(got))):
            got += data
    except BlockingIOError:
        pass
    finally:
        c.settimeout(20)
    assert got == incoming.part(start, len(got)), f"wrong bytes after {start}"
    return len(got)
def at_end():
    c.settimeout(0)
    try:
        return c.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    finally:
        c.settimeout(20)
"""
_TIDY = """
for name in ("c", "dormant", "l"):
    if name in globals():
        globals().pop(name).close()
"""
_OPTIONS = {(0xFFFF, 0x0008): "SO_KEEPALIVE", (0xFFFF, 0x1007): "SO_ERROR"}


class Pool:
    """Processes that have outlived a scenario, for the next one: starting them is most of the work."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._idle: dict[str, list[Puppet]] = {"client": [], "server": []}

    def take(self, host: str) -> Puppet:
        """A process of ``host``; it may still be starting."""
        return self._idle[host].pop() if self._idle[host] else Puppet(self.lab, host)

    def give(self, host: str, puppet: Puppet) -> None:
        """It has nothing left of its scenario."""
        self._idle[host].append(puppet)

    def pids(self) -> set[int]:
        """Those that are idle."""
        return {puppet.pid for puppets in self._idle.values() for puppet in puppets}

    def close(self) -> None:
        """End them."""
        for puppets in self._idle.values():
            while puppets:
                puppets.pop().close()


class LiveStream:
    """One direction: how much was accepted from the writers, and how much the readers have got."""

    def __init__(self) -> None:
        self.sent = self.got = 0


class LiveParty:
    """One process; see :class:`tests.support.stage.Party`."""

    def __init__(self, stage: "LiveStage", host: str, name: str, streams: tuple[LiveStream, LiveStream]) -> None:
        self.stage, self.host, self.name = stage, host, name
        self.reads, self.writes = streams if host == "server" else streams[::-1]
        self.puppet = stage.pool.take(host)
        stage.company.append(self)
        seeds = (stage.seed, stage.seed + 1) if host == "server" else (stage.seed + 1, stage.seed)
        self.puppet.start(f"{_SETUP}\nincoming, outgoing = Text({seeds[0]}), Text({seeds[1]})")
        self._begun = self._busy = False
        self.dead = self.stopped = False
        self.current: bool | None = None

    def call(self, code: str) -> Any:
        """Run code in the process; WsaError for what the provider raises there, OSError for a timeout."""
        if self.dead:
            raise Died(self.name)
        self.begin()
        try:
            return self.puppet.run(code)
        except PuppetError as error:
            raise _wsa(error) from None
        except (EOFError, BrokenPipeError):
            self.dead = True
            raise Died(self.name) from None

    def begin(self) -> None:
        """Wait until it runs; several processes start at once."""
        if not self._begun:
            self._begun = True
            self.puppet.result()

    @property
    def usable(self) -> bool:
        """Whether it controls a connection that lives."""
        return not self.dead and bool(self.current) and self.call("c._call('status')['control']") == "yours"

    def share(self, to: "LiveParty", mode: str | None = None) -> bytes:
        """WSPDuplicateSocket."""
        return bytes(self.call(f"c.share({to.puppet.pid}, {mode or self.stage.mode!r})"))

    def begin_share(self, to: "LiveParty", mode: str | None = None) -> Callable[[], bytes]:
        """Ask for it; calling the result waits for the answer."""
        self.begin()
        self.puppet.start(f"c.share({to.puppet.pid}, {mode or self.stage.mode!r})")
        self._busy = True

        def answer() -> bytes:
            self._busy = False
            try:
                return bytes(self.puppet.result())
            except PuppetError as error:
                raise _wsa(error) from None
            except EOFError:
                self.dead = True
                raise Died(self.name) from None

        return answer

    def redeem(self, info: bytes) -> None:
        """WSPSocket with a ticket."""
        self.call(f"new = socket.fromshare({info!r}); dormant = globals().get('c'); use(new)")
        self.current = True

    def close(self) -> None:
        """WSPCloseSocket."""
        self.call("c.close()")
        self.current = None

    def close_dormant(self) -> None:
        """WSPCloseSocket of the descriptor that it had before."""
        self.call("dormant.close()")

    def shutdown(self) -> None:
        """End of what this side sends."""
        self.call("c.shutdown(socket.SHUT_WR)")

    def option(self, level: int, name: int, value: int | None = None) -> int:
        """Get, or set and get."""
        if value is not None:
            self.call(f"c.setsockopt(socket.SOL_SOCKET, socket.{_OPTIONS[level, name]}, {value})")
        return int(self.call(f"c.getsockopt(socket.SOL_SOCKET, socket.{_OPTIONS[level, name]})"))

    def write(self, size: int) -> int:
        """Write up to ``size`` bytes; how many were accepted."""
        if self.dead or self.stopped or self._busy or not self.current or size <= 0:
            return 0
        try:
            count = int(self.call(f"write({self.writes.sent}, {min(size, 1 << 18)})"))
        except WsaError:
            return 0
        self.writes.sent += count
        return count

    def read(self) -> None:
        """Read all that is there."""
        if self.dead or self.stopped or self._busy or not self.current:
            return
        try:
            self.reads.got += int(self.call(f"read({self.reads.got}, {1 << 18})"))
        except WsaError:
            return
        assert self.reads.got <= self.reads.sent, "more came than was sent"

    def at_end(self) -> bool:
        """Whether the other side sends no more and all was read."""
        return bool(self.call("at_end()"))

    def try_use(self) -> WsaErrno | None:
        """The error that a use of the connection meets, None if it is fine."""
        try:
            self.option(0xFFFF, 0x0008, 1)
            if self.call("c._call('status')['control']") == "aborted":
                return WsaErrno.WSAECONNABORTED
        except WsaError as error:
            return error.wsa
        return None

    def kill(self) -> None:
        """SIGKILL."""
        if not self.dead:
            self.dead = True
            self.puppet.kill()

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        os.kill(self.puppet.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.puppet.pid, signal.SIGCONT)
        self.stopped = False

    def leave(self) -> None:
        """The scenario is over: back to the pool, unless it died or is not to be trusted."""
        try:
            if self.dead or self._busy:
                raise Died(self.name)
            if self.stopped:
                self.go_on()
            self.call(_TIDY)
            self.stage.pool.give(self.host, self.puppet)
        except (Died, OSError, AssertionError, PuppetError):
            self.puppet.close()


class LiveStage:
    """See the module text."""

    simulated = False
    retry_budget = 8 * (4096 << 15) / 1e9
    """Of a lab on links without much latency; see ``nodes.agent.__main__.ack_timeout_code``."""

    def __init__(self, pool: Pool, mode: str, state: str, seed: int = 1) -> None:
        self.pool, self.lab, self.mode, self.state, self.seed = pool, pool.lab, mode, state, seed
        self.company: list[LiveParty] = []
        self.loaded = True
        main, other = (LiveStream(), LiveStream()), (LiveStream(), LiveStream())
        self.peer = LiveParty(self, "client", "peer", main)
        self.source = LiveParty(self, "server", "source", main)
        self.target = LiveParty(self, "server", "target", main)
        self.third = LiveParty(self, "server", "third", main)
        self.parties = [self.peer, self.source, self.target, self.third]
        self.bystanders = [LiveParty(self, host, "bystander", other) for host in ("client", "server")]
        self.connect(self.peer, self.source)
        self.connect(*self.bystanders)
        if state != "idle":
            self.peer.write(3000)

    def another(self, host: str, name: str) -> LiveParty:
        """One more process for the same connection."""
        streams = (self.peer.writes, self.peer.reads)
        return LiveParty(self, host, name, streams)

    def connect(self, peer: LiveParty, source: LiveParty) -> None:
        """``peer`` listens for ``source``."""
        port = next(_ports)
        peer.call(f"l = socket.create_server(('', {port}))")
        source.call(f"use(socket.create_connection(('client', {port}), 20))")
        peer.call("use(l.accept()[0]); l.close()")
        peer.current = source.current = True

    def turn(self) -> None:
        """One turn of what the processes do by themselves."""
        if self.state == "load" and self.loaded:
            self.peer.write(1 << 18)
            for party in self.parties[1:]:
                party.read()

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Go on until it is true; AssertionError at the deadline."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not within {seconds} s"
            self.turn()

    def advance(self, seconds: float) -> None:
        """Live, conditions are waited for and time is not; what is under way goes on under way."""
        self.turn()

    def plan(self, point: str, action: str, who: str = "self", host: str = "server") -> None:
        """A fault at a point of the agent."""
        self.lab.ask(host, "fault-points", plan=[{"point": point, "action": action, "who": who}])

    def fired(self, host: str = "server") -> bool:
        """Whether all that was planned has happened."""
        told = self.lab.ask(host, "fault-points")
        return bool(told["fired"]) and not told["pending"]

    def cut(self, cut: bool = True) -> None:
        """A partition of client and server, or its end."""
        if cut:
            changes.partition(self.lab.record, ["client"], None)
        else:
            changes.heal(self.lab.record)

    def agent_descriptors(self) -> int:
        """File descriptors that the agent of ``server`` has open."""
        return len(os.listdir(f"/proc/{self.lab.record.nodes['server'].pid}/fd"))

    def end(self) -> None:
        """No process of the scenario is left."""
        self.cut(False)
        for host in ("client", "server"):
            self.lab.ask(host, "fault-points", plan=[])
        for party in self.company:
            party.leave()


def _wsa(error: PuppetError) -> Exception:
    """What the process's error means here."""
    if "descriptor string has wrong size" in error.text:
        return WsaError(WsaErrno.WSAEINVAL, error.text)  # the standard module's word for it
    if error.wsa is not None:
        return WsaError(WsaErrno(error.wsa), error.text)
    kinds = {"ConnectionResetError": WsaErrno.WSAECONNRESET, "ConnectionAbortedError": WsaErrno.WSAECONNABORTED}
    for kind, number in kinds.items():
        if kind in error.kinds:
            return WsaError(number, error.text)
    return error
