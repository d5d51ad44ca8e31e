"""Strangers, liars and noise: nothing raises, nothing grows without bound, nothing of others is disturbed."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.cm.config import timeout_of
from fabric.cm.manager import CmConfig, ConnectionManager, Disconnected, Rejected, ReplyReceived, RequestReceived
from fabric.rng import stream
from fabric.units import SECOND
from fabric.wire.cm import (
    ConnectReject,
    ConnectReply,
    ConnectRequest,
    DisconnectReply,
    DisconnectRequest,
    MessageReceiptAck,
    ReadyToUse,
    RejectReason,
    encode_mad,
)
from tests.support.cm_pair import LATENCY, STRANGER, CmWire, ignore
from tests.support.contract import check_engine


def reasons(wire: CmWire) -> list[int]:
    return [reject.reason for reject in wire.sent(ConnectReject)]


def test_half_open_connections_are_bounded_and_come_free_again():
    wire = CmWire(half_open_limit=5)
    wire.b.react = ignore
    for number in range(20):
        wire.inject(STRANGER, wire.b, wire.request(local_comm_id=1 + number, local_qpn=100 + number))
    assert reasons(wire) == [RejectReason.NO_RESOURCES] * 15
    assert wire.b.manager.statistics().connections == 5
    assert wire.b.manager.statistics().half_open == 5
    wire.run(60 * SECOND)
    assert wire.b.manager.statistics().half_open == 0
    wire.inject(STRANGER, wire.b, wire.request())
    assert len(wire.b.of(RequestReceived)) == 6


def test_established_connections_do_not_count_as_half_open():
    wire = CmWire(half_open_limit=2)
    for _ in range(5):
        wire.established()
    assert wire.b.manager.statistics().half_open == 0
    assert wire.b.manager.statistics().connections == 5


def test_outbox_is_bounded():
    wire = CmWire()
    manager = ConnectionManager(guid=1, rng=stream(1, "cm"), config=CmConfig(outbox_limit=10))
    request = encode_mad(wire.request())
    for _ in range(30):
        manager.handle_mad(STRANGER, request, 0)
    assert sum(1 for _ in iter(lambda: manager.poll_transmit(0), None)) == 10
    assert manager.statistics().dropped == (("overflow", 20),)


def test_requests_that_cannot_be():
    wire = CmWire()
    for changes in (
        {"transport_type": 1},
        {"path_mtu": 0},
        {"path_mtu": 6},
        {"local_qpn": 1},
        {"local_comm_id": 0},
        {"service_id": 1},
    ):
        wire.inject(STRANGER, wire.b, wire.request(**changes))
    assert reasons(wire) == [9, 26, 26, 5, 5, 8]
    assert wire.b.manager.statistics().connections == 0
    assert sum(count for _, count in wire.b.manager.statistics().refused) == 6


def test_codes_of_a_peer_are_honoured_within_bounds():
    wire = CmWire()
    wire.inject(STRANGER, wire.b, wire.request(local_cm_response_timeout=0, max_cm_retries=15))
    wire.run(16 * timeout_of(10))
    assert len(wire.sent(ConnectReply)) == 16
    assert {b - a for a, b in pairwise(wire.sent_at(ConnectReply))} == {timeout_of(10)}
    other = CmWire()
    other.inject(STRANGER, other.b, other.request(local_cm_response_timeout=31))
    other.run(timeout_of(21))
    assert len(other.sent(ConnectReply)) == 2


def test_messages_from_another_address_change_nothing():
    wire = CmWire()
    a, b = wire.established()
    ids = {"local_comm_id": a, "remote_comm_id": b}
    qpn = wire.b.next_qpn
    wire.inject(STRANGER, wire.b, DisconnectRequest(transaction_id=1, remote_qpn=qpn, **ids))
    wire.inject(STRANGER, wire.b, ConnectReject(transaction_id=1, message_rejected=2, reason=28, **ids))
    wire.inject(STRANGER, wire.b, DisconnectReply(transaction_id=1, **ids))
    wire.inject(STRANGER, wire.b, ReadyToUse(transaction_id=1, **ids))
    wire.inject(STRANGER, wire.b, MessageReceiptAck(transaction_id=1, message_mraed=1, service_timeout=9, **ids))
    assert (wire.a.state(a), wire.b.state(b)) == ("ESTABLISHED", "ESTABLISHED")
    assert wire.a.of(Disconnected) + wire.b.of(Disconnected) == []


def test_withdrawal_of_somebody_elses_request_changes_nothing():
    wire = CmWire()
    wire.b.react = ignore
    wire.inject(STRANGER, wire.b, wire.request())
    b = wire.b.events[0].comm_id
    guid = (0xC0FFEE).to_bytes(8, "big")
    reject = ConnectReject(
        transaction_id=77, local_comm_id=4711, remote_comm_id=0, message_rejected=0, reason=4, additional_info=guid
    )
    wire.inject(wire.a.ip, wire.b, reject)
    wire.inject(STRANGER, wire.b, replace(reject, additional_info=b""))
    wire.inject(STRANGER, wire.b, replace(reject, additional_info=bytes(8)))
    wire.inject(STRANGER, wire.b, replace(reject, reason=28))
    assert wire.b.state(b) == "REQ_RCVD"
    wire.inject(STRANGER, wire.b, reject)
    assert [event.reason for event in wire.b.of(Rejected)] == [4]


def test_old_reject_of_the_request_does_not_end_an_established_connection():
    wire = CmWire()
    a, b = wire.established()
    old = ConnectReject(transaction_id=1, local_comm_id=0, remote_comm_id=a, message_rejected=0, reason=10)
    wire.inject(wire.b.ip, wire.a, old)
    wire.inject(wire.b.ip, wire.a, replace(old, local_comm_id=b))
    assert wire.a.state(a) == "ESTABLISHED"
    wire.inject(wire.b.ip, wire.a, replace(old, local_comm_id=b, message_rejected=2, reason=4))
    assert wire.a.state(a) == "TIMEWAIT"
    assert [event.by_peer for event in wire.a.of(Disconnected)] == [True]


def test_reply_that_cannot_be_is_rejected_and_fails_the_connect():
    for changes, reason in (({"local_qpn": 0}, 5), ({"local_comm_id": 0}, 5)):
        wire = CmWire()
        wire.fate = lambda sender, message: ()
        a = wire.a.connect(wire.b)
        reply = ConnectReply(
            **{
                "transaction_id": wire.sent(ConnectRequest)[0].transaction_id,
                "local_comm_id": 7,
                "remote_comm_id": a,
                "local_qpn": 9,
                "starting_psn": 1,
                "local_ca_guid": 3,
            }
            | changes
        )
        wire.inject(wire.b.ip, wire.a, replace(reply, transaction_id=12345))
        assert wire.a.state(a) == "REQ_SENT"
        wire.inject(wire.b.ip, wire.a, reply)
        assert [event.reason for event in wire.a.of(Rejected)] == [reason]
        assert reasons(wire) == [reason]
        wire.run(10 * SECOND)
        assert wire.a.manager.statistics().connections == 0


def test_reply_from_a_queue_pair_in_use_is_stale():
    wire = CmWire()
    wire.established()
    live = wire.sent(ConnectReply)[0]
    wire.fate = lambda sender, message: ()
    a = wire.a.connect(wire.b)
    request = wire.sent(ConnectRequest)[1]
    again = replace(live, transaction_id=request.transaction_id, remote_comm_id=a, local_comm_id=5)
    wire.inject(wire.b.ip, wire.a, again)
    assert reasons(wire) == [RejectReason.STALE_CONNECTION]
    assert len(wire.sent(DisconnectRequest)) == 1
    assert [type(event) for event in wire.a.events] == [ReplyReceived, Disconnected, Rejected]


def test_malformed_datagrams_are_counted():
    wire = CmWire()
    for mad in (b"", bytes(256), bytes(255), b"\xff" * 256, encode_mad(wire.request())[:-1]):
        wire.inject(STRANGER, wire.b, mad)
    assert wire.b.manager.statistics().dropped == (("malformed", 5),)
    assert wire.log == []


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_random_bytes_never_raise(data: bytes):
    manager = ConnectionManager(guid=1, rng=stream(1, "cm"))
    manager.handle_mad(STRANGER, data, 0)
    assert manager.statistics().connections == 0


_KINDS = st.sampled_from(
    [ConnectRequest, ConnectReply, ReadyToUse, ConnectReject, MessageReceiptAck, DisconnectRequest, DisconnectReply]
)


@settings(max_examples=200, deadline=None)
@given(
    flips=st.lists(
        st.tuples(_KINDS, st.integers(0, 255), st.integers(0, 255), st.sampled_from(("a", "b"))), max_size=12
    )
)
def test_damaged_messages_of_a_live_exchange_never_raise(flips):
    """Flip bytes of real messages and hand them to either side in mid-conversation."""
    wire = CmWire()
    wire.b.react = ignore
    wire.a.connect(wire.b)
    wire.run(LATENCY)
    wire.b.command("mra", wire.b.events[0].comm_id)
    wire.b.command("accept", wire.b.events[0].comm_id, local_qpn=8, starting_psn=3)
    wire.run(2 * LATENCY)
    wire.b.manager.listen(77)
    wire.a.connect(wire.b, service_id=76)
    wire.a.command("disconnect", wire.a.used_ids[0])
    wire.run(LATENCY)
    for kind, offset, value, name in flips:
        messages = wire.sent(kind)
        if not messages:
            continue
        mad = bytearray(encode_mad(messages[-1]))
        mad[offset] ^= value
        target = wire.a if name == "a" else wire.b
        source = wire.b if name == "a" else wire.a
        wire.inject(source.ip, target, bytes(mad))
    for host in (wire.a, wire.b):
        for comm_id in list(host.used_ids):
            host.command("disconnect", comm_id)
    wire.run(200 * SECOND)
    for host in (wire.a, wire.b):
        assert host.manager.statistics().connections == 0
        assert host.manager.poll_timeout() is None


def test_manager_keeps_the_contract_of_engines():
    wire = CmWire()
    wire.b.react = ignore
    requests = [encode_mad(wire.request(local_comm_id=1 + n, local_qpn=50 + n)) for n in range(4)]

    def factory() -> ConnectionManager:
        manager = ConnectionManager(guid=2, rng=stream(7, "cm"))
        manager.listen(wire.request().service_id)
        return manager

    def connect(manager: ConnectionManager, now: int) -> None:
        manager.connect(STRANGER, 5, local_ip=bytes(4), local_qpn=9, starting_psn=0, now=now)

    def accept(manager: ConnectionManager, now: int) -> None:
        comm_id = next(iter(manager._core.by_request.values())).comm_id
        if manager._core.connections[comm_id].state.value == "REQ_RCVD":
            manager.accept(comm_id, local_qpn=4, starting_psn=1, now=now)

    def arrive(mad: bytes):
        return lambda manager, now: manager.handle_mad(STRANGER, mad, now)

    check_engine(
        factory,
        [connect, *map(arrive, requests), accept, arrive(requests[0]), connect],
        fuzz=lambda manager, data, now: manager.handle_mad(STRANGER, data, now),
    )
