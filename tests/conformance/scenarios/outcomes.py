"""What a scenario ends in, and how that is checked: the words of handoff.md 7, and G17 after each of them."""

from provider.errors import WsaErrno
from tests.support.stage import Party, SimulatedStage

LOST = (WsaErrno.WSAECONNRESET, WsaErrno.WSAECONNABORTED, WsaErrno.WSAENETDOWN, WsaErrno.WSAETIMEDOUT)
ENOUGH = 5_000
"""Bytes each way that show that a connection works."""


def works(stage: SimulatedStage, owner: Party, peer: Party | None = None) -> None:
    """Bytes go both ways between ``owner`` and the peer, and nothing that was sent before is missing."""
    peer = peer or stage.peer
    stage.loaded = False
    into, out = peer.writes.sent + ENOUGH, owner.writes.sent + ENOUGH

    def done() -> bool:
        peer.write(into - peer.writes.sent)
        owner.write(out - owner.writes.sent)
        owner.read()
        peer.read()
        return owner.reads.got == into and peer.reads.got == out

    stage.until(done, 30)


def owned_by_one(stage: SimulatedStage, owner: Party | None) -> None:
    """At most one process of the host can use the connection: ``owner``."""
    able = [party.name for party in stage.parties[1:] if not party.dead and party.usable]
    assert able == ([owner.name] if owner is not None else [])


def returned(stage: SimulatedStage) -> None:
    """RETURN: the source owns the connection again, it is usable, and no byte is lost."""
    stage.until(lambda: stage.source.usable, 15)
    owned_by_one(stage, stage.source)
    assert stage.source.try_use() is None
    works(stage, stage.source)


def completed(stage: SimulatedStage, owner: Party | None = None) -> None:
    """COMPLETE: the target owns it, and no byte is lost."""
    owner = owner or stage.target
    owned_by_one(stage, owner)
    works(stage, owner)


def peer_is_reset(stage: SimulatedStage, seconds: float) -> None:
    """The peer hears of the end in time; what it has read is a prefix of what was sent."""
    stage.until(lambda: stage.peer.try_use() in LOST, seconds)
    assert not stage.peer.usable
    stage.peer.read()


def aborted(stage: SimulatedStage, seconds: float = 1.0) -> None:
    """ABORT: no process of the host can use it, the peer sees a reset within ``seconds``."""
    peer_is_reset(stage, seconds)
    stage.advance(0.1)  # it may be the peer that says so
    owned_by_one(stage, None)
    for party in stage.parties[1:]:
        if not party.dead and party.current is not None:
            assert party.try_use() is not None, party.name


def nothing_is_left(stage: SimulatedStage) -> None:
    """The other connection has noticed nothing; when all have gone so has everything else (G17)."""
    stage.cut(False)
    stage.filters.clear()
    stage.advance(1)
    if stage.bystanders:
        works(stage, *stage.bystanders[::-1])
    for party in [*stage.parties, *stage.bystanders]:
        party.kill()
    stage.advance(300)
    for host, stack in stage.stacks.items():
        left = stack.statistics()
        counted = (left.processes, left.sockets, left.descriptors, left.endpoints, left.parked)
        assert counted == (0,) * 5, f"{host}: {left}"
        assert (left.adapter.queue_pairs, left.registry.tickets, left.registry.sockets) == (0, 0, 0), f"{host}: {left}"  # type: ignore[attr-defined]
        assert stack.poll_timeout() is None, host
