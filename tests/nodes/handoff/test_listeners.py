"""A listener is handed over with all that waits at it, and comes back when the hand-over fails."""

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.labs import wait_until
from tests.support.puppet import PuppetError, until

pytestmark = pytest.mark.live
WSAEINVAL = 10022


@pytest.fixture
def listening(puppets):
    """(caller on client, source, target on server): the source listens, the caller's ``c1`` waits there unaccepted."""
    caller, source, target = puppets("client"), puppets("server"), puppets("server")
    source.run("l = socket.create_server(('', 0)); l.settimeout(20)")
    port = source.run("l.getsockname()[1]")
    caller.run(f"port = {port}")
    call(caller, "c1")
    return caller, source, target


def call(caller, name):
    caller.run(f"{name} = socket.create_connection(('server', port), timeout=20); {name}.sendall(b'{name}')")


def accepted(process):
    """What the next connection says first."""
    process.run("c, _ = l.accept(); c.settimeout(20)")
    return process.run(read_exactly("2")).decode()


def ticket_for(source, target):
    return source.run(f"l.share({target.pid})")


def test_the_target_accepts_what_waited_and_what_comes(listening):
    caller, source, target = listening
    info = ticket_for(source, target)
    call(caller, "c2")  # while the ticket is out
    target.run("l = socket.fromshare(info); l.settimeout(20)", info=info)
    call(caller, "c3")
    assert [accepted(target) for _ in range(3)] == ["c1", "c2", "c3"]
    target.run("c.sendall(bytes(100_000))")
    assert caller.run(read_exactly("100_000").replace("c.recv", "c3.recv")) == bytes(100_000)
    with pytest.raises(PuppetError) as refused:
        source.run("l.accept()")
    assert refused.value.wsa == WSAEINVAL
    assert target.run("select.select([l], [], [], 0)[0] == []")


def test_what_waited_belongs_to_the_target_and_can_be_handed_on(listening):
    caller, source, target = listening
    target.run("l = socket.fromshare(info); l.settimeout(20)", info=ticket_for(source, target))
    assert accepted(target) == "c1"
    source.run("c = socket.fromshare(info); c.settimeout(20)", info=target.run(f"c.share({source.pid})"))
    caller.run("c1.sendall(b'on')")
    assert source.run(read_exactly("2")) == b"on"


def test_the_source_may_be_dead_when_the_target_takes_it_over(listening):
    caller, source, target = listening
    info = ticket_for(source, target)
    source.kill()
    call(caller, "c2")
    target.run("l = socket.fromshare(info); l.settimeout(20)", info=info)
    assert [accepted(target), accepted(target)] == ["c1", "c2"]


def test_the_source_has_it_back_when_the_target_dies_first(listening):
    caller, source, target = listening
    ticket_for(source, target)
    source.start("a, _ = l.accept(); a.recv(2)")  # waits, or is refused, while the ticket is out
    with pytest.raises(PuppetError) as refused:
        source.result()
    assert refused.value.wsa == WSAEINVAL
    call(caller, "c2")
    target.kill()
    until(source, "l._call('status')['returned']")
    assert [accepted(source), accepted(source)] == ["c1", "c2"]


def test_the_source_has_it_back_when_the_target_closes_it(listening):
    caller, source, target = listening
    target.run("l = socket.fromshare(info); l.settimeout(20)", info=ticket_for(source, target))
    assert accepted(target) == "c1"
    call(caller, "c2")
    target.run("l.close()")
    call(caller, "c3")
    assert [accepted(source), accepted(source)] == ["c2", "c3"]


def test_it_goes_to_and_fro(listening):
    caller, source, target = listening
    target.run("l = socket.fromshare(info); l.settimeout(20)", info=ticket_for(source, target))
    source.run("l.close(); l = socket.fromshare(info); l.settimeout(20)", info=ticket_for(target, source))
    call(caller, "c2")
    assert [accepted(source), accepted(source)] == ["c1", "c2"]


def test_a_ticket_that_nobody_redeems_ends_the_listener_of_a_dead_source(lab, listening):
    caller, source, target = listening
    ticket_for(source, target)
    source.kill()
    target.kill()
    wait_until(lambda: not lab.ask("server", "ps")["sockets"])
    with pytest.raises(PuppetError) as reset:
        caller.run("c1.recv(1)")
    assert "ConnectionResetError" in reset.value.kinds


@pytest.mark.parametrize("made", ["socket.socket()", "socket.socket(); l.bind(('', 7345))"])
def test_a_socket_without_a_connection_yet(puppets, made):
    source, target, peer = puppets("server"), puppets("server"), puppets("client")
    source.run(f"l = {made}")
    name = source.run("l.getsockname()")
    target.run("l = socket.fromshare(info); l.settimeout(20)", info=ticket_for(source, target))
    assert target.run("l.getsockname()") == name
    peer.run("p = socket.create_server(('', 7346))")
    target.run("l.connect(('client', 7346)); l.sendall(b'hi')")
    assert peer.run("c, _ = p.accept(); c.recv(2)") == b"hi"
