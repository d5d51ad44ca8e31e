"""The rules of connection management, one test each; the numbers are those of the project's list of wire rules."""

from dataclasses import replace
from itertools import pairwise

from fabric.cm.config import timeout_of
from fabric.cm.manager import ConnectFailed, Disconnected, Established, Rejected, ReplyReceived, RequestReceived
from fabric.units import MILLISECOND, SECOND
from fabric.wire.cm import (
    ConnectReject,
    ConnectReply,
    ConnectRequest,
    DisconnectReply,
    DisconnectRequest,
    MessageReceiptAck,
    ReadyToUse,
    RejectReason,
)
from tests.support.cm_pair import LATENCY, SERVICE, STRANGER, CmHost, CmWire, ignore, oblige

RESPONSE = timeout_of(16)


def losing(*kinds: type):
    return lambda sender, message: () if isinstance(message, kinds) else (LATENCY,)


def rejecting(host: CmHost, event) -> None:
    if isinstance(event, RequestReceived | ReplyReceived):
        host.manager.reject(event.comm_id, private_data=b"no", now=host.wire.now)


def test_rule_46_duplicate_request_is_ignored_while_undecided():
    wire = CmWire()
    wire.b.react = ignore
    for _ in range(3):
        wire.inject(STRANGER, wire.b, wire.request())
    assert len(wire.b.of(RequestReceived)) == 1
    assert wire.log == []


def test_rule_46_duplicate_request_after_mra_gets_the_same_mra():
    wire = CmWire()
    wire.b.react = ignore
    wire.inject(STRANGER, wire.b, wire.request())
    wire.b.command("mra", wire.b.events[0].comm_id, service_timeout=18)
    wire.inject(STRANGER, wire.b, wire.request())
    first, again = wire.sent(MessageReceiptAck)
    assert first == again
    assert (first.service_timeout, first.message_mraed, first.remote_comm_id) == (18, 0, 4711)


def test_rule_46_duplicate_request_after_reply_is_left_to_the_reply_timer():
    wire = CmWire()
    wire.inject(STRANGER, wire.b, wire.request())
    wire.inject(STRANGER, wire.b, wire.request())
    assert len(wire.sent(ConnectReply)) == 1
    wire.run(RESPONSE)
    assert len(wire.sent(ConnectReply)) == 2


def test_rule_46_duplicate_request_in_timewait_is_stale():
    wire = CmWire()
    a, b = wire.established()
    wire.a.command("disconnect", a)
    wire.run(3 * LATENCY)
    assert wire.b.state(b) == "TIMEWAIT"
    wire.inject(wire.a.ip, wire.b, wire.sent(ConnectRequest)[0])
    reject = wire.sent(ConnectReject, by=wire.b)[-1]
    assert (reject.reason, reject.remote_comm_id) == (RejectReason.STALE_CONNECTION, a)
    assert len(wire.b.of(RequestReceived)) == 1


def test_rule_46_same_id_with_another_queue_pair_is_no_duplicate():
    wire = CmWire()
    wire.inject(STRANGER, wire.b, wire.request())
    wire.inject(STRANGER, wire.b, wire.request(local_qpn=100, transaction_id=78))
    assert [reject.reason for reject in wire.sent(ConnectReject)] == [RejectReason.DUPLICATE_COMM_ID]


def test_rule_47_reply_is_repeated_as_often_as_the_request_allows_then_accept_fails():
    wire = CmWire()
    wire.inject(STRANGER, wire.b, wire.request(max_cm_retries=15, local_cm_response_timeout=20))
    wire.run(15 * timeout_of(20))
    at = wire.sent_at(ConnectReply)
    assert len(at) == 16
    assert {later - earlier for earlier, later in pairwise(at)} == {timeout_of(20)}
    assert wire.b.of(ConnectFailed) == []
    wire.run(timeout_of(20))
    assert [event.reason for event in wire.b.of(ConnectFailed)] == ["timeout"]
    assert wire.sent(ConnectReply)[0] == wire.sent(ConnectReply)[-1]


def test_rule_47_lost_rtu_is_cured_by_the_next_reply():
    wire = CmWire()
    lost = []

    def fate(sender, message):
        if isinstance(message, ReadyToUse) and not lost:
            lost.append(message)
            return ()
        return (LATENCY,)

    wire.fate = fate
    a = wire.a.connect(wire.b)
    wire.run(RESPONSE + 4 * LATENCY)
    assert len(wire.b.of(Established)) == 1
    assert wire.a.state(a) == "ESTABLISHED"
    assert len(wire.sent(ConnectReply)) == 2


def test_rule_48_duplicate_reply_when_established_repeats_the_same_rtu():
    wire = CmWire()
    wire.established()
    wire.inject(wire.b.ip, wire.a, wire.sent(ConnectReply)[0])
    first, again = wire.sent(ReadyToUse)
    assert first == again
    assert len(wire.a.of(ReplyReceived)) == 1


def test_rule_49_new_request_from_a_live_queue_pair_is_stale_and_ends_the_old_connection():
    wire = CmWire()
    _, b = wire.established()
    old = wire.sent(ConnectRequest)[0]
    wire.inject(wire.a.ip, wire.b, replace(old, local_comm_id=999, transaction_id=1000))
    assert wire.sent(ConnectReject)[-1].reason == RejectReason.STALE_CONNECTION
    assert wire.sent(ConnectReject)[-1].remote_comm_id == 999
    assert wire.sent(DisconnectRequest)[-1].local_comm_id == b
    assert [event.by_peer for event in wire.b.of(Disconnected)] == [True]
    wire.run(10 * SECOND)
    assert wire.b.manager.statistics().connections == 0


def test_rule_50_queue_pair_may_be_used_anew_once_the_old_connection_is_in_timewait():
    wire = CmWire()
    a, b = wire.established()
    qpn = wire.sent(ConnectRequest)[0].local_qpn
    wire.a.command("disconnect", a)
    wire.run(3 * LATENCY)
    assert wire.b.state(b) == "TIMEWAIT"
    again = wire.a.connect(wire.b, local_qpn=qpn)
    wire.run(3 * LATENCY)
    assert wire.a.state(again) == "ESTABLISHED"


def test_rule_51_disconnect_request_for_another_queue_pair_is_ignored():
    wire = CmWire()
    a, b = wire.established()
    request = DisconnectRequest(transaction_id=1, local_comm_id=a, remote_comm_id=b, remote_qpn=0xBAD)
    wire.inject(wire.a.ip, wire.b, request)
    assert wire.b.state(b) == "ESTABLISHED"
    assert wire.sent(DisconnectReply) == []
    assert ("wrong queue pair", 1) in wire.b.manager.statistics().dropped


def test_rule_51_disconnect_request_with_unknown_ids_is_answered():
    wire = CmWire()
    request = DisconnectRequest(transaction_id=5, local_comm_id=1, remote_comm_id=2, remote_qpn=3)
    wire.inject(STRANGER, wire.b, request)
    (reply,) = wire.sent(DisconnectReply)
    assert (reply.transaction_id, reply.local_comm_id, reply.remote_comm_id) == (5, 2, 1)


def test_rule_52_disconnect_reply_goes_out_when_the_consumer_answers_and_again_in_timewait():
    wire = CmWire()
    a, b = wire.established()
    wire.b.react = ignore
    wire.a.command("disconnect", a, private_data=b"bye")
    wire.run(LATENCY)
    request = wire.sent(DisconnectRequest)[0]
    assert [(event.by_peer, event.private_data[:3]) for event in wire.b.of(Disconnected)] == [(True, b"bye")]
    wire.inject(wire.a.ip, wire.b, request)
    assert wire.sent(DisconnectReply) == []
    wire.b.command("disconnect", b, private_data=b"so long")
    assert [reply.private_data[:7] for reply in wire.sent(DisconnectReply)] == [b"so long"]
    wire.inject(wire.a.ip, wire.b, request)
    assert len(wire.sent(DisconnectReply)) == 2
    wire.run(LATENCY)
    assert [(event.by_peer, event.private_data[:7]) for event in wire.a.of(Disconnected)] == [(False, b"so long")]


def test_rule_52_consumer_that_never_answers_is_overruled():
    wire = CmWire()
    a, b = wire.established()
    wire.b.react = ignore
    wire.a.command("disconnect", a)
    wire.run(20 * RESPONSE)
    assert (wire.a.state(a), wire.b.state(b)) == ("CLOSED", "CLOSED")
    assert len(wire.sent(DisconnectReply)) == 1


def test_rule_53_unanswered_disconnect_is_repeated_then_timewait_regardless():
    wire = CmWire()
    a, _ = wire.established()
    wire.fate = losing(DisconnectRequest)
    wire.a.command("disconnect", a)
    start = wire.now
    wire.run(9 * RESPONSE)
    assert wire.sent_at(DisconnectRequest) == [start + count * RESPONSE for count in range(9)]
    assert len({message.transaction_id for message in wire.sent(DisconnectRequest)}) == 1
    assert wire.a.state(a) == "TIMEWAIT"
    assert wire.a.of(Disconnected) == [Disconnected(a, False, b"")]


def test_rule_54_transaction_ids():
    wire = CmWire()
    a, _ = wire.established()
    wire.a.command("disconnect", a)
    wire.run(SECOND)
    wire.b.react = rejecting
    wire.a.connect(wire.b)
    wire.run(SECOND)
    first, second = (message.transaction_id for message in wire.sent(ConnectRequest))
    disconnect = wire.sent(DisconnectRequest)[0].transaction_id
    assert {wire.sent(ConnectReply)[0].transaction_id, wire.sent(ReadyToUse)[0].transaction_id} == {first}
    assert wire.sent(ConnectReject)[0].transaction_id == second
    assert wire.sent(DisconnectReply)[0].transaction_id == disconnect
    assert len({first, second, disconnect}) == 3


def test_rule_55_active_side_rejects_the_reply():
    wire = CmWire()
    wire.a.react = rejecting
    wire.a.connect(wire.b)
    wire.run(3 * LATENCY)
    (reject,) = wire.sent(ConnectReject, by=wire.a)
    assert (reject.reason, reject.message_rejected) == (RejectReason.CONSUMER_DEFINED, 1)
    (event,) = wire.b.of(Rejected)
    assert (event.reason, event.private_data[:2]) == (28, b"no")
    wire.run(10 * SECOND)
    assert wire.a.of(Rejected) + wire.a.of(ConnectFailed) + wire.b.of(Established) == []


def test_rule_56_no_listener_is_rejected_with_local_comm_id_zero():
    wire = CmWire()
    a = wire.a.connect(wire.b, service_id=SERVICE + 1)
    wire.run(3 * LATENCY)
    (reject,) = wire.sent(ConnectReject)
    assert (reject.reason, reject.local_comm_id, reject.remote_comm_id, reject.message_rejected) == (8, 0, a, 0)
    assert [event.reason for event in wire.a.of(Rejected)] == [RejectReason.INVALID_SERVICE_ID]
    assert wire.b.manager.statistics().connections == 0


def test_rule_57_path_mtu_above_ours_is_rejected_with_our_code():
    wire = CmWire()
    small = wire.add("small", 3, path_mtu=1024)
    small.manager.listen(SERVICE)
    wire.a.connect(small, path_mtu=2048)
    wire.run(3 * LATENCY)
    (event,) = wire.a.of(Rejected)
    assert event.reason == RejectReason.INVALID_PATH_MTU
    assert event.additional[:1] == b"\x03"
    a = wire.a.connect(small, path_mtu=1024)
    wire.run(3 * LATENCY)
    assert wire.a.state(a) == "ESTABLISHED"


def test_rule_58_crossed_disconnect_requests():
    wire = CmWire()
    a, b = wire.established()
    wire.a.command("disconnect", a)
    wire.b.command("disconnect", b)
    wire.run(3 * LATENCY)
    assert (wire.a.state(a), wire.b.state(b)) == ("TIMEWAIT", "TIMEWAIT")
    assert len(wire.sent(DisconnectReply)) == 2
    assert len(wire.a.of(Disconnected)) == len(wire.b.of(Disconnected)) == 1


def test_rule_58_rtu_after_data():
    wire = CmWire()
    wire.fate = losing(ReadyToUse)
    wire.a.connect(wire.b)
    wire.run(3 * LATENCY)
    b = wire.b.of(RequestReceived)[0].comm_id
    assert wire.b.state(b) == "REP_SENT"
    wire.b.command("comm_established", b)
    wire.b.command("comm_established", b)
    assert wire.b.of(Established) == [Established(b)]
    wire.inject(wire.a.ip, wire.b, wire.sent(ReadyToUse)[0])
    assert len(wire.b.of(Established)) == 1
    wire.run(10 * SECOND)
    assert len(wire.sent(ConnectReply)) == 1


def test_rule_58_withdrawn_request_crosses_the_reply():
    wire = CmWire()
    a = wire.a.connect(wire.b)
    wire.run(LATENCY)  # the REP is on its way
    wire.a.command("disconnect", a)
    wire.run(LATENCY)
    b = wire.b.of(RequestReceived)[0].comm_id
    assert (wire.a.state(a), wire.b.state(b)) == ("TIMEWAIT", "TIMEWAIT")
    assert [event.reason for event in wire.b.of(Rejected)] == [RejectReason.TIMEOUT]
    assert wire.a.of(ReplyReceived) == []


def test_rule_58_withdrawn_request_whose_reject_got_lost_is_rejected_again_for_the_reply():
    wire = CmWire()
    a = wire.a.connect(wire.b)
    wire.fate = losing(ConnectReject)
    wire.a.command("disconnect", a)
    wire.fate = CmWire().fate
    wire.run(3 * LATENCY)
    assert [event.reason for event in wire.b.of(Rejected)] == [RejectReason.INVALID_COMM_ID]


def test_rule_58_reply_with_unknown_id_is_rejected_and_ends_the_passive_side():
    wire = CmWire()
    a = wire.a.connect(wire.b)
    wire.fate = losing(ConnectReply, ConnectReject)
    wire.a.command("disconnect", a)
    wire.run(LATENCY)
    wire.run(RESPONSE * 2 - 4 * LATENCY)  # a has forgotten; b repeats its REP
    wire.fate = losing()
    wire.run(RESPONSE)
    assert wire.a.state(a) in ("TIMEWAIT", "CLOSED")
    assert [event.reason for event in wire.b.of(Rejected)] == [RejectReason.INVALID_COMM_ID]


def test_rule_58_passive_side_disconnects_before_the_rtu_came():
    wire = CmWire()
    wire.fate = losing(ReadyToUse)
    a = wire.a.connect(wire.b)
    wire.run(3 * LATENCY)
    b = wire.b.of(RequestReceived)[0].comm_id
    wire.b.command("disconnect", b)
    wire.run(3 * LATENCY)
    assert (wire.a.state(a), wire.b.state(b)) == ("TIMEWAIT", "TIMEWAIT")
    assert [event.by_peer for event in wire.a.of(Disconnected)] == [True]


def test_rule_58_disconnect_overtakes_the_rtu():
    wire = CmWire()
    wire.fate = lambda sender, message: (5 * LATENCY,) if isinstance(message, ReadyToUse) else (LATENCY,)
    a = wire.a.connect(wire.b)
    wire.run(2 * LATENCY)
    wire.a.command("disconnect", a)
    wire.run(10 * LATENCY)
    assert [event.by_peer for event in wire.b.of(Disconnected)] == [True]
    assert wire.b.of(Established) == []
    wire.run(SECOND)
    assert wire.b.manager.statistics().connections == 0


def test_rule_59_ids_are_unpredictable_and_not_zero():
    one, other = CmWire(seed=1), CmWire(seed=2)
    ids = [[wire.a.connect(wire.b) for _ in range(50)] for wire in (one, other)]
    assert len({*ids[0], *ids[1]}) == 100
    assert 0 not in ids[0]
    steps = {later - earlier for earlier, later in pairwise(ids[0])}
    assert len(steps) == 49
    assert sum(comm_id > 0x8000_0000 for comm_id in ids[0]) in range(10, 41)


def test_rule_59_same_id_from_two_hosts_is_two_connections():
    wire = CmWire()
    wire.b.react = ignore
    other = bytes((10, 0, 0, 98))
    wire.inject(STRANGER, wire.b, wire.request())
    wire.inject(other, wire.b, wire.request())
    first, second = wire.b.of(RequestReceived)
    assert first.comm_id != second.comm_id
    wire.b.react = oblige
    wire.b.command("accept", first.comm_id, local_qpn=7, starting_psn=0)
    ready = ReadyToUse(transaction_id=77, local_comm_id=4711, remote_comm_id=first.comm_id)
    wire.inject(other, wire.b, ready)
    assert wire.b.of(Established) == []
    wire.inject(STRANGER, wire.b, ready)
    assert wire.b.of(Established) == [Established(first.comm_id)]
    assert wire.b.state(second.comm_id) == "REQ_RCVD"


def test_rule_59_id_is_not_given_out_again_in_timewait():
    class Stubborn:
        """Draws the same id until it is refused."""

        def __init__(self) -> None:
            self.drawn = []

        def getrandbits(self, bits: int) -> int:
            self.drawn.append(bits)
            return 42 if self.drawn.count(32) < 3 else 43

    wire = CmWire()
    wire.a.manager._core._rng = Stubborn()
    wire.fate = losing(ConnectRequest)
    first = wire.a.connect(wire.b)
    wire.a.command("disconnect", first)
    assert wire.a.state(first) == "TIMEWAIT"
    assert (first, wire.a.connect(wire.b)) == (42, 43)


def test_rule_60_peer_that_answers_after_a_second_is_waited_for():
    wire = CmWire()
    wire.fate = lambda sender, message: (1_060 * MILLISECOND,) if isinstance(message, ConnectReply) else (LATENCY,)
    a = wire.a.connect(wire.b)
    wire.run(1_100 * MILLISECOND)
    assert wire.a.state(a) == "ESTABLISHED"
    assert len(wire.sent(ConnectRequest)) == 4
