"""The registry's decisions, by the scenarios of handoff.md section 7 that it decides."""

import pytest

from fabric.errors import IllegalTransition
from fabric.ids import ProcessInstance, SocketDescriptor
from provider.errors import WsaErrno, WsaError
from provider.handoff import registry as module
from provider.handoff.registry import (
    ControlMoved,
    ControlReturned,
    Holder,
    LastReferenceClosed,
    SocketAborted,
    TransferId,
)
from tests.support.handoff import LIFETIME, SOCKET, SOURCE, TARGET, THIRD, Bench


def fails(number: WsaErrno, bench: Bench, source: Holder, socket_id: int = SOCKET) -> None:
    before = bench.registry.statistics()
    with pytest.raises(WsaError) as caught:
        bench.begin(source, socket_id=socket_id)
    assert caught.value.wsa is number
    assert bench.registry.statistics() == before


def test_the_seventeen_steps() -> None:
    """Out and back; the creator's old descriptor stays closable and the last reference decides (U16, both orders)."""
    for close_first in (True, False):
        bench = Bench()
        old = bench.opened()
        worker = bench.redeem(bench.ticket(old))
        back = bench.ticket(worker, SOURCE)
        if close_first:
            bench.registry.close(worker, bench.now)
        new = bench.redeem(back, SOURCE)
        if not close_first:
            bench.registry.close(worker, bench.now)
        assert bench.registry.epoch(SOCKET) == 2
        assert bench.registry.may_use(SOCKET, new)
        assert not bench.registry.may_use(SOCKET, old)
        bench.registry.close(old, bench.now)
        assert bench.registry.may_use(SOCKET, new)
        bench.registry.close(new, bench.now)
        moved = [ControlMoved(SOCKET, worker, 1), ControlMoved(SOCKET, new, 2)]
        assert bench.events() == [*moved, LastReferenceClosed(SOCKET)]
        assert bench.is_at_baseline()


def test_scenario_3_4_20_an_unredeemed_ticket_expires_and_a_later_handoff_works() -> None:
    bench = Bench()
    source = bench.opened()
    bench.ticket(source)
    assert bench.registry.poll_timeout() == LIFETIME
    bench.now = LIFETIME - 1
    bench.registry.handle_timeout(bench.now)
    assert bench.registry.controlling(SOCKET) is None
    bench.now = LIFETIME
    bench.registry.handle_timeout(bench.now)
    assert bench.events() == [ControlReturned(SOCKET, source, 0, "the ticket expired")]
    assert bench.registry.may_use(SOCKET, source)
    assert bench.registry.poll_timeout() is None
    assert bench.registry.may_use(SOCKET, bench.redeem(bench.ticket(source)))


def test_scenario_6_38_who_may_not_duplicate() -> None:
    bench = Bench()
    source = bench.opened()
    fails(WsaErrno.WSAENOTSOCK, bench, Holder(SOURCE, SocketDescriptor(999)))
    fails(WsaErrno.WSAENOTSOCK, bench, source, socket_id=SOCKET + 1)
    bench.redeem(bench.ticket(source))
    fails(WsaErrno.WSAEINVAL, bench, source)


def test_scenario_16_no_room_for_another_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICKETS_PER_PROCESS", 2)
    monkeypatch.setattr(module, "TICKETS_MAX", 3)
    bench = Bench()
    mine = [bench.opened(SOURCE, number) for number in (1, 2, 3)]
    others = [bench.opened(THIRD, number) for number in (4, 5)]
    bench.begin(mine[0], socket_id=1)
    bench.begin(mine[1], socket_id=2)
    fails(WsaErrno.WSAENOBUFS, bench, mine[2], socket_id=3)
    bench.begin(others[0], socket_id=4)
    fails(WsaErrno.WSAENOBUFS, bench, others[1], socket_id=5)
    assert bench.registry.may_use(3, mine[2])


def test_scenario_17_source_killed_before_the_ticket() -> None:
    bench = Bench()
    source = bench.opened()
    transfer = bench.begin(source)
    bench.registry.drained(transfer, bench.now)
    bench.registry.close(source, bench.now)
    aborted, last = bench.events()
    assert isinstance(aborted, SocketAborted)
    assert last == LastReferenceClosed(SOCKET)
    assert bench.is_at_baseline()


def test_scenario_18_a_second_duplicate_leaves_the_first_ticket_good() -> None:
    bench = Bench()
    source = bench.opened()
    info = bench.ticket(source)
    fails(WsaErrno.WSAEINVAL, bench, source)
    assert bench.registry.may_use(SOCKET, bench.redeem(info))


def test_scenario_19_24_the_ticket_keeps_the_socket_alive() -> None:
    bench = Bench()
    source = bench.opened()
    info = bench.ticket(source)
    bench.registry.close(source, bench.now)
    bench.registry.close(source, bench.now)
    bench.registry.process_exited(SOURCE, bench.now)
    assert bench.events() == []
    target = bench.redeem(info)
    bench.registry.close(target, bench.now)
    assert bench.events() == [ControlMoved(SOCKET, target, 1), LastReferenceClosed(SOCKET)]
    assert bench.is_at_baseline()


@pytest.mark.parametrize("how", ["expiry", "target exits"])
def test_a_ticket_that_alone_kept_the_socket_ends_in_abort(how: str) -> None:
    bench = Bench()
    source = bench.opened()
    bench.ticket(source)
    bench.registry.close(source, bench.now)
    if how == "expiry":
        bench.registry.handle_timeout(LIFETIME)
    else:
        bench.registry.process_exited(TARGET, bench.now)
    assert [type(event) for event in bench.events()] == [SocketAborted, LastReferenceClosed]
    assert bench.is_at_baseline()


def test_scenario_23_nobody_may_use_a_socket_in_transfer() -> None:
    bench = Bench()
    source = bench.opened()
    assert bench.registry.may_use(SOCKET, source)
    transfer = bench.begin(source)
    assert not bench.registry.may_use(SOCKET, source)
    bench.record(transfer)
    assert not bench.registry.may_use(SOCKET, source)
    assert bench.registry.controlling(SOCKET) is None


@pytest.mark.parametrize("stage", ["suspending", "drained", "ticketed"])
def test_scenario_7_26_target_dies_before_the_commit(stage: str) -> None:
    bench = Bench()
    source = bench.opened()
    transfer = bench.begin(source)
    if stage == "drained":
        bench.registry.drained(transfer, bench.now)
    if stage == "ticketed":
        bench.record(transfer)
    bench.registry.process_exited(ProcessInstance(TARGET.pid, TARGET.start_time + 1), bench.now)
    assert bench.events() == [], "another life of the same pid"
    bench.registry.process_exited(TARGET, bench.now)
    assert bench.events() == [ControlReturned(SOCKET, source, 0, "the target process ended")]
    assert bench.registry.may_use(SOCKET, source)


@pytest.mark.parametrize("stage", ["suspending", "drained", "ticketed"])
def test_scenario_13_14_a_cancelled_transfer_returns(stage: str) -> None:
    bench = Bench()
    source = bench.opened()
    transfer = bench.begin(source)
    if stage == "drained":
        bench.registry.drained(transfer, bench.now)
    if stage == "ticketed":
        bench.record(transfer)
    bench.registry.cancel(transfer, bench.now)
    bench.registry.cancel(transfer, bench.now)
    assert [type(event) for event in bench.events()] == [ControlReturned]
    assert bench.registry.may_use(SOCKET, source)
    assert bench.registry.statistics().tickets == 0


def test_scenario_27_a_check_without_a_commit_has_no_effect() -> None:
    bench = Bench()
    info = bench.ticket(bench.opened())
    bench.check(info)
    assert bench.registry.epoch(SOCKET) == 0
    assert bench.registry.may_use(SOCKET, bench.redeem(info))


@pytest.mark.parametrize("used", [False, True])
def test_scenario_29_33_target_dies_after_the_commit(used: bool) -> None:
    bench = Bench()
    source = bench.opened()
    target = bench.redeem(bench.ticket(source))
    bench.events()
    if used:
        bench.registry.used(SOCKET)
    assert bench.registry.owner_died(target, bench.now) is not used
    bench.registry.close(target, bench.now)
    bench.registry.process_exited(TARGET, bench.now)
    (event,) = bench.events()
    if used:
        assert isinstance(event, SocketAborted)
        assert bench.registry.controlling(SOCKET) is None
        fails(WsaErrno.WSAEINVAL, bench, source)
    else:
        assert isinstance(event, ControlReturned)
        assert (event.to, event.epoch) == (source, 2)
        assert bench.registry.may_use(SOCKET, source)
    bench.registry.close(source, bench.now)
    assert bench.events() == [LastReferenceClosed(SOCKET)]
    assert bench.is_at_baseline()


def test_scenario_29_target_dies_after_the_commit_and_the_source_has_closed() -> None:
    bench = Bench()
    source = bench.opened()
    info = bench.ticket(source)
    bench.registry.close(source, bench.now)
    target = bench.redeem(info)
    assert not bench.registry.owner_died(target, bench.now)
    bench.registry.close(target, bench.now)
    assert bench.events()[-1] == LastReferenceClosed(SOCKET)
    assert bench.is_at_baseline()


def test_scenario_30_expiry_and_redeem_race_and_one_wins() -> None:
    bench = Bench()
    source = bench.opened()
    grant = bench.check(bench.ticket(source))
    bench.registry.handle_timeout(LIFETIME)
    with pytest.raises(WsaError) as caught:
        bench.registry.commit(grant, bench.holder(TARGET), LIFETIME)
    assert caught.value.wsa is WsaErrno.WSAEINVAL
    assert bench.registry.may_use(SOCKET, source)

    grant = bench.check(bench.ticket(source))
    target = bench.holder(TARGET)
    bench.registry.commit(grant, target, bench.now)
    bench.registry.handle_timeout(10 * LIFETIME)
    assert bench.registry.may_use(SOCKET, target)
    with pytest.raises(WsaError):
        bench.registry.commit(grant, bench.holder(TARGET), bench.now)
    assert bench.registry.statistics().commits == 1


def test_scenario_36_back_to_a_third_process() -> None:
    bench = Bench()
    worker = bench.redeem(bench.ticket(bench.opened()))
    third = bench.redeem(bench.ticket(worker, THIRD), THIRD)
    assert bench.registry.controlling(SOCKET) == third


def test_scenario_37_the_worker_closes_and_dies_with_its_ticket_out() -> None:
    bench = Bench()
    source = bench.opened()
    worker = bench.redeem(bench.ticket(source))
    info = bench.ticket(worker, SOURCE)
    bench.registry.close(worker, bench.now)
    bench.registry.process_exited(TARGET, bench.now)
    assert bench.registry.may_use(SOCKET, bench.redeem(info, SOURCE))


def test_own_process_may_be_the_target() -> None:
    bench = Bench()
    old = bench.opened()
    new = bench.redeem(bench.ticket(old, SOURCE), SOURCE)
    assert bench.registry.may_use(SOCKET, new)
    assert not bench.registry.may_use(SOCKET, old)


def test_the_owner_closing_gives_control_to_where_it_came_from() -> None:
    bench = Bench()
    first = bench.opened()
    second = bench.redeem(bench.ticket(first))
    third = bench.redeem(bench.ticket(second, SOURCE), SOURCE)
    bench.registry.close(third, bench.now)
    assert bench.registry.controlling(SOCKET) == second
    assert bench.registry.epoch(SOCKET) == 3


def test_control_goes_back_along_the_way_it_came_and_not_to_a_corpse() -> None:
    """The switch closes a dead process's descriptors a little later; until then they are references, not heirs."""
    bench = Bench()
    first = bench.opened()
    corpse = bench.redeem(bench.ticket(first))
    assert bench.registry.owner_died(corpse, bench.now)
    third = bench.redeem(bench.ticket(first, THIRD), THIRD)
    bench.registry.close(third, bench.now)
    assert bench.registry.controlling(SOCKET) == first


def test_a_dead_process_does_not_get_its_socket_back() -> None:
    """Both descriptors were the dead process's own: ABORT, not RETURN to a corpse."""
    bench = Bench()
    old = bench.opened()
    new = bench.redeem(bench.ticket(old, SOURCE), SOURCE)
    assert not bench.registry.owner_died(new, bench.now)
    assert bench.registry.controlling(SOCKET) is None
    bench.registry.close(new, bench.now)
    bench.registry.close(old, bench.now)
    assert bench.is_at_baseline()


def test_an_abort_leaves_other_descriptors_closable_and_nobody_in_control() -> None:
    bench = Bench()
    first = bench.opened()
    worker = bench.redeem(bench.ticket(first))
    bench.ticket(worker, THIRD)
    bench.registry.close(worker, bench.now)
    bench.registry.process_exited(THIRD, bench.now)
    assert isinstance(bench.events()[-1], SocketAborted)
    assert bench.registry.controlling(SOCKET) is None
    bench.registry.close(first, bench.now)
    assert bench.events() == [LastReferenceClosed(SOCKET)]
    assert bench.is_at_baseline()


def test_a_grant_that_expired_before_the_timer_ran_does_not_commit() -> None:
    bench = Bench()
    grant = bench.check(bench.ticket(bench.opened()))
    with pytest.raises(WsaError):
        bench.registry.commit(grant, bench.holder(TARGET), LIFETIME)
    assert bench.registry.statistics().commits == 0


def test_moves_out_of_order_are_illegal() -> None:
    bench = Bench()
    transfer = bench.begin(bench.opened())
    with pytest.raises(IllegalTransition):
        bench.registry.resumed(transfer, bench.now)
    bench.record(transfer)
    with pytest.raises(IllegalTransition):
        bench.registry.drained(transfer, bench.now)
    with pytest.raises(IllegalTransition):
        bench.registry.drained(TransferId(99), bench.now)


def test_two_sockets_do_not_touch_each_other() -> None:
    bench = Bench()
    one, two = bench.opened(SOURCE, 1), bench.opened(SOURCE, 2)
    info = bench.ticket(one, socket_id=1)
    assert bench.registry.may_use(2, two)
    bench.redeem(info)
    bench.registry.close(two, bench.now)
    assert bench.events()[-1] == LastReferenceClosed(2)
    assert bench.registry.statistics().sockets == 1
