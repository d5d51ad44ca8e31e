"""Hand-overs of the agent half in virtual time: what follows on the heels of one that was given up."""

from dataclasses import replace

import pytest

from fabric.units import SECOND
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch import events
from tests.support.handoff_run import SENDER, SOURCE, TARGET, build


@pytest.fixture
def connected():
    """A run with a connection whose server end, ``source``, is SOURCE's."""
    run = build(1, 0.0)
    world, client, server = run.world, run.client.half, run.server.half
    for stack, process in ((run.client, SENDER), (run.server, SOURCE), (run.server, TARGET)):
        stack.half.attach(process, "", 0)
    listener = client.socket(SENDER, 2, 1, 0, 0)
    client.bind(SENDER, listener.s, ("0.0.0.0", 7000), 0)
    client.listen(SENDER, listener.s, 5, 0)
    run.source = server.socket(SOURCE, 2, 1, 0, 0)
    world.command("server", lambda now: server.connect(SOURCE, run.source.s, ("10.77.0.1", 7000), now))
    run.wait(events.ChannelOpened)
    world.run_until(world.now + SECOND)
    run.seen.clear()
    return run


def duplicate(run):
    server = run.server.half
    return run.world.command("server", lambda now: server.duplicate(SOURCE, run.source.s, TARGET, "suspend", now))


def test_another_one_before_the_peer_answered_the_first_is_told_to_wait(connected):
    run = connected
    duplicate(run)
    run.world.command("server", lambda now: run.server.half.detach(TARGET, now))  # before any answer can have come
    run.wait(events.ControlReturned)
    run.server.half.attach(TARGET, "", run.world.now)
    with pytest.raises(WsaError) as refused:
        duplicate(run)
    assert refused.value.wsa is WsaErrno.WSAENOBUFS
    assert "try again" in refused.value.text
    run.world.run_until(run.world.now + SECOND)
    duplicate(run)
    info = run.wait(events.DuplicateDone).info
    taken = run.world.command("server", lambda now: run.server.half.redeem(TARGET, info, now))
    assert run.server.half.core.controlling(taken.socket) is taken


@pytest.mark.parametrize("mode", ["suspend", "local", "rehome"])
@pytest.mark.parametrize("taken", [False, True])
def test_the_peer_goes_while_the_ticket_is_out(connected, mode, taken):
    run, server = connected, connected.server.half
    run.world.command("server", lambda now: server.duplicate(SOURCE, run.source.s, TARGET, mode, now))
    info = run.wait(events.DuplicateDone).info
    run.world.command("client", lambda now: run.client.half.detach(SENDER, now))
    run.world.run_until(run.world.now + SECOND)
    if taken:
        run.world.command("server", lambda now: server.redeem(TARGET, info, now))
    else:
        run.wait(events.ControlReturned)  # the ticket expires
    run.world.run_until(run.world.now + SECOND)
    assert run.source.socket.error is WsaErrno.WSAECONNRESET
    for process in (SOURCE, TARGET):
        run.world.command("server", lambda now, process=process: server.detach(process, now))
    run.world.run_until(run.world.now + 200 * SECOND)
    left = run.server.statistics()
    assert (left.sockets, left.descriptors, left.endpoints, left.parked) == (0, 0, 0, 0)


@pytest.mark.parametrize("end", ["close", "detach"])
@pytest.mark.parametrize("target", [TARGET, SOURCE])
def test_what_comes_back_to_the_source_can_be_handed_over_again(connected, end, target):
    run, server = connected, connected.server.half
    world = run.world
    world.command("server", lambda now: server.duplicate(SOURCE, run.source.s, target, "suspend", now))
    info = run.wait(events.DuplicateDone).info
    taken = world.command("server", lambda now: server.redeem(target, info, now))
    if end == "close" or target is SOURCE:
        world.command("server", lambda now: server.close(target, taken.s, now))
    else:
        world.command("server", lambda now: server.detach(target, now))
        world.command("server", lambda now: server.attach(target, "", now))
    world.run_until(world.now + SECOND)
    assert server.core.controlling(run.source.socket) is run.source
    run.seen.clear()
    world.command("server", lambda now: server.duplicate(SOURCE, run.source.s, TARGET, "suspend", now))
    info = run.wait(events.DuplicateDone).info
    taken = world.command("server", lambda now: server.redeem(TARGET, info, now))
    world.command("server", lambda now: server.close(SOURCE, run.source.s, now))
    assert [len(server.core.process(process).provider) for process in (SOURCE, TARGET)] == [0, 1]
    for process in (SOURCE, TARGET):
        world.command("server", lambda now, process=process: server.detach(process, now))
    world.run_until(world.now + 200 * SECOND)
    left = run.server.statistics()
    assert (left.sockets, left.descriptors, left.endpoints, left.parked) == (0, 0, 0, 0)
    assert not server.core.companions


@pytest.mark.parametrize("mode", ["suspend", "local"])
@pytest.mark.parametrize("how", ["dies untouched", "closes"])
def test_what_came_back_after_the_commit_can_be_handed_over_again(connected, mode, how):
    run, server = connected, connected.server.half

    def hand_over(target):
        run.seen.clear()
        run.world.command("server", lambda now: server.duplicate(SOURCE, run.source.s, target, mode, now))
        info = run.wait(events.DuplicateDone).info
        return run.world.command("server", lambda now: server.redeem(target, info, now))

    taken = hand_over(TARGET)
    if how == "closes":
        run.world.command("server", lambda now: server.close(TARGET, taken.s, now))
    else:
        run.world.command("server", lambda now: server.detach(TARGET, now))
    assert run.wait(events.ControlReturned).s == run.source.s
    run.world.run_until(run.world.now + SECOND)
    other = replace(TARGET, pid=TARGET.pid + 1)
    server.attach(other, "", run.world.now)
    taken = hand_over(other)
    run.world.run_until(run.world.now + SECOND)
    assert server.core.controlling(taken.socket) is taken
    assert not taken.socket.ended
    for process in (SOURCE, TARGET, other):
        run.world.command("server", lambda now, process=process: server.detach(process, now))
    run.world.command("client", lambda now: run.client.half.detach(SENDER, now))
    run.world.run_until(run.world.now + 200 * SECOND)
    left = run.server.statistics()
    assert (left.processes, left.sockets, left.descriptors, left.endpoints, left.parked) == (0, 0, 0, 0, 0)
