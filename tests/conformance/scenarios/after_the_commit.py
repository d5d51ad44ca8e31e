"""Scenarios 29 to 46: what goes wrong once the target owns the connection, on the way back, and in great numbers."""

import contextlib
import random

from provider.errors import WsaErrno
from tests.conformance.scenarios.before_the_commit import T_TICKET, hand_over, refused
from tests.conformance.scenarios.outcomes import aborted, completed, owned_by_one, peer_is_reset, returned, works
from tests.support.stage import MODES, PORT, Died, Party, SimulatedStage

SOL_SOCKET, SO_KEEPALIVE = 0xFFFF, 0x0008


def redeem_and_die(stage: SimulatedStage, info: bytes) -> None:
    """The target is killed in the moment of the commit."""
    stage.plan("handoff.commit.after", "kill", "target")
    with contextlib.suppress(Died):
        stage.target.redeem(info)
    stage.until(lambda: stage.target.dead, 1)
    assert stage.fired()


def hand_back(stage: SimulatedStage) -> None:
    """Steps 10 to 15."""
    info = stage.target.share(stage.source)
    stage.target.close()
    stage.source.redeem(info)
    stage.source.close_dormant()


def s29_the_target_dies_before_it_uses_it_and_the_source_still_has_it(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    redeem_and_die(stage, info)
    returned(stage)


def s29_the_target_dies_before_it_uses_it_and_the_source_has_closed(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    stage.source.close()
    redeem_and_die(stage, info)
    peer_is_reset(stage, 11 if stage.mode == "rehome" else 1)


def s30_the_ticket_is_redeemed_in_its_last_moment(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    expiry = stage.source.half.core.registry.poll_timeout()
    assert expiry is not None
    stage.loaded = False
    stage.world.run_until(expiry - 1)
    stage.target.redeem(info)
    stage.world.run_until(expiry + 1)
    completed(stage)


def s30_the_ticket_is_redeemed_a_moment_too_late(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    expiry = stage.source.half.core.registry.poll_timeout()
    assert expiry is not None
    stage.loaded = False
    stage.world.run_until(expiry)
    refused(WsaErrno.WSAEINVAL, lambda: stage.target.redeem(info))
    returned(stage)


def s31_a_message_is_missing_after_the_resumption(stage: SimulatedStage) -> None:
    if stage.mode == "local":
        hand_over(stage)  # nothing is compared, and nothing is interrupted
        completed(stage)
        return
    info = stage.source.share(stage.target)
    session = stage.peer.current.socket.session  # type: ignore[union-attr]
    assert session is not None
    session._credits.received -= 1  # as if the fabric had lost one that it acknowledged
    stage.target.redeem(info)
    aborted(stage, 2)


def s32_the_source_was_stopped_and_goes_on(stage: SimulatedStage) -> None:
    stage.source.stop()
    info = stage.source.share(stage.target)
    stage.target.redeem(info)
    works(stage, stage.target)
    stage.source.go_on()
    old = stage.source.s
    assert stage.source.half.send_space(old) == 0
    assert stage.source.half.peek(old, 1) == b""
    refused(WsaErrno.WSAEINVAL, stage.source.shutdown)
    completed(stage)


def s33_the_target_dies_in_the_middle_of_it(stage: SimulatedStage) -> None:
    hand_over(stage)
    works(stage, stage.target)
    stage.target.kill()
    aborted(stage)  # no silent revival of the source


def s34_a_short_partition_delays(stage: SimulatedStage) -> None:
    hand_over(stage)
    stage.cut()
    stage.advance(stage.retry_budget / 2)
    stage.cut(False)
    completed(stage)


def s34_a_long_partition_ends_it_on_both_sides(stage: SimulatedStage) -> None:
    hand_over(stage)
    works(stage, stage.target)
    stage.loaded = True
    stage.cut()
    stage.target.write(1000)
    stage.peer.write(1000)
    for party in stage.bystanders:
        party.kill()  # it is cut off as well
    stage.bystanders.clear()
    stage.advance(stage.retry_budget * 2)
    stage.cut(False)
    aborted(stage, 1)


def s35_what_the_target_has_set_comes_back(stage: SimulatedStage) -> None:
    hand_over(stage)
    stage.target.option(SOL_SOCKET, SO_KEEPALIVE, 1)
    stage.target.shutdown()
    stage.advance(0.1)
    hand_back(stage)
    source = stage.source
    assert source.option(SOL_SOCKET, SO_KEEPALIVE) == 1
    session = source.current.socket.session  # type: ignore[union-attr]
    assert session is not None
    source.shutdown()  # once more changes nothing
    stage.advance(0.1)
    assert dict(session.statistics().messages_sent)["DISCONNECT"] == 1
    stage.loaded = False
    stage.peer.write(2000)
    stage.until(lambda: source.read() or source.reads.got == stage.peer.writes.sent, 20)
    owned_by_one(stage, source)


def s36_the_target_hands_it_to_a_third(stage: SimulatedStage) -> None:
    hand_over(stage)
    info = stage.target.share(stage.third)
    refused(WsaErrno.WSAEINVAL, lambda: stage.source.redeem(info))
    stage.third.redeem(info)
    completed(stage, stage.third)
    assert stage.source.try_use() is WsaErrno.WSAEINVAL


def s37_the_target_closes_and_dies_before_the_source_has_the_ticket(stage: SimulatedStage) -> None:
    hand_over(stage)
    info = stage.target.share(stage.source)
    stage.target.close()
    stage.target.kill()
    stage.advance(1)
    stage.source.redeem(info)
    stage.source.close_dormant()
    completed(stage, stage.source)


def s38_the_source_has_crashed_when_it_shall_come_back(stage: SimulatedStage) -> None:
    hand_over(stage)
    stage.source.kill()
    stage.target.share(stage.source)  # live agents ask the kernel and refuse; here the ticket can only expire
    stage.advance(T_TICKET + 0.1)
    assert stage.target.usable
    completed(stage)


def s39_the_descriptors_before_and_after_are_two(stage: SimulatedStage) -> None:
    hand_over(stage)
    info = stage.target.share(stage.source)
    stage.target.close()
    before = stage.source.s
    stage.source.redeem(info)
    assert stage.source.s != before
    session = stage.source.current.socket.session  # type: ignore[union-attr]
    assert session is not None
    stage.source.close_dormant()
    stage.advance(0.1)
    assert "DISCONNECT" not in dict(session.statistics().messages_sent)  # closing is no shutdown (G22)
    completed(stage, stage.source)


def s40_the_source_closes_without_having_read_all(stage: SimulatedStage) -> None:
    hand_over(stage)
    hand_back(stage)
    stage.loaded = False
    stage.peer.write(1000)
    stage.advance(0.2)
    stage.source.close()
    peer_is_reset(stage, 1)


def s40_the_source_closes_and_exits_with_unsent_bytes(stage: SimulatedStage) -> None:
    hand_over(stage)
    hand_back(stage)
    stage.loaded = False
    source, peer = stage.source, stage.peer
    stage.until(lambda: source.read() or source.reads.got == peer.writes.sent, 20)
    sent = source.writes.sent + source.write(200_000)
    peer.shutdown()
    stage.advance(0.1)
    source.close()
    source.kill()
    stage.until(lambda: peer.read() or peer.reads.got == sent, 20)  # the agent finishes sending
    stage.until(peer.at_end, 5)
    assert peer.try_use() is None


def s42_many_hand_overs_with_faults(stage: SimulatedStage) -> None:
    rng = random.Random(stage.seed)
    owner, other = stage.source, stage.target
    for number in range(60):
        mode = rng.choice(MODES)
        if rng.random() < 0.1:
            stage.lose_message(rng.choice(["SUSPEND", "SUSPEND_ACK", "RESUME", "REMAKE", "DATA"]), 1, "server->s1")
        info = owner.share(other, mode)
        if rng.random() < 0.1:
            stage.advance(T_TICKET + 0.1)  # it gets lost
            stage.until(lambda owner=owner: owner.usable, 5)
            continue
        other.redeem(info)
        owner.close()
        if rng.random() < 0.1:
            refused(WsaErrno.WSAEINVAL, lambda info=info, other=other: other.redeem(info))
        owner, other = other, owner
        if number % 10 == 0:
            stage.advance(0.02)
    works(stage, owner)


def s43_fifty_connections_at_once(stage: SimulatedStage) -> None:
    pairs = []
    for number in range(50):
        connection = type(stage.peer.connection)(5000 + number)
        peer = Party(stage, "client", "peer", 100 + number, connection)
        source = Party(stage, "server", "source", 200 + number, connection)
        target = Party(stage, "server", "target", 300 + number, connection)
        stage.connect(peer, source, PORT + 10 + number)
        stage.bystanders += [peer, source, target]
        pairs.append((peer, source, target))
    answers = [source.begin_share(target) for _, source, target in pairs]
    for (_, _, target), answer in zip(pairs, answers, strict=True):
        target.redeem(answer())
    for peer, _, target in pairs:
        works(stage, target, peer)
    stage.bystanders, gone = stage.bystanders[:2], stage.bystanders[2:]
    for party in gone:
        party.kill()
    hand_over(stage)
    completed(stage)


def s45_an_hour_passes_between_share_and_redeem(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    stage.loaded = False
    stage.advance(3600)
    refused(WsaErrno.WSAEINVAL, lambda: stage.target.redeem(info))
    returned(stage)


def s46_the_link_flaps_during_the_suspension(stage: SimulatedStage) -> None:
    answer = stage.source.begin_share(stage.target)
    for _ in range(10):
        stage.cut()
        stage.advance(0.01)
        stage.cut(False)
        stage.advance(0.003)
    stage.target.redeem(answer())
    completed(stage)
