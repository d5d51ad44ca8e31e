"""The forwarding table: entries, and the choice among equal-cost ports."""

import pytest

from fabric.netswitch import ForwardingTable

SERVER = bytes([10, 77, 0, 2])


def flows(count: int) -> list[bytes]:
    return [SERVER + number.to_bytes(2, "big") for number in range(49_152, 49_152 + count)]


def test_unknown_destination_has_no_ports():
    table = ForwardingTable({SERVER: [1, 2]})
    assert table.ports(SERVER) == (1, 2)
    assert table.ports(bytes(4)) == ()
    assert list(table) == [(SERVER, (1, 2))]
    assert len(table) == 1


def test_flow_keeps_its_port():
    first, second = (ForwardingTable({SERVER: [0, 1, 2]}, salt="leaf1") for _ in range(2))
    for flow in flows(50):
        chosen = first.choose((0, 1, 2), flow)
        assert chosen in (0, 1, 2)
        assert [first.choose((0, 1, 2), flow), second.choose((0, 1, 2), flow)] == [chosen, chosen]


@pytest.mark.parametrize("ways", [2, 3, 4, 8])
@pytest.mark.parametrize("salt", ["", "s1", "leaf1", "spine2"])
def test_flows_spread_over_the_ports(ways, salt):
    ports = tuple(range(10, 10 + ways))
    table = ForwardingTable({SERVER: ports}, salt)
    chosen = [table.choose(ports, flow) for flow in flows(2_000)]
    share = 2_000 / ways
    assert all(0.7 * share < chosen.count(port) < 1.3 * share for port in ports), [chosen.count(port) for port in ports]


def test_second_tier_spreads_the_flows_that_the_first_sent_its_way():
    tiers = [ForwardingTable({SERVER: [0, 1]}, salt) for salt in ("s1", "s2")]
    sent_to_0 = [flow for flow in flows(2_000) if tiers[0].choose((0, 1), flow) == 0]
    again_0 = [flow for flow in sent_to_0 if tiers[1].choose((0, 1), flow) == 0]
    assert 0.3 < len(again_0) / len(sent_to_0) < 0.7


def test_entries_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="names no port"):
        ForwardingTable({SERVER: []})
    with pytest.raises(ValueError, match="not an IP address"):
        ForwardingTable({b"server": [1]})
