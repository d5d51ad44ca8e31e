"""The responder's rules of wire.md 8, through the queue pair that sends its answers; the numbers stand in the names."""

import pytest

from fabric.rc.events import CommunicationEstablished, Completion, FatalError
from fabric.rc.qp_state import QpState
from fabric.rc.queue_pair import QueuePair
from fabric.rc.work import CompletionStatus, ReceiveWorkRequest, SendWorkRequest
from fabric.wire.fast import Packet
from fabric.wire.opcodes import OPCODES, Opcode
from tests.support.rc_wire import (
    ACKNOWLEDGE,
    FIRST,
    LAST,
    MIDDLE,
    ONLY,
    acknowledge,
    completions,
    packet,
    queue_pair_in,
    transmitted,
)

OK, WRONG = CompletionStatus.SUCCESS, CompletionStatus.LOCAL_LENGTH_ERROR
FLUSHED = CompletionStatus.FLUSHED
ACK, RNR, SEQUENCE, INVALID = 0x1F, 0x2C, 0x60, 0x61
"""Syndromes; RNR with the timer code 12 of these queue pairs."""


class Receiver:
    """A queue pair that expects PSN ``psn`` and has ``receives`` of 10,000 bytes each."""

    def __init__(self, *, psn: int = 500, receives: int = 10, length: int = 10_000, mtu: int = 256) -> None:
        self.queue_pair: QueuePair = queue_pair_in(QpState.RTS, rq_psn=psn, path_mtu=mtu)
        for number in range(receives):
            self.offer(number, length)

    def offer(self, number: int, length: int = 10_000) -> None:
        self.queue_pair.post_receive(ReceiveWorkRequest(number, length), 0)

    def take(self, opcode: int, psn: int, payload: bytes = b"", *, ask: bool = False) -> list[tuple[int, int, int]]:
        """One packet in; the answers to it as (PSN, syndrome, MSN)."""
        self.queue_pair.handle_packet(packet(opcode, psn, payload, ack_request=ask), 0)
        return self.answers()

    def answers(self) -> list[tuple[int, int, int]]:
        out = transmitted(self.queue_pair, 0)
        assert all(one.opcode == ACKNOWLEDGE and one.destination_qpn == 0x200 for one in out)
        return [(one.psn, one.extension[0], int.from_bytes(one.extension[1:], "big")) for one in out]

    def got(self) -> list[bytes]:
        """Messages delivered since the last call."""
        done = completions(self.queue_pair)
        assert all((one.opcode, one.status) == ("receive", OK) for one in done)
        return [one.data for one in done]


def test_rule_01_ahead_and_behind_part_at_half_of_the_circle():
    for ahead in (1, 2, 127, 0x7FFFFF):
        assert Receiver().take(ONLY, 500 + ahead & 0xFFFFFF, b"x") == [(500, SEQUENCE, 0)], ahead
    for behind in (1, 2, 127, 0x7FFFFF, 0x800000):
        assert Receiver().take(ONLY, 500 - behind & 0xFFFFFF, b"x") == [(499, ACK, 0)], behind


def test_rule_02_the_psn_wraps_inside_a_message():
    receiver = Receiver(psn=0xFFFFFE)
    assert receiver.take(FIRST, 0xFFFFFE, b"a" * 256) == []
    assert receiver.take(MIDDLE, 0xFFFFFF, b"b" * 256, ask=True) == [(0xFFFFFF, ACK, 0)]
    assert receiver.take(MIDDLE, 1, b"d") == [(0, SEQUENCE, 0)]
    assert receiver.take(MIDDLE, 0, b"c" * 256) == []
    assert receiver.take(MIDDLE, 0xFFFFFF, b"b" * 256) == [(0, ACK, 0)]
    assert receiver.take(LAST, 1, b"d", ask=True) == [(1, ACK, 1)]
    assert receiver.got() == [b"a" * 256 + b"b" * 256 + b"c" * 256 + b"d"]


def test_rule_03_the_expected_psn_is_executed_and_acknowledged_only_if_asked():
    receiver = Receiver()
    assert receiver.take(ONLY, 500, b"one") == []
    assert receiver.take(ONLY, 501, b"two", ask=True) == [(501, ACK, 2)]
    assert receiver.got() == [b"one", b"two"]


def test_rule_04_a_packet_ahead_is_dropped_and_draws_a_nak_of_the_expected_psn():
    receiver = Receiver()
    receiver.take(ONLY, 500, b"one")
    assert receiver.take(ONLY, 502, b"three", ask=True) == [(501, SEQUENCE, 1)]
    assert receiver.got() == [b"one"]
    assert receiver.queue_pair.statistics().naks_sent == 1


def test_rule_05_one_nak_until_a_packet_in_order_arrives_then_armed_again():
    receiver = Receiver()
    assert receiver.take(ONLY, 502) == [(500, SEQUENCE, 0)]
    assert receiver.take(ONLY, 503) == []
    assert receiver.take(ONLY, 502, ask=True) == []
    assert receiver.take(ONLY, 499) == [(499, ACK, 0)]  # a duplicate is no packet in order
    assert receiver.take(ONLY, 502) == []
    assert receiver.take(ONLY, 500) == []
    assert receiver.take(ONLY, 502) == [(501, SEQUENCE, 1)]


@pytest.mark.parametrize("ask", [True, False])
def test_rule_06_a_duplicate_is_acknowledged_again_and_neither_delivered_nor_charged(ask):
    receiver = Receiver(receives=2)
    receiver.take(ONLY, 500, b"one", ask=True)
    for _ in range(3):
        assert receiver.take(ONLY, 500, b"one", ask=ask) == [(500, ACK, 1)]
    assert receiver.take(ONLY, 501, b"two", ask=True) == [(501, ACK, 2)]
    assert receiver.got() == [b"one", b"two"]
    assert receiver.queue_pair.statistics().duplicates_received == 3


def test_rule_07_the_ack_of_a_duplicate_covers_all_that_was_executed():
    receiver = Receiver()
    for psn in range(500, 505):
        receiver.take(ONLY, psn)
    assert receiver.take(ONLY, 501) == [(504, ACK, 5)]


def test_rule_08_a_duplicate_leaves_a_message_that_is_under_way_alone():
    receiver = Receiver()
    receiver.take(ONLY, 500, b"old")
    receiver.take(FIRST, 501, b"a" * 256)
    for opcode, psn, payload in ((ONLY, 500, b"old"), (FIRST, 501, b"a" * 256), (LAST, 499, b"?"), (ONLY, 498, b"")):
        assert receiver.take(opcode, psn, payload) == [(501, ACK, 1)]
    receiver.take(MIDDLE, 502, b"b" * 256)
    assert receiver.take(LAST, 503, b"c", ask=True) == [(503, ACK, 2)]
    assert receiver.got() == [b"old", b"a" * 256 + b"b" * 256 + b"c"]


def fatal(receiver: Receiver, status: CompletionStatus, *, under_way: bool = False) -> None:
    """The queue pair is in ERR with its first receive ended by ``status`` and everything else flushed."""
    assert receiver.queue_pair.state is QpState.ERR
    events = list(iter(receiver.queue_pair.poll_event, None))
    assert FatalError(status) in events
    done = [event.completion for event in events if isinstance(event, Completion)]
    assert [one.status for one in done if one.opcode == "receive"] == [status] + [FLUSHED] * 9
    assert [one.status for one in done if one.opcode == "send"] == [FLUSHED] * 2, "a receive's fault is not a send's"
    assert receiver.queue_pair.statistics().naks_sent == 1


@pytest.mark.parametrize(("before", "opcode"), [(False, MIDDLE), (False, LAST), (True, FIRST), (True, ONLY)], ids=repr)
def test_rule_14_a_wrong_sequence_of_opcodes_is_an_invalid_request(before, opcode):
    receiver, psn = Receiver(), 500
    for number in (1, 2):
        receiver.queue_pair.post_send(SendWorkRequest(number, b"x"), 0)
    transmitted(receiver.queue_pair, 0)
    if before:
        receiver.take(FIRST, 500, b"a" * 256)
        psn = 501
    payload = b"b" * 256 if opcode in (FIRST, MIDDLE) else b"b"
    assert receiver.take(opcode, psn, payload) == [(psn, INVALID, 0)]
    fatal(receiver, WRONG)


@pytest.mark.parametrize("mtu", [256, 512, 1024, 2048, 4096])
def test_rule_15_a_wrong_length_is_an_invalid_request(mtu):
    for opcode, size in [
        (FIRST, mtu - 1), (FIRST, mtu + 1), (FIRST, 0), (ONLY, mtu + 1),
        (MIDDLE, mtu - 1), (MIDDLE, mtu + 1), (LAST, 0), (LAST, mtu + 1),
    ]:  # fmt: skip
        receiver = Receiver(mtu=mtu)
        for number in (1, 2):
            receiver.queue_pair.post_send(SendWorkRequest(number, b"x"), 0)
        transmitted(receiver.queue_pair, 0)
        psn = 500
        if opcode in (MIDDLE, LAST):
            receiver.take(FIRST, psn, b"a" * mtu)
            psn = 501
        assert receiver.take(opcode, psn, b"b" * size) == [(psn, INVALID, 0)], (opcode, size)
        fatal(receiver, WRONG)


@pytest.mark.parametrize("mtu", [256, 512, 1024, 2048, 4096])
def test_rule_15_the_lengths_at_the_edge_are_taken(mtu):
    receiver = Receiver(mtu=mtu, length=10 * mtu)
    messages = [b"a" * mtu, b"b" * (2 * mtu), b"c" * (2 * mtu + 1), b""]
    packets = [(ONLY, messages[0]), (FIRST, b"b" * mtu), (LAST, b"b" * mtu)]
    packets += [(FIRST, b"c" * mtu), (MIDDLE, b"c" * mtu), (LAST, b"c"), (ONLY, b"")]
    for number, (opcode, payload) in enumerate(packets):
        assert receiver.take(opcode, 500 + number, payload) == []
    assert receiver.got() == messages


def test_rule_16_a_message_of_exactly_the_posted_size_fits_and_one_byte_more_does_not():
    for size, answer in ((600, []), (601, [(502, INVALID, 0)])):
        receiver = Receiver(length=600)
        for number in (1, 2):
            receiver.queue_pair.post_send(SendWorkRequest(number, b"x"), 0)
        transmitted(receiver.queue_pair, 0)
        data = b"x" * size
        receiver.take(FIRST, 500, data[:256])
        receiver.take(MIDDLE, 501, data[256:512])
        assert receiver.take(LAST, 502, data[512:]) == answer
        if answer:
            fatal(receiver, WRONG)
        else:
            assert receiver.got() == [data]


def test_rule_16_the_first_packet_that_goes_over_the_size_is_refused():
    receiver = Receiver(receives=1, length=300)
    receiver.take(FIRST, 500, b"a" * 256)
    assert receiver.take(MIDDLE, 501, b"b" * 256) == [(501, INVALID, 0)]
    assert [one.status for one in completions(receiver.queue_pair)] == [WRONG]


def test_rule_20_no_receive_draws_an_rnr_nak_of_that_psn_and_nothing_moves_on():
    receiver = Receiver(receives=0)
    for count in (1, 2, 3):
        assert receiver.take(ONLY, 500, b"x", ask=True) == [(500, RNR, 0)]
        assert receiver.queue_pair.statistics().rnr_sent == count
    receiver.offer(1)
    assert receiver.take(ONLY, 500, b"x", ask=True) == [(500, ACK, 1)]
    assert receiver.got() == [b"x"]


@pytest.mark.parametrize("code", range(32))
def test_rule_20_the_rnr_nak_carries_the_timer_of_the_queue_pair(code):
    queue_pair = queue_pair_in(QpState.RTS, min_rnr_timer=code)
    queue_pair.handle_packet(packet(ONLY, 500), 0)
    assert [one.extension[0] for one in transmitted(queue_pair, 0)] == [0x20 | code]


def test_rule_21_after_an_rnr_nak_what_follows_is_dropped_in_silence_until_the_retry():
    receiver = Receiver(receives=0)
    receiver.take(FIRST, 500, b"a" * 256)
    receiver.offer(1)
    assert receiver.take(LAST, 501, b"b", ask=True) == []
    assert receiver.take(ONLY, 502, b"c", ask=True) == []
    assert receiver.take(FIRST, 500, b"a" * 256) == []
    assert receiver.take(ONLY, 502, b"c") == [(501, SEQUENCE, 0)]
    assert receiver.take(LAST, 501, b"b", ask=True) == [(501, ACK, 1)]
    assert receiver.got() == [b"a" * 256 + b"b"]


def test_rule_20_a_message_under_way_needs_no_second_receive():
    receiver = Receiver(receives=1)
    receiver.take(FIRST, 500, b"a" * 256)
    receiver.take(MIDDLE, 501, b"b" * 256)
    assert receiver.take(LAST, 502, b"c", ask=True) == [(502, ACK, 1)]
    assert receiver.take(ONLY, 503, b"d") == [(503, RNR, 1)]


def test_rule_23_the_msn_counts_messages_and_wraps():
    receiver = Receiver()
    receiver.queue_pair._responder.msn = 0xFFFFFE  # sixteen million messages later
    assert receiver.take(FIRST, 500, b"a" * 256, ask=True) == [(500, ACK, 0xFFFFFE)]
    assert receiver.take(LAST, 501, b"b", ask=True) == [(501, ACK, 0xFFFFFF)]
    assert receiver.take(ONLY, 502, ask=True) == [(502, ACK, 0)]
    assert receiver.take(ONLY, 504, ask=True) == [(503, SEQUENCE, 0)]


def test_rule_43_a_message_of_no_bytes_takes_one_psn_one_receive_and_one_msn():
    receiver = Receiver(receives=2)
    assert receiver.take(ONLY, 500, b"", ask=True) == [(500, ACK, 1)]
    assert receiver.take(ONLY, 501, b"", ask=True) == [(501, ACK, 2)]
    assert receiver.got() == [b"", b""]
    assert receiver.take(ONLY, 502, b"") == [(502, RNR, 2)]


def test_acks_that_wait_to_be_sent_become_one_and_never_overtake_a_nak():
    receiver = Receiver()
    for psn in (500, 501, 502):
        receiver.queue_pair.handle_packet(packet(ONLY, psn, ack_request=True), 0)
    receiver.queue_pair.handle_packet(packet(ONLY, 501), 0)
    receiver.queue_pair.handle_packet(packet(ONLY, 504), 0)
    for psn in (503, 504):
        receiver.queue_pair.handle_packet(packet(ONLY, psn, ack_request=True), 0)
    assert receiver.answers() == [(502, ACK, 5), (503, SEQUENCE, 5), (504, ACK, 5)]
    assert receiver.queue_pair.statistics().acknowledges_sent == 3


@pytest.mark.parametrize("state", [QpState.RESET, QpState.INIT, QpState.ERR])
def test_a_queue_pair_below_rtr_or_in_error_drops_in_silence(state):
    queue_pair = queue_pair_in(state)
    queue_pair.handle_packet(packet(ONLY, 500, ack_request=True), 0)
    queue_pair.handle_packet(acknowledge(100), 0)
    assert queue_pair.poll_event() is None
    assert queue_pair.poll_transmit(0) is None


def test_rule_27_the_first_request_in_rtr_is_answered_and_establishes_once():
    queue_pair = queue_pair_in(QpState.RTR)
    for number in (1, 2):
        queue_pair.post_receive(ReceiveWorkRequest(number, 100), 0)
        queue_pair.handle_packet(packet(ONLY, 499 + number, b"early", ack_request=True), 0)
    events = list(iter(queue_pair.poll_event, None))
    assert events[0] == CommunicationEstablished()
    assert [event.completion.data for event in events[1:] if isinstance(event, Completion)] == [b"early"] * 2
    assert len(events) == 3
    assert [(one.psn, one.extension[0]) for one in transmitted(queue_pair, 0)] == [(501, ACK)]


REQUESTS = [
    int(opcode)
    for opcode, info in OPCODES.items()
    if opcode < 0x20 and not info.response and opcode not in (FIRST, MIDDLE, LAST, ONLY)
]
RESPONSES = [int(opcode) for opcode, info in OPCODES.items() if info.response and opcode != ACKNOWLEDGE]


RDMA = (*(int(opcode) for opcode in Opcode if opcode.name.startswith("RC_WRITE")), int(Opcode.RC_READ_REQUEST))


@pytest.mark.parametrize("opcode", [o for o in REQUESTS if o not in RDMA], ids=lambda opcode: Opcode(opcode).name)
def test_a_request_that_this_adapter_does_not_serve_is_an_invalid_request(opcode):
    """IBA vol. 1, 9.7.4.1.4."""
    receiver = Receiver()
    for number in (1, 2):
        receiver.queue_pair.post_send(SendWorkRequest(number, b"x"), 0)
    transmitted(receiver.queue_pair, 0)
    assert receiver.take(opcode, 501) == [(500, SEQUENCE, 0)], "the PSN comes first"
    assert receiver.take(opcode, 499) == [(499, ACK, 0)]
    receiver.queue_pair._responder.naks = 0
    assert receiver.take(opcode, 500) == [(500, INVALID, 0)]
    fatal(receiver, WRONG)


@pytest.mark.parametrize("opcode", REQUESTS, ids=lambda opcode: Opcode(opcode).name)
def test_a_request_that_this_adapter_does_not_serve_is_no_part_of_a_message(opcode):
    receiver = Receiver()
    receiver.take(FIRST, 500, b"a" * 256)
    assert receiver.take(opcode, 501, b"b") == [(501, INVALID, 0)]
    assert receiver.queue_pair.state is QpState.ERR
    assert all(one.status is not OK for one in completions(receiver.queue_pair))


def test_rule_24_the_solicited_mark_is_on_the_last_packet_on_the_wire():
    queue_pair = queue_pair_in(QpState.RTS)
    queue_pair.post_send(SendWorkRequest(1, b"x" * 300, solicited=True), 0)
    queue_pair.post_send(SendWorkRequest(2, b"x"), 0)
    assert [one.solicited for one in transmitted(queue_pair, 0)] == [False, True, False]


@pytest.mark.parametrize("opcode", RESPONSES, ids=lambda opcode: Opcode(opcode).name)
def test_rule_39_a_response_that_nobody_asked_for_completes_nothing(opcode):
    receiver = Receiver()
    receiver.queue_pair.post_send(SendWorkRequest(1, b"x"), 0)
    transmitted(receiver.queue_pair, 0)
    for psn in (99, 100, 101, 500):
        receiver.queue_pair.handle_packet(packet(opcode, psn, b"data", aeth=ACK << 24), 0)
    assert receiver.queue_pair.poll_event() is None
    assert receiver.answers() == []


def test_rule_45_nothing_is_delivered_after_the_error():
    receiver = Receiver()
    receiver.take(ONLY, 500, b"good")
    receiver.take(LAST, 501, b"bad")
    assert receiver.take(ONLY, 501, b"late", ask=True) == []
    assert receiver.take(ONLY, 502, b"late", ask=True) == []
    done = completions(receiver.queue_pair)
    assert [(one.status, one.data) for one in done if one.data] == [(OK, b"good")]
    assert len(done) == 10


def test_rule_38_a_fatal_nak_moves_the_queue_pair_to_error_and_flushes_both_queues():
    receiver = Receiver(receives=2)
    for number in (1, 2):
        receiver.queue_pair.post_send(SendWorkRequest(number, b"x"), 0)
    sent: list[Packet] = transmitted(receiver.queue_pair, 0)
    assert [one.psn for one in sent] == [100, 101]
    receiver.queue_pair.handle_packet(acknowledge(100, 0x62), 0)
    events = list(iter(receiver.queue_pair.poll_event, None))
    done = [(one.completion.wr_id, one.completion.opcode, one.completion.status) for one in events[:-1]]
    error = CompletionStatus.REMOTE_ACCESS_ERROR
    assert done == [(1, "send", error), (2, "send", FLUSHED), (0, "receive", FLUSHED), (1, "receive", FLUSHED)]
    assert events[-1] == FatalError(error)
    assert receiver.queue_pair.state is QpState.ERR
    assert receiver.queue_pair.poll_timeout() is None


def test_sqd_answers_requests_takes_acks_and_begins_no_message():
    queue_pair = queue_pair_in(QpState.RTS)
    queue_pair.post_receive(ReceiveWorkRequest(7, 100), 0)
    queue_pair.post_send(SendWorkRequest(1, b"x" * 300), 0)
    first = queue_pair.poll_transmit(0)
    assert first is not None
    queue_pair.modify(QpState.SQD)
    queue_pair.post_send(SendWorkRequest(2, b"y"), 0)
    queue_pair.handle_packet(packet(ONLY, 500, b"in", ack_request=True), 0)
    out = transmitted(queue_pair, 0)
    assert [(one.opcode, one.psn) for one in out] == [(ACKNOWLEDGE, 500), (LAST, 101)]
    assert out[1].ack_request
    queue_pair.handle_timeout(queue_pair.poll_timeout() or 0)
    assert [one.psn for one in transmitted(queue_pair, 68_000_000)] == [100, 101], "a drain still repairs losses"
    queue_pair.handle_packet(acknowledge(101), 68_000_000)
    assert [(one.wr_id, one.opcode) for one in completions(queue_pair)] == [(7, "receive"), (1, "send")]
    assert queue_pair.poll_timeout() is None
    queue_pair.modify(QpState.RTS)
    assert [one.psn for one in transmitted(queue_pair, 68_000_000)] == [102]
