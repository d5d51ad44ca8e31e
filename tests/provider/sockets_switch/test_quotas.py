"""Quotas of the agent half in virtual time: who wants too much is told, what waits and lingers counts, and however much
a dead process leaves, other connections get their turns.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.units import MILLISECOND, SECOND
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch.quotas import Quotas
from provider.sockets_switch.switch_core import AT_ONCE
from tests.support.handoff_run import SENDER, SOURCE, TARGET, build

PORT = 7000


class Bench:
    """A server that listens as SOURCE, and a client that connects as SENDER."""

    def __init__(self, quotas: Quotas, backlog: int = 100) -> None:
        self.run = build(1, 0.0, quotas)
        self.world = self.run.world
        self.client, self.server = self.run.client.half, self.run.server.half
        self.client.attach(SENDER, "", 0)
        for process in (SOURCE, TARGET):
            self.server.attach(process, "", 0)
        self.listener = self.server.socket(SOURCE, 2, 1, 0, 0)
        self.server.bind(SOURCE, self.listener.s, ("0.0.0.0", PORT), 0)
        self.world.command("server", lambda now: self.server.listen(SOURCE, self.listener.s, backlog, now))

    def connect(self, count: int = 1):
        made = [self.client.socket(SENDER, 2, 1, 0, self.world.now) for _ in range(count)]
        for one in made:
            self.world.command("client", lambda now, s=one.s: self.client.connect(SENDER, s, ("10.77.0.2", PORT), now))
        self.world.run_until(self.world.now + SECOND)
        return made

    def accept(self):
        return self.world.command("server", lambda now: self.server.accept(SOURCE, self.listener.s, now))

    def error(self, function) -> WsaErrno:
        with pytest.raises(WsaError) as caught:
            function()
        return caught.value.wsa

    def nothing_is_left(self) -> None:
        self.world.command("client", lambda now: self.client.detach(SENDER, now))
        for process in (SOURCE, TARGET):
            self.world.command("server", lambda now, p=process: self.server.detach(p, now))
        self.world.run_until(self.world.now + 100 * SECOND)
        for stack in (self.run.client, self.run.server):
            left = stack.statistics()
            assert (left.sockets, left.descriptors, left.endpoints, stack.poll_timeout()) == (0, 0, 0, None)


def test_the_process_then_the_host():
    bench = Bench(Quotas(sockets_per_process=3, sockets=5))
    server = bench.server
    for _ in range(2):
        server.socket(SOURCE, 2, 1, 0, 0)
    assert bench.error(lambda: server.socket(SOURCE, 2, 1, 0, 0)) is WsaErrno.WSAEMFILE
    last = [server.socket(TARGET, 2, 1, 0, 0) for _ in range(2)][-1]
    assert bench.error(lambda: server.socket(TARGET, 2, 1, 0, 0)) is WsaErrno.WSAENOBUFS
    bench.world.command("server", lambda now: server.close(TARGET, last.s, now))
    server.socket(TARGET, 2, 1, 0, 0)
    bench.nothing_is_left()


def test_what_waits_counts_and_accepting_never_meets_a_quota():
    bench = Bench(Quotas(sockets_per_process=4))
    callers = bench.connect(4)
    refused = [caller for caller in callers if caller.socket.error is WsaErrno.WSAECONNREFUSED]
    assert len(refused) == 1  # the listener itself is one of four
    assert bench.error(lambda: bench.server.socket(SOURCE, 2, 1, 0, 0)) is WsaErrno.WSAEMFILE
    accepted = [bench.accept() for _ in range(3)]
    assert bench.error(bench.accept) is WsaErrno.WSAEWOULDBLOCK
    bench.world.command("server", lambda now: bench.server.close(SOURCE, accepted[0].s, now))
    for caller in (refused[0], callers[0]):
        bench.world.command("client", lambda now, s=caller.s: bench.client.close(SENDER, s, now))
    assert len([caller for caller in bench.connect(2) if caller.socket.error is None]) == 1
    bench.nothing_is_left()


def test_connections_of_the_backlog_do_not_count_for_long():
    bench = Bench(Quotas(sockets_per_process=4))
    for _ in range(5):
        (caller,) = bench.connect()
        assert caller.socket.error is None
        bench.world.command("client", lambda now, s=caller.s: bench.client.close(SENDER, s, now))
        accepted = bench.accept()
        bench.world.command("server", lambda now, s=accepted.s: bench.server.close(SOURCE, s, now))
        bench.world.run_until(bench.world.now + SECOND)
    assert bench.listener.owner.waiting == 0
    bench.nothing_is_left()


def test_more_closed_connections_than_may_linger_are_cut():
    bench = Bench(Quotas(lingering=2))
    callers = bench.connect(5)
    accepted = [bench.accept() for _ in callers]
    for caller in callers:  # the peer never finishes its direction
        bench.world.command("client", lambda now, s=caller.s: bench.client.close(SENDER, s, now))
    bench.world.run_until(bench.world.now + SECOND)
    assert len(bench.client.core.lingering) == 2
    assert [one.socket.error for one in accepted] == [None] * 2 + [WsaErrno.WSAECONNRESET] * 3
    assert [one.socket.session.peer_finished for one in accepted[:2]] == [True] * 2
    bench.nothing_is_left()


@pytest.mark.parametrize("kind", ["killed", "listener closed"])
def test_the_end_of_many_is_spread_and_others_go_on(kind):
    bench = Bench(Quotas())
    world, client, server = bench.world, bench.client, bench.server
    callers = bench.connect(50)
    if kind == "killed":
        accepted = [bench.accept() for _ in callers]
        assert len(accepted) == 50
    before = len(server.core.descriptors)
    if kind == "killed":
        world.command("server", lambda now: server.detach(SOURCE, now))
    else:
        world.command("server", lambda now: server.close(SOURCE, bench.listener.s, now))
    assert before - len(server.core.descriptors) <= AT_ONCE + 1
    assert bench.run.server.poll_timeout() == world.now + MILLISECOND
    other = server.socket(TARGET, 2, 1, 0, world.now)  # a command in between, and no more is ended by it
    assert before - len(server.core.descriptors) <= AT_ONCE + 1
    world.run_until(world.now + 50 * MILLISECOND)
    assert list(server.core.descriptors) == [other.s]
    world.run_until(world.now + SECOND)
    assert {caller.socket.error for caller in callers} == {WsaErrno.WSAECONNRESET}
    assert client.core.processes
    bench.nothing_is_left()


def test_a_channel_that_was_tampered_with_aborts_its_connection():
    bench = Bench(Quotas())
    (caller,) = bench.connect()
    accepted = bench.accept()
    world = bench.world
    world.command(
        "client", lambda now: bench.client.channel_revoked(caller.s, b"x" * 10, b"", False, now, overflow=True)
    )
    world.run_until(world.now + SECOND)
    assert accepted.socket.error is WsaErrno.WSAECONNRESET
    assert not accepted.socket.session.unread
    bench.nothing_is_left()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){0,5}", fullmatch=True), st.integers(0, 65_535))
def test_any_text_as_an_address_is_a_connect_or_an_error(ip, port):
    run = build(1, 0.0)
    half = run.server.half
    half.attach(SOURCE, "", 0)
    one = half.socket(SOURCE, 2, 1, 0, 0)
    allowed = ("WSAEADDRNOTAVAIL", "WSAEHOSTUNREACH", "WSAENETUNREACH", "WSAEADDRINUSE")
    other = half.socket(SOURCE, 2, 1, 0, 0)
    for call in (
        lambda now: half.connect(SOURCE, one.s, (ip, port), now),
        lambda now: half.bind(SOURCE, other.s, (ip, port), now),
    ):
        try:
            run.world.command("server", call)
        except WsaError as error:
            wsa = error.wsa
        else:
            wsa = None
        assert wsa is None or wsa.name in allowed
