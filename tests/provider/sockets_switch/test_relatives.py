"""What was inherited over fork, in virtual time: who has control after which use, close and death."""

import pytest

from fabric.ids import ProcessInstance
from fabric.units import SECOND
from provider.errors import WsaErrno, WsaError
from provider.handoff.decisions import Holder
from provider.sockets_switch import events
from tests.support.handoff_run import SENDER, SOURCE, TARGET, build

CHILD, OTHER = ProcessInstance(30, 1), ProcessInstance(31, 1)


@pytest.fixture
def family():
    """A run with a connection between ``peer`` and ``parent``, which is SOURCE's, and CHILD's inherited ``child``."""
    run = build(1, 0.0)
    world, client, server = run.world, run.client.half, run.server.half
    client.attach(SENDER, "", 0)
    for process in (SOURCE, TARGET, CHILD, OTHER):
        server.attach(process, "", 0)
    listener = client.socket(SENDER, 2, 1, 0, 0)
    client.bind(SENDER, listener.s, ("0.0.0.0", 7000), 0)
    client.listen(SENDER, listener.s, 5, 0)
    run.parent = server.socket(SOURCE, 2, 1, 0, 0)
    world.command("server", lambda now: server.connect(SOURCE, run.parent.s, ("10.77.0.1", 7000), now))
    run.wait(events.ChannelOpened)
    world.run_until(world.now + SECOND)
    run.peer = world.command("client", lambda now: client.accept(SENDER, listener.s, now))
    run.child = inherit(run, run.parent, CHILD)
    run.seen.clear()
    return run


def command(run, function, *arguments):
    return run.world.command("server", lambda now: function(*arguments, now))


def inherit(run, descriptor, child):
    return command(run, run.server.half.relatives.inherit, descriptor.owner.process, descriptor.s, child)


def take(run, descriptor):
    command(run, run.server.half.relatives.take, descriptor)


def sends(run, descriptor, data):
    """What ``descriptor`` sends arrives at the peer."""
    command(run, run.server.half.send, descriptor.s, data)
    run.world.run_until(run.world.now + SECOND)
    assert run.client.half.peek(run.peer.s, 1000) == data
    run.world.command("client", lambda now: run.client.half.consume(run.peer.s, len(data), now))


def owner(run):
    return run.server.half.core.controlling(run.parent.socket)


def test_use_takes_control_to_and_fro(family):
    assert owner(family) is family.parent
    for number, user in enumerate([family.child, family.parent] * 3, 1):
        take(family, user)
        assert owner(family) is user
        assert [d.has_channel for d in (family.parent, family.child)].count(True) == 1
        assert family.server.half.core.registry.epoch(family.parent.socket.number) == number
        sends(family, user, b"use")
    assert not [e for _, e in family.seen if isinstance(e, events.DuplicateDone)]  # no ticket was ever out


def test_only_relatives_take(family):
    command(family, family.server.half.duplicate, SOURCE, family.parent.s, TARGET, "local")
    with pytest.raises(WsaError) as refused:
        take(family, family.child)  # a ticket is out
    assert refused.value.wsa is WsaErrno.WSAEINVAL
    stranger = command(family, family.server.half.redeem, TARGET, family.wait(events.DuplicateDone).info)
    for each in (family.child, family.parent):
        with pytest.raises(WsaError) as refused:
            take(family, each)
        assert refused.value.wsa is WsaErrno.WSAEINVAL
    assert owner(family) is stranger


def test_a_grandchild_is_a_relative_of_all(family):
    grandchild = inherit(family, family.child, OTHER)
    take(family, grandchild)
    take(family, family.parent)
    take(family, grandchild)
    sends(family, grandchild, b"grandchild")


@pytest.mark.parametrize("used", [False, True])
def test_the_death_of_one_leaves_the_connection_to_another(family, used):
    take(family, family.child)
    if used:
        sends(family, family.child, b"used")
    command(family, family.server.half.detach, CHILD)
    assert family.wait(events.ControlReturned).s == family.parent.s
    sends(family, family.parent, b"parent")


@pytest.mark.parametrize("claimed", [False, True])
def test_who_closes_last_in_truth_decides_how_the_connection_ends(family, claimed):
    """The parent closes and the child, which never asks for it, ends a moment later: that is no reset."""
    command(family, family.server.half.close, SOURCE, family.parent.s)
    assert family.wait(events.ControlReturned).s == family.child.s
    if claimed:
        family.server.half.claimed(family.child.s)
    command(family, family.server.half.detach, CHILD)
    family.world.run_until(family.world.now + SECOND)
    ends = [type(e) for n, e in family.seen if n == "client"]
    assert (events.ChannelReset in ends, events.PeerFinished in ends) == (claimed, not claimed)


def test_relatives_of_a_listener_accept_side_by_side(family):
    run, half = family, family.server.half
    listener = half.socket(SOURCE, 2, 1, 0, 0)
    half.bind(SOURCE, listener.s, ("0.0.0.0", 7001), 0)
    half.listen(SOURCE, listener.s, 5, 0)
    heirs = [inherit(run, listener, child) for child in (CHILD, OTHER)]
    callers = [run.client.half.socket(SENDER, 2, 1, 0, 0) for _ in range(3)]
    for caller in callers:
        connect = lambda now, s=caller.s: run.client.half.connect(SENDER, s, ("10.77.0.2", 7001), now)  # noqa: E731
        run.world.command("client", connect)
    run.world.run_until(run.world.now + SECOND)
    taken = [command(run, half.accept, d.owner.process, d.s) for d in (*heirs, listener)]
    assert [d.owner.process for d in taken] == [CHILD, OTHER, SOURCE]
    assert half.core.controlling(listener.socket) is listener
    command(run, half.detach, SOURCE)
    assert half.core.controlling(listener.socket) is heirs[-1]  # and the port is served on
    for descriptor in taken[:2]:
        command(run, half.send, descriptor.s, b"served")
    run.world.run_until(run.world.now + SECOND)
    assert sum(run.client.half.peek(c.s, 10) == b"served" for c in callers) == 2


def test_joining_and_taking_in_the_registry(family):
    registry = family.server.half.core.registry
    number = family.parent.socket.number
    assert not registry.is_untouched(number)
    take(family, family.child)
    assert registry.is_untouched(number)
    registry.used(number)
    assert not registry.is_untouched(number)
    assert registry.controlling(number) == Holder(CHILD, family.child.s)
    assert registry.statistics().tickets == 0
