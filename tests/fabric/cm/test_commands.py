"""The manager's commands: what they put on the wire and what they refuse."""

import pytest

from fabric.cm.config import CmConfig, InvalidParameter, timeout_of
from fabric.cm.manager import (
    ConnectFailed,
    Disconnected,
    Established,
    Rejected,
    ReplyReceived,
    RequestReceived,
    TimewaitEnded,
)
from fabric.errors import IllegalTransition
from fabric.ids import CommId
from fabric.units import MILLISECOND, SECOND
from fabric.wire.cm import (
    ConnectReject,
    ConnectReply,
    ConnectRequest,
    DisconnectReply,
    DisconnectRequest,
    MessageReceiptAck,
)
from tests.support.cm_pair import LATENCY, SERVICE, STRANGER, CmWire, ignore

RESPONSE = timeout_of(16)


def test_set_up_and_tear_down_in_three_and_two_messages():
    wire = CmWire()
    a, b = wire.established()
    wire.a.command("disconnect", a)
    wire.run(10 * SECOND)
    kinds = [type(message).__name__ for _, _, message in wire.log]
    assert kinds == ["ConnectRequest", "ConnectReply", "ReadyToUse", "DisconnectRequest", "DisconnectReply"]
    assert [type(event) for event in wire.a.events] == [ReplyReceived, Disconnected, TimewaitEnded]
    assert [type(event) for event in wire.b.events] == [RequestReceived, Established, Disconnected, TimewaitEnded]
    assert (wire.a.state(a), wire.b.state(b)) == ("CLOSED", "CLOSED")


def test_request_says_what_connect_was_told():
    wire = CmWire()
    wire.a.connect(
        wire.b, local_qpn=0xABCDEF, starting_psn=0xFFFFFE, path_mtu=4096, retry_count=5, rnr_retry=6, ack_timeout=17
    )
    (request,) = wire.sent(ConnectRequest)
    assert (request.local_qpn, request.starting_psn, request.path_mtu) == (0xABCDEF, 0xFFFFFE, 5)
    assert (request.retry_count, request.rnr_retry, request.local_ack_timeout) == (5, 6, 17)
    assert (request.remote_cm_response_timeout, request.local_cm_response_timeout, request.max_cm_retries) == (
        16,
        16,
        8,
    )
    assert request.primary_local_gid == bytes(10) + b"\xff\xff" + wire.a.ip
    assert request.primary_remote_gid == bytes(10) + b"\xff\xff" + wire.b.ip
    assert request.private_data[:5] == b"hello"
    assert request.service_id == SERVICE


def test_starting_psn_is_what_its_author_expects_to_receive():
    wire = CmWire()
    wire.established()
    (reply_event,) = wire.a.of(ReplyReceived)
    (request_event,) = wire.b.of(RequestReceived)
    assert reply_event.reply.starting_psn == 0x12345  # given to accept by b, so a sends from it
    assert request_event.path_mtu == 1024
    assert request_event.request.starting_psn == 0xABCDE  # given to connect by a, so b sends from it


def test_ipv6_addresses_are_their_own_gids():
    wire = CmWire()
    ip = bytes(range(16))
    wire.a.manager.connect(ip, SERVICE, local_ip=ip, local_qpn=9, starting_psn=0, now=0)
    datagram = wire.a.manager.poll_transmit(0)
    assert datagram is not None
    assert datagram.remote_ip == ip
    assert len(datagram.mad) == 256


def test_lost_request_is_repeated_until_answered():
    wire = CmWire()
    lost = iter((True, True))
    wire.fate = lambda sender, message: () if next(lost, False) else (LATENCY,)
    a = wire.a.connect(wire.b)
    wire.run(2 * RESPONSE + 3 * LATENCY)
    assert wire.a.state(a) == "ESTABLISHED"
    assert wire.sent_at(ConnectRequest) == [0, RESPONSE, 2 * RESPONSE]
    assert wire.a.manager.statistics().retransmitted == 2


def test_unanswered_request_is_withdrawn_in_the_end():
    wire = CmWire(max_retries=2)
    wire.fate = lambda sender, message: (LATENCY,) if isinstance(message, ConnectReject) else ()
    a = wire.a.connect(wire.b)
    wire.run(SECOND)
    assert wire.sent_at(ConnectRequest) == [0, RESPONSE, 2 * RESPONSE]
    assert wire.a.of(ConnectFailed) == [ConnectFailed(a)]
    (reject,) = wire.sent(ConnectReject)
    assert (reject.reason, reject.remote_comm_id, reject.message_rejected) == (4, 0, 0)
    assert reject.additional_info[:8] == wire.a.guid.to_bytes(8, "big")


def test_mra_stops_the_repetitions_for_as_long_as_it_says():
    wire = CmWire()
    wire.b.react = ignore
    a = wire.a.connect(wire.b)
    wire.run(LATENCY)
    b = wire.b.events[0].comm_id
    wire.b.command("mra", b, service_timeout=19)
    wire.run(LATENCY)
    assert wire.a.state(a) == "MRA_REQ_RCVD"
    wire.run(timeout_of(19))
    assert len(wire.sent(ConnectRequest)) == 1
    wire.run(RESPONSE + LATENCY)
    assert len(wire.sent(ConnectRequest)) == 2
    assert len(wire.sent(MessageReceiptAck)) == 2
    wire.b.command("accept", b, local_qpn=5, starting_psn=0)
    wire.run(3 * LATENCY)
    assert (wire.a.state(a), wire.b.state(b)) == ("ESTABLISHED", "ESTABLISHED")


def test_mra_of_the_active_side_stops_the_replies():
    wire = CmWire()
    wire.a.react = ignore
    a = wire.a.connect(wire.b)
    wire.run(2 * LATENCY)
    wire.a.command("mra", a, service_timeout=19)
    wire.run(timeout_of(19))
    assert len(wire.sent(ConnectReply)) == 1
    wire.run(RESPONSE + LATENCY)
    assert len(wire.sent(ConnectReply)) == 2
    wire.a.command("ready", a)
    wire.run(LATENCY)
    assert len(wire.b.of(Established)) == 1


def test_mra_cannot_be_asked_for_without_end():
    wire = CmWire(max_extensions=3)
    wire.b.react = ignore
    a = wire.a.connect(wire.b)
    wire.run(LATENCY)
    b = wire.b.events[0].comm_id
    for _ in range(10):
        wire.b.command("mra", b, service_timeout=31)
        wire.run(LATENCY)
    start = wire.now
    wire.run(timeout_of(23) + 40 * RESPONSE)
    assert wire.a.state(a) == "CLOSED"
    assert wire.a.of(ConnectFailed) == [ConnectFailed(a)]
    assert start < wire.now


def test_undecided_request_expires_with_the_patience_of_its_peer():
    wire = CmWire()
    wire.b.react = ignore
    wire.inject(STRANGER, wire.b, wire.request(max_cm_retries=3))
    (event,) = wire.b.events
    wire.run(4 * RESPONSE - 1)
    assert len(wire.b.events) == 1
    wire.run(1)
    assert wire.b.events[1:] == [ConnectFailed(event.comm_id)]
    assert [reject.reason for reject in wire.sent(ConnectReject)] == [4]
    with pytest.raises(IllegalTransition):
        wire.b.command("accept", event.comm_id, local_qpn=5, starting_psn=0)


def test_undecided_reply_expires():
    wire = CmWire()
    wire.a.react = ignore
    wire.fate = lambda sender, message: () if isinstance(message, DisconnectRequest) else (LATENCY,)
    a = wire.a.connect(wire.b)
    wire.run(30 * RESPONSE)
    assert [type(event) for event in wire.a.events] == [ReplyReceived, ConnectFailed, TimewaitEnded]
    assert wire.a.events[1] == ConnectFailed(a)
    assert [type(event) for event in wire.b.events] == [RequestReceived, ConnectFailed, TimewaitEnded]
    assert wire.b.manager.statistics().connections == 0


def test_consumer_rejects_with_reason_and_data_and_repeats_it():
    wire = CmWire()
    wire.b.react = lambda host, event: (
        host.manager.reject(event.comm_id, 3, b"full", now=wire.now) if isinstance(event, RequestReceived) else None
    )
    wire.a.connect(wire.b)
    wire.run(LATENCY)
    wire.inject(wire.a.ip, wire.b, wire.sent(ConnectRequest)[0])
    first, again = wire.sent(ConnectReject)
    assert (first.reason, first.private_data[:4]) == (again.reason, again.private_data[:4]) == (3, b"full")
    wire.run(LATENCY)
    assert [(event.reason, event.private_data[:4]) for event in wire.a.of(Rejected)] == [(3, b"full")]


def test_disconnect_is_harmless_at_any_time():
    wire = CmWire()
    a, b = wire.established()
    for _ in range(3):
        wire.a.command("disconnect", a)
        wire.run(LATENCY)
    assert len(wire.sent(DisconnectReply)) == 1
    wire.run(10 * SECOND)
    wire.a.command("disconnect", a)
    wire.b.command("abandon", b)
    assert len(wire.sent(DisconnectReply)) == 1


@pytest.mark.parametrize("command", ["ready", "mra", "reject"])
def test_command_out_of_turn_is_the_callers_mistake(command: str):
    wire = CmWire()
    a, _ = wire.established()
    with pytest.raises(IllegalTransition, match=f"{command} is not allowed in state ESTABLISHED"):
        wire.a.command(command, a)
    with pytest.raises(IllegalTransition, match="CLOSED"):
        wire.a.command(command, CommId(1))


def test_listening_twice_is_the_callers_mistake():
    wire = CmWire()
    with pytest.raises(IllegalTransition):
        wire.b.manager.listen(SERVICE)
    wire.b.manager.unlisten(SERVICE)
    wire.b.manager.unlisten(SERVICE)
    wire.b.manager.listen(SERVICE)


def test_parameters_that_do_not_fit_the_message():
    wire = CmWire()
    with pytest.raises(InvalidParameter, match="a REQ carries 92"):
        wire.a.connect(wire.b, private_data=bytes(93))
    with pytest.raises(InvalidParameter, match="path MTU 1500"):
        wire.a.connect(wire.b, path_mtu=1500)
    with pytest.raises(InvalidParameter, match="4 or 16 bytes"):
        wire.a.connect(wire.b, local_ip=b"")
    with pytest.raises(InvalidParameter):
        CmConfig(response_timeout=32)
    with pytest.raises(InvalidParameter):
        CmConfig(max_retries=16)
    with pytest.raises(InvalidParameter):
        CmConfig(shortest_response_timeout=22)
    assert wire.a.manager.statistics().connections == 0
    assert wire.log == []


def test_host_connects_to_itself():
    wire = CmWire()
    a = wire.b.connect(wire.b)
    wire.run(4 * LATENCY)
    theirs = wire.b.of(RequestReceived)[0].comm_id
    assert (wire.b.state(a), wire.b.state(theirs)) == ("ESTABLISHED", "ESTABLISHED")
    wire.b.command("disconnect", a)
    wire.run(10 * SECOND)
    assert wire.b.manager.statistics().connections == 0


def test_timewait_covers_the_ack_timeout_of_the_request():
    wire = CmWire()
    a = wire.a.connect(wire.b, ack_timeout=19)
    wire.run(3 * LATENCY)
    wire.a.command("disconnect", a)
    wire.run(2 * LATENCY + timeout_of(19) - MILLISECOND)
    assert wire.a.state(a) == "TIMEWAIT"
    wire.run(MILLISECOND)
    assert wire.a.state(a) == "CLOSED"
