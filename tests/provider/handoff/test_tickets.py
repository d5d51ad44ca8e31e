"""What a special WSAPROTOCOL_INFOW carries, and everything about it that must be refused (U1, U2, U17; G9, G10)."""

from dataclasses import replace

import pytest

from fabric.ids import ProcessInstance
from provider.catalog import SAN_ENTRY
from provider.errors import WsaErrno, WsaError
from provider.handoff.registry import Grant
from provider.handoff.tickets import is_genuine, seal
from provider.protocol_info import SIZE, WSAPROTOCOL_INFOW
from tests.support.handoff import LIFETIME, NODE_KEY, SOCKET, SOURCE, TARGET, THIRD, Bench


def refused(bench: Bench, info: bytes, process: ProcessInstance = TARGET) -> None:
    before = bench.registry.statistics()
    with pytest.raises(WsaError) as caught:
        bench.check(info, process)
    assert caught.value.wsa is WsaErrno.WSAEINVAL
    assert bench.registry.statistics() == replace(before, refused=before.refused + 1)
    assert bench.events() == []


def test_a_ticket_keeps_every_member_of_the_entry() -> None:
    bench = Bench()
    info = WSAPROTOCOL_INFOW.unpack(bench.ticket(bench.opened()))
    assert info.dwProviderReserved != 0
    assert info.protocol_name == SAN_ENTRY.protocol_name
    plain = replace(info, szProtocol=SAN_ENTRY.szProtocol, dwProviderReserved=SAN_ENTRY.dwProviderReserved)
    assert plain == SAN_ENTRY


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_scenario_22_no_byte_may_change(mask: int) -> None:
    bench = Bench()
    info = bench.ticket(bench.opened())
    for position in range(SIZE):
        altered = bytearray(info)
        altered[position] ^= mask
        refused(bench, bytes(altered))
    assert isinstance(bench.check(info), Grant), "the good copy must still be good"


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_the_digest_alone_finds_every_altered_byte(mask: int) -> None:
    info = seal(replace(SAN_ENTRY, dwProviderReserved=9), NODE_KEY, bytes(range(16)), TARGET).pack()
    assert is_genuine(info, NODE_KEY, TARGET)
    for position in range(SIZE):
        altered = bytearray(info)
        altered[position] ^= mask
        assert not is_genuine(bytes(altered), NODE_KEY, TARGET), position


def test_scenario_22_lengths_zero_and_plain_entries() -> None:
    bench = Bench()
    info = bench.ticket(bench.opened())
    for bad in (info[:-1], info[:115], info[:3], b"", info + b"\0\0\0", bytes(SIZE), SAN_ENTRY.pack()):
        refused(bench, bad)
    assert isinstance(bench.check(info), Grant)


def test_scenario_22_another_nodes_ticket() -> None:
    here, there = Bench(), Bench(key=bytes(32))
    mine, foreign = here.ticket(here.opened()), there.ticket(there.opened())
    assert mine[:112] == foreign[:112]
    assert mine[112:116] == foreign[112:116], "the same number on both nodes is the hard case"
    refused(here, foreign)
    assert isinstance(here.check(mine), Grant)


@pytest.mark.parametrize("process", [THIRD, SOURCE, ProcessInstance(TARGET.pid, TARGET.start_time + 1)])
def test_scenarios_5_and_25_only_the_named_process_instance(process: ProcessInstance) -> None:
    bench = Bench()
    info = bench.ticket(bench.opened())
    refused(bench, info, process)
    assert isinstance(bench.check(info), Grant)


def test_scenario_21_a_replayed_ticket() -> None:
    bench = Bench()
    info = bench.ticket(bench.opened())
    owner = bench.redeem(info)
    bench.events()
    refused(bench, info)
    assert bench.registry.controlling(SOCKET) == owner


def test_an_expired_ticket_even_before_the_timer_ran() -> None:
    bench = Bench()
    info = bench.ticket(bench.opened())
    bench.now += LIFETIME - 1
    bench.check(info)
    bench.now += 1
    refused(bench, info)
