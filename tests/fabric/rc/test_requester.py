"""The requester, rule by rule (wire.md 8): what it sends, when it resends, what it believes of an acknowledgement."""

import pytest

from fabric.rc.qp_state import QpState
from fabric.rc.requester import WINDOW
from fabric.rc.work import CompletionStatus
from fabric.units import MILLISECOND
from fabric.wire.fast import FrameBuilder
from fabric.wire.headers import RNR_TIMER, ack_syndrome, local_ack_timeout, nak_syndrome, rnr_syndrome
from fabric.wire.opcodes import Opcode
from tests.support.rc_pair import HOSTS, LATENCY, RcPair

ACKNOWLEDGE = int(Opcode.RC_ACKNOWLEDGE)
SUCCESS = CompletionStatus.SUCCESS


def answer(pair: RcPair, psn: int, syndrome: int, opcode: int = ACKNOWLEDGE) -> None:
    """An AETH from ``b`` for ``a``, forged."""
    builder = FrameBuilder(
        source_mac=HOSTS[pair.b.ip],
        destination_mac=HOSTS[pair.a.ip],
        source_ip=pair.b.ip,
        destination_ip=pair.a.ip,
        udp_source_port=49152,
    )
    aeth = (syndrome << 24).to_bytes(4, "big")
    pair.inject(pair.a, builder.build(opcode, psn, destination_qpn=int(pair.a.qp.qpn), extension=aeth))


def deaf(count: int = 3, **changes: int) -> RcPair:
    """``a`` has sent ``count`` one-packet messages, PSN 100 onward, into nothing."""
    pair = RcPair(**changes)
    pair.fate = lambda packet: []
    pair.send(pair.a, *[bytes([n]) for n in range(count)])
    return pair


@pytest.mark.parametrize("path_mtu", [256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize(
    ("size", "packets"), [(0, 1), (1, 1), (-1, 1), (0.5, 1), (1.0, 1), (1.01, 2), (2.0, 2), (3.5, 4)]
)
def test_messages_are_cut_into_first_middle_last_only(path_mtu, size, packets):
    """Rules 15 and 43."""
    length = int(size * path_mtu) if isinstance(size, float) else size
    pair = RcPair(path_mtu=path_mtu)
    pair.receive(pair.b)
    message = bytes(n & 255 for n in range(length))
    pair.send(pair.a, message)
    pair.run()
    assert pair.b.received == [message]
    names = [Opcode(packet.opcode).name for packet in pair.a.sent]
    expected = (
        ["RC_SEND_ONLY"] if packets == 1 else ["RC_SEND_FIRST", *["RC_SEND_MIDDLE"] * (packets - 2), "RC_SEND_LAST"]
    )
    assert names == expected
    assert [packet.psn for packet in pair.a.sent] == list(range(100, 100 + packets))


def test_rule_2_psn_wraps_within_a_message():
    pair = RcPair(psn_a=0xFFFFFE, psn_b=0xFFFFFE)
    pair.receive(pair.b, 2)
    pair.receive(pair.a, 2)
    for host in (pair.a, pair.b):
        pair.send(host, b"x" * 4000, b"y" * 4000)
    pair.run()
    assert pair.a.received == pair.b.received == [b"x" * 4000, b"y" * 4000]
    assert [p.psn for p in pair.a.sent if p.opcode != ACKNOWLEDGE] == [0xFFFFFE, 0xFFFFFF, *range(6)]


def test_rule_29_one_acknowledgement_completes_all_before_it_in_order():
    pair = deaf(5)
    answer(pair, 103, ack_syndrome())
    assert [(c.wr_id, c.status) for c in pair.a.of("send")] == [(n, SUCCESS) for n in (1, 2, 3, 4)]
    answer(pair, 104, ack_syndrome())
    assert len(pair.a.of("send")) == 5
    assert pair.a.adapter.poll_timeout() is None


def test_rule_30_the_last_packet_asks_and_the_window_is_bounded():
    pair = RcPair()
    pair.fate = lambda packet: []
    pair.send(pair.a, *[b"x"] * (WINDOW + 50))
    assert len(pair.a.sent) == WINDOW
    assert pair.a.sent[-1].ack_request
    answer(pair, 100 + WINDOW - 1, ack_syndrome())
    assert len(pair.a.sent) == WINDOW + 50
    assert pair.a.sent[-1].ack_request


def test_rule_31_sequence_nak_acknowledges_what_is_before_and_goes_back_to_it():
    pair = deaf(5)
    answer(pair, 102, nak_syndrome(0))
    assert [c.wr_id for c in pair.a.of("send")] == [1, 2]
    assert [p.psn for p in pair.a.sent[5:]] == [102, 103, 104]


def test_rule_32_timeout_goes_back_to_the_oldest_and_progress_refills_the_retries():
    pair = deaf(2, retry_count=2)
    timeout = local_ack_timeout(14)
    for turn in (1, 2):
        assert pair.a.adapter.poll_timeout() == turn * timeout
        pair.step()
        assert [p.psn for p in pair.a.sent[2 * turn :]] == [100, 101]
    answer(pair, 100, ack_syndrome())
    for _ in range(2):  # all retries again
        pair.step()
    assert [p.psn for p in pair.a.sent[6:]] == [101, 101]
    assert pair.a.qp.state is QpState.RTS


@pytest.mark.parametrize("retries", [0, 1, 3, 7])
def test_rule_33_retry_count_plus_one_transmissions_then_error(retries):
    pair = deaf(2, retry_count=retries)
    pair.run()
    assert [p.psn for p in pair.a.sent] == [100, 101] * (retries + 1)
    assert pair.a.failures == [CompletionStatus.RETRY_EXCEEDED]
    assert [c.status for c in pair.a.of("send")] == [CompletionStatus.RETRY_EXCEEDED, CompletionStatus.FLUSHED]
    assert pair.a.qp.state is QpState.ERR
    assert pair.now == (retries + 1) * local_ack_timeout(14)


def test_rule_34_rnr_waits_at_least_the_coded_time_and_the_timeout_does_not_fire():
    pair = deaf(2)
    answer(pair, 100, rnr_syndrome(20))
    assert pair.a.adapter.poll_timeout() == pair.now + RNR_TIMER[20]
    before = len(pair.a.sent)
    pair.step()
    assert pair.now == RNR_TIMER[20]
    assert [p.psn for p in pair.a.sent[before:]] == [100, 101]
    assert pair.a.qp.statistics().timeouts == 0


@pytest.mark.parametrize("retries", [0, 2])
def test_rule_34_rnr_retries_have_a_count_of_their_own(retries):
    pair = RcPair(rnr_retry=retries, retry_count=0)
    pair.send(pair.a, b"nobody has a receive")
    pair.run()
    assert pair.a.failures == [CompletionStatus.RNR_RETRY_EXCEEDED]
    assert len(pair.a.sent) == retries + 1


def test_rule_34_seven_is_for_ever():
    pair = RcPair(rnr_retry=7, min_rnr_timer=14)
    pair.send(pair.a, b"patience")
    pair.run(limit=300 * MILLISECOND)
    assert len(pair.a.sent) > 50
    pair.receive(pair.b)
    pair.run()
    assert pair.b.received == [b"patience"]


def test_rule_35_a_ghost_acknowledgement_is_dropped():
    pair = deaf(3)
    for psn in (103, 104, 0x700000):
        answer(pair, psn, ack_syndrome())
    assert pair.a.completions == []
    answer(pair, 104, nak_syndrome(0))
    assert pair.a.completions == []


def test_rule_36_answers_behind_the_oldest_are_ignored():
    pair = deaf(3)
    answer(pair, 101, ack_syndrome())
    sent = len(pair.a.sent)
    for syndrome in (ack_syndrome(), nak_syndrome(0), nak_syndrome(1), rnr_syndrome(1)):
        for psn in (99, 100, 101, 0xFFFFFF):
            answer(pair, psn, syndrome)
    assert (len(pair.a.sent), len(pair.a.completions), pair.a.failures) == (sent, 2, [])


def test_rule_37_a_second_nak_starts_no_second_go_back():
    pair = deaf(4)
    answer(pair, 100, nak_syndrome(0))
    answer(pair, 100, nak_syndrome(0))
    assert [p.psn for p in pair.a.sent[4:]] == [100, 101, 102, 103]
    pair.step()  # the timeout may
    assert [p.psn for p in pair.a.sent[8:]] == [100, 101, 102, 103]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (1, CompletionStatus.REMOTE_INVALID_REQUEST),
        (2, CompletionStatus.REMOTE_ACCESS_ERROR),
        (3, CompletionStatus.REMOTE_OPERATIONAL_ERROR),
    ],
)
def test_rule_38_other_naks_are_fatal(code, status):
    pair = deaf(3)
    pair.receive(pair.a)
    answer(pair, 101, nak_syndrome(code))
    assert [c.status for c in pair.a.of("send")] == [SUCCESS, status, CompletionStatus.FLUSHED]
    assert [c.status for c in pair.a.of("receive")] == [CompletionStatus.FLUSHED]
    assert pair.a.failures == [status]


@pytest.mark.parametrize("opcode", [Opcode.RC_READ_RESPONSE_ONLY, Opcode.RC_ATOMIC_ACKNOWLEDGE])
def test_rule_39_an_unsolicited_response_completes_nothing(opcode):
    pair = deaf(1)
    builder = FrameBuilder(
        source_mac=HOSTS[pair.b.ip],
        destination_mac=HOSTS[pair.a.ip],
        source_ip=pair.b.ip,
        destination_ip=pair.a.ip,
        udp_source_port=49152,
    )
    extension = bytes(4 if opcode is Opcode.RC_READ_RESPONSE_ONLY else 12)
    frame = builder.build(int(opcode), 100, destination_qpn=int(pair.a.qp.qpn), extension=extension)
    pair.inject(pair.a, frame)
    assert pair.a.completions == []


def test_rule_41_rnr_in_the_middle_restarts_from_that_packet():
    pair = RcPair()
    pair.fate = lambda packet: []
    pair.send(pair.a, b"x" * 5000)
    answer(pair, 102, rnr_syndrome(1))
    pair.step()
    assert [p.psn for p in pair.a.sent[5:]] == [102, 103, 104]


def test_rule_44_timeout_zero_never_retransmits():
    pair = deaf(2, timeout=0)
    assert pair.a.adapter.poll_timeout() is None
    answer(pair, 101, ack_syndrome())
    assert len(pair.a.of("send")) == 2


def test_an_idle_connection_has_no_timer():
    pair = RcPair()
    pair.receive(pair.b, 3)
    pair.send(pair.a, b"1", b"2", b"3")
    pair.run()
    assert pair.now == 2 * LATENCY
    assert pair.a.adapter.poll_timeout() is None
