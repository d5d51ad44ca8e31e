"""The network switch: where frames go, what it refuses, what it counts."""

import random

import pytest

from fabric.engine import Transmit
from fabric.ids import NodeName
from fabric.netswitch import ForwardingTable, FrameRefused, NetworkSwitch
from fabric.wire.fast import FrameBuilder
from tests.support.contract import check_engine

CLIENT, SERVER, STRANGER = (bytes([10, 77, 0, last]) for last in (1, 2, 99))
V6_SERVER = bytes.fromhex("fd77") + bytes(13) + b"\x02"
SEND_ONLY = 0x04


def frame(destination: bytes = SERVER, *, source: bytes = CLIENT, udp_source_port: int = 50_000, psn: int = 0) -> bytes:
    builder = FrameBuilder(
        source_mac=b"\x02\0" + source[-4:],
        destination_mac=b"\x02\0" + destination[-4:],
        source_ip=source,
        destination_ip=destination,
        udp_source_port=udp_source_port,
    )
    return builder.build(SEND_ONLY, psn, b"payload!", destination_qpn=0x12)


def network_switch(entries: dict[bytes, list[int]] | None = None) -> NetworkSwitch:
    name = NodeName("s1")
    return NetworkSwitch(name, ForwardingTable(entries or {CLIENT: [0], SERVER: [1], V6_SERVER: [2]}, salt=name))


def forward(engine: NetworkSwitch, port: int, data: bytes, now: int = 5) -> Transmit | FrameRefused:
    engine.handle_frame(port, data, now)
    outcome = engine.poll_transmit(now) or engine.poll_event()
    assert outcome is not None
    assert engine.poll_transmit(now) is None
    assert engine.poll_event() is None
    return outcome


def test_frame_leaves_at_once_by_its_destination_unchanged():
    engine = network_switch()
    assert forward(engine, 0, frame(SERVER)) == Transmit(1, frame(SERVER), 5)
    back = frame(CLIENT, source=SERVER)
    assert forward(engine, 1, back) == Transmit(0, back, 5)


def test_ipv6_destination_is_forwarded_too():
    data = frame(V6_SERVER, source=bytes.fromhex("fd77") + bytes(13) + b"\x01")
    assert forward(network_switch(), 0, data) == Transmit(2, data, 5)


def test_frames_leave_in_the_order_in_which_they_came():
    engine = network_switch()
    frames = [frame(psn=psn) for psn in range(20)]
    for data in frames:
        engine.handle_frame(0, data, 5)
    assert [transmit.frame for transmit in iter(lambda: engine.poll_transmit(5), None)] == frames


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(STRANGER), "unreachable"),
        (frame(CLIENT), "ingress-port"),
        (b"", "malformed"),
        (frame(SERVER)[:20], "malformed"),
        (frame(SERVER)[:12] + b"\x88\xb5" + bytes(60), "malformed"),
    ],
)
def test_frame_without_a_way_out_is_refused_and_counted(data, reason):
    engine = network_switch()
    refused = forward(engine, 0, data)
    assert refused == FrameRefused(NodeName("s1"), 0, reason, data, 5)
    assert refused.comment == f"refused by s1, port 0: {reason}"
    assert engine.statistics().refused_by(reason) == 1
    assert engine.statistics().frames_out == 0


def test_flow_keeps_its_path_and_flows_spread_over_equal_cost_ports():
    engine = network_switch({SERVER: [1, 2, 3]})
    taken: dict[int, int] = {}
    for udp_source_port in range(49_152, 49_152 + 600):
        ports = [
            forward(engine, 0, frame(udp_source_port=udp_source_port, psn=psn)).port for psn in (0, 1, 0x00FF_FFFF)
        ]
        assert len(dict.fromkeys(ports)) == 1, f"flow {udp_source_port} took {ports}"
        taken[ports[0]] = taken.get(ports[0], 0) + 1
    assert sorted(taken) == [1, 2, 3]
    assert min(taken.values()) > 140, taken


def test_counters_are_kept_per_port():
    engine = network_switch()
    for psn in range(3):
        forward(engine, 0, frame(SERVER, psn=psn))
    forward(engine, 1, frame(STRANGER))
    size = len(frame(SERVER))
    first, second = engine.statistics().ports
    assert (first.port, first.frames_in, first.bytes_in, first.frames_out, first.bytes_out) == (0, 3, 3 * size, 0, 0)
    assert (second.port, second.frames_in, second.frames_out, second.bytes_out) == (1, 1, 3, 3 * size)
    assert (first.refused, second.refused) == ((), (("unreachable", 1),))


def test_random_and_damaged_bytes_never_raise_and_are_all_accounted_for():
    seed = 77
    rng = random.Random(seed)
    engine = network_switch({SERVER: [1, 2], CLIENT: [0]})
    template = frame(SERVER)
    for number in range(5_000):
        data = bytearray(template) if number % 2 else bytearray(rng.randbytes(rng.randrange(100)))
        for _ in range(number % 5):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        engine.handle_frame(number % 4, bytes(data[: rng.randrange(len(data) + 1)]), number)
    given_out = len(list(iter(lambda: engine.poll_transmit(0), None)))
    refused = len(list(iter(engine.poll_event, None)))
    assert given_out + refused == engine.statistics().frames_in == 5_000, f"seed {seed}"
    assert given_out == engine.statistics().frames_out > 0


def test_network_switch_keeps_the_engine_contract():
    stimuli = [(number % 3, frame(destination, psn=number)) for number in range(10) for destination in (CLIENT, SERVER)]
    check_engine(network_switch, [*stimuli, (0, b""), (0, frame(STRANGER))], ports=(0, 1, 2, 77))
