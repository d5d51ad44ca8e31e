"""From a topology to engines: ports, names, equal-cost paths, the longest round trip."""

from pathlib import Path

from fabric.assembly import Plan, ip_bytes, mac_of
from fabric.topology.yaml_model import load
from fabric.units import MILLISECOND

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


def plan(name: str) -> Plan:
    return Plan(load(TOPOLOGIES / name / "topology.yaml"))


def test_ports_are_numbered_in_the_order_of_the_links():
    pair = plan("pair")
    assert [(link.name, link.source_port, link.sink_port) for link in pair.links] == [
        ("client->s1", 0, 0),
        ("s1->client", 0, 0),
        ("server->s1", 0, 1),
        ("s1->server", 1, 0),
    ]
    assert [link.name for link in pair.links_from("s1")] == ["s1->client", "s1->server"]
    assert [link.name for link in pair.links_to("s1")] == ["client->s1", "server->s1"]


def test_addresses_are_of_the_topology_and_macs_are_local_and_unique():
    star = plan("star")
    addresses = star.addresses()
    assert len(addresses) == len(set(addresses.values())) == 8
    assert all(mac == mac_of(ip) and mac[0] & 3 == 2 for ip, mac in addresses.items())
    assert set(star.names()) == set(star.topology.hosts)


def test_a_leaf_knows_both_spines_to_a_far_host_and_one_port_to_its_own():
    fabric = plan("leaf-spine")
    table = fabric.network_switch("leaf1").table
    near, far = (ip_bytes(fabric.names()[name]) for name in ("h1", "h8"))
    sinks = {link.source_port: link.sink for link in fabric.links_from("leaf1")}
    assert [sinks[port] for port in table.ports(near)] == ["h1"]
    assert sorted(sinks[port] for port in table.ports(far)) == ["spine1", "spine2"]


def test_the_longest_round_trip_covers_latency_and_jitter_of_every_hop():
    assert plan("pair").max_round_trip() == 2 * 2 * (2 * MILLISECOND + MILLISECOND // 5)
    assert plan("leaf-spine").max_round_trip() == 2 * 4 * (MILLISECOND + MILLISECOND // 10)
