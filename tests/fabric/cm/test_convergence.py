"""Whatever the wire loses, doubles and reorders, both sides agree in bounded time, and nothing is left behind.

Each run is one seed; a failing seed stands in the test's id and replays exactly.
"""

import random

import pytest

from fabric.cm.config import timeout_of
from fabric.cm.manager import (
    ConnectFailed,
    Disconnected,
    Established,
    Rejected,
    ReplyReceived,
    RequestReceived,
    TimewaitEnded,
)
from fabric.units import MILLISECOND, SECOND
from tests.support.cm_pair import CmHost, CmWire, oblige

PATIENCE = 9 * timeout_of(16)
OPEN = ("ESTABLISHED",)
OVER = ("TIMEWAIT", "CLOSED")


def bad_wire(wire: CmWire, loss: float) -> None:
    """Lose ``loss``, double a fifth, deliver after 1 to 600 ms in any order (the response timeout is 268 ms)."""
    rng = random.Random(wire.seed)

    def fate(sender, message):
        copies = 1 + (rng.random() < 0.2)
        return tuple(
            rng.choice((1, 2, 2, 3, 50, 300, 600)) * MILLISECOND for _ in range(copies) if rng.random() >= loss
        )

    wire.fate = fate


def erratic(host: CmHost, event) -> None:
    """A consumer that accepts mostly, rejects now and then, delays or forgets to answer, asks for time."""
    rng, now = host.wire.rng, host.wire.now
    roll = rng.random()
    if isinstance(event, RequestReceived | ReplyReceived) and roll < 0.1:
        host.manager.reject(event.comm_id, now=now)
    elif isinstance(event, RequestReceived | ReplyReceived) and roll < 0.2:
        host.manager.mra(event.comm_id, now, service_timeout=rng.choice((10, 16, 18)))
        if roll < 0.15:
            oblige(host, event)
    elif isinstance(event, RequestReceived | ReplyReceived) and roll < 0.25:
        host.manager.disconnect(event.comm_id, now)
    elif roll > 0.05:
        oblige(host, event)


def check_one_ending(host: CmHost) -> None:
    """At most one terminal event per connection, then one TimewaitEnded, then nothing."""
    for comm_id in set(host.used_ids):
        mine = [event for event in host.events if event.comm_id == comm_id]
        endings = [event for event in mine if isinstance(event, Rejected | ConnectFailed | Disconnected)]
        assert len(endings) <= 1, mine
        assert sum(isinstance(event, Established) for event in mine) <= 1, mine
        assert [type(event) for event in mine].count(TimewaitEnded) == 1, mine
        assert isinstance(mine[-1], TimewaitEnded), mine


def check_all_released(wire: CmWire) -> None:
    for host in (wire.a, wire.b):
        core, statistics = host.manager._core, host.manager.statistics()
        assert (statistics.connections, statistics.half_open, statistics.timewait) == (0, 0, 0)
        assert (core.by_pair, core.by_request, core.deadlines._live) == ({}, {}, {})
        assert host.manager.poll_timeout() is None
        check_one_ending(host)


@pytest.mark.parametrize("seed", range(60))
def test_obliging_sides_agree_on_every_connection(seed: int):
    wire = CmWire(seed=seed)
    bad_wire(wire, loss=0.3)
    ids = [wire.a.connect(wire.b) for _ in range(4)]
    wire.run(4 * PATIENCE)
    for comm_id in ids:
        theirs = [event.comm_id for event in wire.b.of(RequestReceived) if event.request.local_comm_id == comm_id]
        is_open = wire.a.state(comm_id) in OPEN
        assert is_open or wire.a.state(comm_id) in OVER
        assert [wire.b.state(other) in OPEN for other in theirs].count(True) == is_open
        assert all(wire.b.state(other) in OPEN + OVER for other in theirs)
        assert is_open == (wire.b.of(Established).count(Established(theirs[-1])) == 1) if theirs else not is_open
    for comm_id in ids:
        wire.a.command("disconnect", comm_id)
    wire.run(6 * PATIENCE)
    if any(host.state(comm_id) != "CLOSED" for host in (wire.a, wire.b) for comm_id in host.used_ids):
        # every DREQ got lost: the side that never heard of it still has its queue pair, which will tell it
        for comm_id in wire.b.used_ids:
            wire.b.command("disconnect", comm_id)
        wire.run(6 * PATIENCE)
    check_all_released(wire)


def test_most_connections_survive_thirty_percent_loss():
    reached = 0
    for seed in range(40):
        wire = CmWire(seed=seed)
        bad_wire(wire, loss=0.3)
        comm_id = wire.a.connect(wire.b)
        wire.run(4 * PATIENCE)
        reached += wire.a.state(comm_id) == "ESTABLISHED"
    assert reached >= 38


@pytest.mark.parametrize("seed", range(100))
def test_erratic_consumers_leave_nothing_behind(seed: int):
    wire = CmWire(seed=seed)
    wire.a.manager.listen(0x1_0000 | 80)
    bad_wire(wire, loss=wire.rng.choice((0.0, 0.1, 0.4)))
    wire.a.react = wire.b.react = erratic
    for _ in range(12):
        roll = wire.rng.random()
        if roll < 0.5:
            wire.a.connect(wire.b)
        elif roll < 0.7:
            wire.b.connect(wire.a, service_id=0x1_0000 | 80)
        else:
            host = wire.rng.choice((wire.a, wire.b))
            if host.used_ids:
                host.command("disconnect", wire.rng.choice(host.used_ids))
        wire.run(wire.rng.choice((0, 1, 5, 400)) * MILLISECOND)
    for _ in range(3):
        for host in (wire.a, wire.b):
            for comm_id in list(host.used_ids):
                host.command("disconnect", comm_id)
        wire.run(30 * SECOND)
    check_all_released(wire)


def test_dead_peer_is_given_up_in_bounded_time():
    wire = CmWire()
    a, b = wire.established()
    wire.fate = lambda sender, message: ()
    fresh = wire.a.connect(wire.b)
    wire.a.command("disconnect", a)
    wire.run(PATIENCE + 1)
    assert wire.a.of(ConnectFailed) == [ConnectFailed(fresh)]
    assert wire.a.of(Disconnected) == [Disconnected(a, False, b"")]
    assert wire.b.state(b) == "ESTABLISHED"  # only its queue pair can know
    wire.run(SECOND)
    assert wire.a.manager.statistics().connections == 0
