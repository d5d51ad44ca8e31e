"""Scenarios 1 to 28: what goes wrong up to the moment at which the target redeems its ticket."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from provider.errors import WsaErrno, WsaError
from provider.handoff import registry
from provider.sockets_switch.quotas import Quotas
from tests.conformance.scenarios.outcomes import aborted, completed, owned_by_one, peer_is_reset, returned, works
from tests.support.stage import Died, Party, SimulatedStage

T_TICKET = 5.0
T_SUSPEND = 10.0
Scenario = Callable[[SimulatedStage], None]


def refused(error: WsaErrno, call: Callable[[], object]) -> None:
    """``call`` fails with this error and no other."""
    with pytest.raises(WsaError) as raised:
        call()
    assert raised.value.wsa is error, raised.value


def hand_over(stage: SimulatedStage, to: Party | None = None) -> bytes:
    """Steps 2 to 8 without a fault."""
    to = to or stage.target
    info = stage.source.share(to)
    to.redeem(info)
    return info


def s01_the_source_dies_before_it_hands_over(stage: SimulatedStage) -> None:
    stage.source.kill()
    aborted(stage)


def s02_the_target_does_not_run(stage: SimulatedStage) -> None:
    stage.advance(1)  # nobody answers with a process id
    sessions = [socket.session for socket in stage.stacks["server"].core.sockets.values()]
    assert not any("SUSPEND" in dict(s.statistics().messages_sent) for s in sessions if s is not None)
    returned(stage)


def s03_the_target_names_another_process(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.third)
    refused(WsaErrno.WSAEINVAL, lambda: stage.target.redeem(info))
    stage.until(lambda: stage.source.usable, T_TICKET + 0.1)
    refused(WsaErrno.WSAEINVAL, lambda: stage.third.redeem(info))
    returned(stage)


def s04_the_process_id_comes_too_late_and_the_next_attempt_works(stage: SimulatedStage) -> None:
    stage.advance(6)
    works(stage, stage.source)
    stage.loaded = True
    hand_over(stage)
    completed(stage)


def s05_the_target_has_died_and_another_has_its_process_id(stage: SimulatedStage) -> None:
    stage.target.kill()
    info = stage.source.share(stage.target)
    reborn = Party(stage, "server", "reborn", stage.target.process.pid, stage.target.connection, 2)
    stage.parties.append(reborn)
    refused(WsaErrno.WSAEINVAL, lambda: reborn.redeem(info))
    returned(stage)


def s06_what_is_no_connection(stage: SimulatedStage) -> None:
    third, now = stage.third, stage.world.now
    half = third.half
    listener = third.call(lambda now: half.socket(third.process, 2, 1, 0, now))
    third.call(lambda now: half.listen(third.process, listener.s, 5, now))
    third.current = listener
    stage.target.redeem(third.share(stage.target))  # a listener moves
    stage.target.close()
    third.close()
    closed = listener.s
    refused(
        WsaErrno.WSAENOTSOCK,
        lambda: third.call(lambda now: half.duplicate(third.process, closed, stage.target.process, stage.mode, now)),
    )
    refused(
        WsaErrno.WSAENOTSOCK,
        lambda: third.call(lambda now: half.duplicate(third.process, 10**9, stage.target.process, stage.mode, now)),
    )
    assert stage.world.now >= now
    returned(stage)


def s07_a_process_that_does_not_exist(stage: SimulatedStage) -> None:
    nobody = Party(stage, "server", "nobody", 999, stage.target.connection)
    nobody.kill()
    stage.source.share(nobody)  # live agents ask the kernel and refuse; here the ticket can only expire
    stage.advance(T_TICKET + 0.1)
    returned(stage)


def s08_a_receive_is_pending(stage: SimulatedStage) -> None:
    known = len(stage.seen)
    hand_over(stage)
    told = [type(event).__name__ for _, event in stage.seen[known:] if getattr(event, "s", None) != stage.target.s]
    assert "PeerFinished" not in told, "receives that were taken back are no end of file (G7)"
    completed(stage)


def s09_a_send_is_in_flight_and_the_peer_does_not_read(stage: SimulatedStage) -> None:
    stage.loaded = False
    while stage.source.write(1 << 16):
        stage.advance(0.2)
    stage.source.write(1 << 20)
    hand_over(stage)  # what was accepted is the agent's; nothing has to be waited for
    completed(stage)


def s11_the_suspension_is_lost_once(stage: SimulatedStage) -> None:
    lost = stage.lose_message("SUSPEND", 1, "server->s1")
    hand_over(stage)
    assert lost() == (stage.mode != "local")
    completed(stage)


def s11_the_suspension_is_always_lost(stage: SimulatedStage) -> None:
    if stage.mode == "local":
        hand_over(stage)
        completed(stage)
        return
    lost = stage.lose_message("SUSPEND", 10**6, "server->s1")
    refused(WsaErrno.WSAENETDOWN, lambda: stage.source.share(stage.target))
    assert lost() > 5  # the reliable transport gave up: the connection is gone
    aborted(stage, T_SUSPEND)


def s12_the_answer_is_lost(stage: SimulatedStage) -> None:
    lost = stage.lose_message("SUSPEND_ACK", 1, "client->s1")
    hand_over(stage)
    assert lost() == (stage.mode != "local")
    completed(stage)


def the_peer_is_gone(stage: SimulatedStage, answer: Callable[[], bytes]) -> None:
    """Handing over is refused; or, where nobody knew yet when it was done, the target finds out."""
    errors = []
    try:
        stage.target.redeem(answer())
    except WsaError as error:
        errors.append(error.wsa)
    assert errors in ([], [WsaErrno.WSAENETDOWN])
    assert errors or stage.mode == "local" or not stage.simulated
    stage.until(lambda: errors != [] or stage.target.try_use() is not None, 5)
    stage.until(lambda: not any(party.usable for party in stage.parties[1:]), 5)


def s13_the_peer_dies_meanwhile(stage: SimulatedStage) -> None:
    answer = stage.source.begin_share(stage.target)
    stage.peer.kill()
    the_peer_is_gone(stage, answer)


def s14_both_ends_hand_over_at_once(stage: SimulatedStage) -> None:
    heir = stage.another("client", "heir")
    stage.parties.append(heir)
    answers = [(stage.peer, heir), (stage.source, stage.target)]
    begun = [(giver, taker, giver.begin_share(taker)) for giver, taker in answers]
    owners, errors = {}, []
    for giver, taker, answer in begun:
        try:
            taker.redeem(answer())
            owners[giver] = taker
        except WsaError as error:
            errors.append(error.wsa)
            owners[giver] = giver
    assert errors in ([], [WsaErrno.WSAENOBUFS])  # who lost the tie may try again
    assert stage.target in owners.values() or heir in owners.values()
    stage.until(lambda: all(owner.usable for owner in owners.values()), T_SUSPEND)
    stage.parties.remove(heir)
    stage.bystanders.append(heir)
    works(stage, owners[stage.source], owners[stage.peer])
    stage.bystanders.remove(heir)
    stage.parties.append(heir)


def s15_the_peer_has_just_finished(stage: SimulatedStage) -> None:
    stage.loaded = False
    stage.peer.shutdown()
    hand_over(stage)
    target = stage.target
    stage.until(lambda: target.read() or stage.peer.writes.sent == target.reads.got, 20)
    stage.until(target.at_end, 5)  # the half-close came along (G23)
    sent = target.writes.sent + target.write(4000)
    stage.until(lambda: stage.peer.read() or stage.peer.reads.got == sent, 20)
    owned_by_one(stage, target)


def s15_the_peer_has_just_reset(stage: SimulatedStage) -> None:
    stage.peer.kill()
    the_peer_is_gone(stage, stage.source.begin_share(stage.target))


def s16_out_of_tickets(stage: SimulatedStage) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "TICKETS_PER_PROCESS", 0)
        refused(WsaErrno.WSAENOBUFS, lambda: stage.source.share(stage.target))
    returned(stage)


def s17_the_source_dies_between_the_answer_and_the_ticket(stage: SimulatedStage) -> None:
    stage.plan("handoff.ticket.before", "kill", "source")
    with contextlib.suppress(Died):  # in mode local all is done in one instant
        stage.source.share(stage.target)
    stage.advance(0.01)
    assert stage.fired()
    assert stage.source.dead
    # The ticket is recorded within the same instant, and nobody will ever redeem it.
    peer_is_reset(stage, T_TICKET + 0.2)


def s18_shared_twice(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    refused(WsaErrno.WSAEINVAL, lambda: stage.source.share(stage.third))
    stage.target.redeem(info)
    completed(stage)


def s19_the_source_dies_after_it_sent_the_ticket(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    stage.source.kill()
    stage.advance(1)
    stage.target.redeem(info)
    completed(stage)


def s20_the_ticket_gets_lost(stage: SimulatedStage) -> None:
    stage.source.share(stage.target)
    stage.until(lambda: stage.source.usable, T_TICKET + 0.1)
    returned(stage)


def s21_the_ticket_comes_twice(stage: SimulatedStage) -> None:
    info = hand_over(stage)
    refused(WsaErrno.WSAEINVAL, lambda: stage.target.redeem(info))
    completed(stage)


def s22_the_ticket_is_damaged(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    flipped = bytearray(info)
    flipped[stage.seed * 37 % len(info)] ^= 1
    foreign = stage.bystanders[0].share(stage.peer)  # good, but on another node
    for bad in (
        info[:-1],
        info + b"\0\0\0",
        bytes(flipped),
        bytes(len(info)),
        b"",
        info[:4] + b"\xff" + info[5:],
        foreign,
    ):
        refused(WsaErrno.WSAEINVAL, lambda bad=bad: stage.target.redeem(bad))
    stage.target.redeem(info)
    completed(stage)
    stage.until(lambda: stage.bystanders[0].usable, T_TICKET + 1)


def s23_the_source_goes_on_using_it(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    if stage.simulated:
        assert not stage.source.half.send_space(stage.source.s)
        assert stage.source.half.peek(stage.source.s, 1) == b""
    refused(WsaErrno.WSAEINVAL, stage.source.shutdown)
    refused(WsaErrno.WSAEINVAL, lambda: stage.source.option(0xFFFF, 0x0008, 1))
    refused(WsaErrno.WSAEINVAL, lambda: stage.source.share(stage.third))
    assert stage.source.option(0xFFFF, 0x1007) == 0  # reading an option is allowed (G6)
    stage.target.redeem(info)
    completed(stage)


def s24_the_source_closes_before_the_target_redeems(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    stage.source.close()
    stage.advance(1)
    stage.target.redeem(info)
    completed(stage)


def s25_a_third_process_gets_the_ticket_first(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    refused(WsaErrno.WSAEINVAL, lambda: stage.third.redeem(info))
    stage.target.redeem(info)
    completed(stage)


def s26_the_target_dies_before_it_redeems(stage: SimulatedStage) -> None:
    stage.source.share(stage.target)
    stage.target.kill()
    stage.until(lambda: stage.source.usable, T_TICKET / 5)
    returned(stage)


def s27_the_target_is_out_of_descriptors(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    target, core = stage.target, stage.target.half.core
    target.call(lambda now: target.half.socket(target.process, 2, 1, 0, now))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "config", replace(core.config, quotas=Quotas(sockets_per_process=1)))
        refused(WsaErrno.WSAEMFILE, lambda: stage.target.redeem(info))
    stage.target.redeem(info)  # the ticket was not used up
    completed(stage)


def s28_what_follows_the_commit_is_lost(stage: SimulatedStage) -> None:
    info = stage.source.share(stage.target)
    lost = stage.lose_message("REMAKE" if stage.mode == "rehome" else "RESUME", 1, "server->s1")
    stage.target.redeem(info)
    completed(stage)
    assert lost() == (stage.mode != "local")
