"""The responder, rule by rule (wire.md 8): what it executes, what it answers, what it keeps silent about."""

import pytest

from fabric.rc.events import CommunicationEstablished
from fabric.rc.qp_state import QpState
from fabric.rc.work import CompletionStatus
from fabric.wire.fast import FrameBuilder
from fabric.wire.opcodes import Opcode
from tests.support.rc_pair import HOSTS, LATENCY, RcPair

FIRST, MIDDLE, LAST, ONLY = (int(getattr(Opcode, f"RC_SEND_{name}")) for name in ("FIRST", "MIDDLE", "LAST", "ONLY"))
MTU = 1024


class Forger:
    """Says anything to ``b`` in the name of ``a``; notes what ``b`` answers."""

    def __init__(self, receives: int = 10, length: int = 65_536, **changes: int) -> None:
        self.pair = RcPair(psn_a=100, **changes)
        self.pair.fate = lambda packet: []
        self.pair.receive(self.pair.b, receives, length)
        self.builder = FrameBuilder(
            source_mac=HOSTS[self.pair.a.ip],
            destination_mac=HOSTS[self.pair.b.ip],
            source_ip=self.pair.a.ip,
            destination_ip=self.pair.b.ip,
            udp_source_port=50_000,
        )

    def say(
        self, opcode: int, psn: int, payload: bytes = b"", *, ask: bool = True, **options
    ) -> list[tuple[int, int, int]]:
        """The answers as (PSN, syndrome, MSN)."""
        b = self.pair.b
        before = len(b.sent)
        options = {"destination_qpn": int(b.qp.qpn)} | options
        self.pair.inject(b, self.builder.build(opcode, psn, payload, ack_request=ask, **options))
        return [
            (p.psn, p.extension[0], int.from_bytes(p.extension[1:], "big"))
            for p in b.sent[before:]
            if p.opcode == int(Opcode.RC_ACKNOWLEDGE)
        ]


ACK, NAK_SEQUENCE, NAK_INVALID = 0x1F, 0x60, 0x61


def test_rule_3_in_order_is_executed_and_acknowledged_only_when_asked():
    forger = Forger()
    assert forger.say(ONLY, 100, b"a", ask=False) == []
    assert forger.say(ONLY, 101, b"b") == [(101, ACK, 2)]
    assert forger.pair.b.received == [b"a", b"b"]


def test_rules_4_and_5_a_gap_draws_one_nak_until_the_next_in_order():
    forger = Forger()
    assert forger.say(ONLY, 102, b"c") == [(100, NAK_SEQUENCE, 0)]
    assert forger.say(ONLY, 103, b"d") == []
    assert forger.say(ONLY, 100, b"a") == [(100, ACK, 1)]
    assert forger.say(ONLY, 103, b"d") == [(101, NAK_SEQUENCE, 1)]
    assert forger.pair.b.received == [b"a"]


def test_rules_6_and_7_a_duplicate_is_acknowledged_again_with_the_last_psn_and_not_executed():
    forger = Forger()
    for psn in (100, 101, 102):
        forger.say(ONLY, psn, b"x")
    assert forger.say(ONLY, 100, b"x", ask=False) == [(102, ACK, 3)]
    assert len(forger.pair.b.received) == 3
    assert forger.pair.b.qp.statistics().duplicates_received == 1


def test_rule_8_a_duplicate_within_a_message_disturbs_nothing():
    forger = Forger()
    forger.say(ONLY, 100, b"before")
    forger.say(FIRST, 101, b"f" * MTU)
    forger.say(ONLY, 100, b"before")
    forger.say(FIRST, 101, b"f" * MTU)
    forger.say(MIDDLE, 102, b"m" * MTU)
    assert forger.say(LAST, 103, b"l") == [(103, ACK, 2)]
    assert forger.pair.b.received[1] == b"f" * MTU + b"m" * MTU + b"l"


@pytest.mark.parametrize(
    ("opened", "opcode", "payload"),
    [
        (False, MIDDLE, bytes(MTU)),
        (False, LAST, b"x"),
        (True, FIRST, bytes(MTU)),
        (True, ONLY, b"x"),
        (False, FIRST, bytes(MTU - 4)),
        (False, FIRST, bytes(MTU + 4)),
        (True, MIDDLE, bytes(MTU - 4)),
        (True, LAST, b""),
        (True, LAST, bytes(MTU + 4)),
        (False, ONLY, bytes(MTU + 4)),
    ],
)
def test_rules_14_and_15_wrong_order_of_opcodes_and_wrong_lengths_are_fatal(opened, opcode, payload):
    forger = Forger()
    psn = 100
    if opened:
        forger.say(FIRST, 100, bytes(MTU), ask=False)
        psn = 101
    assert forger.say(opcode, psn, payload) == [(psn, NAK_INVALID, 0)]
    b = forger.pair.b
    assert b.qp.state is QpState.ERR
    assert b.of("receive")[0].status is CompletionStatus.LOCAL_LENGTH_ERROR
    assert {c.status for c in b.of("receive")[1:]} == {CompletionStatus.FLUSHED}
    assert forger.say(ONLY, psn, b"x") == []


def test_rule_16_longer_than_the_posted_receive():
    forger = Forger(receives=1, length=1500)
    forger.say(FIRST, 100, bytes(MTU))
    assert forger.say(LAST, 101, bytes(477)) == [(101, NAK_INVALID, 0)]
    assert forger.pair.b.of("receive")[0].status is CompletionStatus.LOCAL_LENGTH_ERROR
    exact = Forger(receives=1, length=1500)
    exact.say(FIRST, 100, bytes(MTU))
    assert exact.say(LAST, 101, bytes(476)) == [(101, ACK, 1)]


def test_rules_20_and_21_no_receive_draws_rnr_and_the_rest_is_dropped_until_the_retry():
    forger = Forger(receives=0, min_rnr_timer=9)
    assert forger.say(ONLY, 100, b"a") == [(100, 0x20 | 9, 0)]
    assert forger.say(ONLY, 101, b"b") == []
    forger.pair.receive(forger.pair.b, 2)
    assert forger.say(ONLY, 101, b"b") == []
    assert forger.say(ONLY, 100, b"a") == [(100, ACK, 1)]
    assert forger.say(ONLY, 101, b"b") == [(101, ACK, 2)]
    assert forger.pair.b.received == [b"a", b"b"]


def test_rule_23_msn_wraps():
    forger = Forger()
    forger.pair.b.qp._responder.msn = 0xFFFFFF
    assert forger.say(ONLY, 100, b"a") == [(100, ACK, 0)]


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"destination_qpn": 0x123}, 3),
        ({"pkey": 0x1234}, 2),
        ({"opcode": 0x24}, 3),
        ({"opcode": 0x64}, 3),
    ],
)
def test_rule_25_what_is_not_for_a_connection_is_dropped_and_counted(options, cause):
    forger = Forger()
    opcode = options.pop("opcode", ONLY)
    assert forger.say(opcode, 100, b"x", **options) == []
    assert forger.pair.b.received == []
    dropped = forger.pair.b.adapter.statistics().dropped
    assert sum(dropped) == 1
    assert dropped[cause] == 1 or dropped[0] == 1


def test_rule_25_another_source_address_is_dropped():
    forger = Forger()
    forger.builder = FrameBuilder(
        source_mac=HOSTS[forger.pair.a.ip],
        destination_mac=HOSTS[forger.pair.b.ip],
        source_ip=bytes((10, 0, 0, 9)),
        destination_ip=forger.pair.b.ip,
        udp_source_port=50_000,
    )
    assert forger.say(ONLY, 100, b"x") == []
    assert forger.pair.b.adapter.statistics().dropped[4] == 1


def test_rule_26_the_source_port_is_no_part_of_the_connection():
    forger = Forger()
    for number in range(5):
        forger.builder = FrameBuilder(
            source_mac=HOSTS[forger.pair.a.ip],
            destination_mac=HOSTS[forger.pair.b.ip],
            source_ip=forger.pair.a.ip,
            destination_ip=forger.pair.b.ip,
            udp_source_port=50_000 + number,
        )
        assert forger.say(ONLY, 100 + number, b"x") == [(100 + number, ACK, number + 1)]


def test_rule_27_the_first_request_says_that_the_connection_stands():
    forger = Forger()
    assert forger.pair.b.events == []
    forger.say(ONLY, 100, b"x")
    forger.say(ONLY, 101, b"y")
    assert [type(e) for e in forger.pair.b.events].count(CommunicationEstablished) == 1


@pytest.mark.parametrize("size", range(9))
def test_rule_28_pad_bytes_are_not_delivered(size):
    forger = Forger()
    forger.say(ONLY, 100, b"p" * size)
    assert forger.pair.b.received == [b"p" * size]


def test_one_acknowledgement_covers_a_burst():
    pair = RcPair()
    pair.receive(pair.b, 10)
    pair.send(pair.a, *[b"x"] * 10)
    pair.run()
    assert len(pair.a.of("send")) == 10
    assert len(pair.b.sent) < 5
    assert pair.now == 2 * LATENCY
