"""Channels: over ipc, and over tcp with CURVE; unknown keys, false names and wrong shapes get nowhere."""

import select
import time

import pytest
import zmq

from fabric.errors import EnvironmentLacks, UsageError
from fabric.live.curve import Credentials, new_keys
from fabric.live.envelope import ENVELOPE_MAX
from fabric.live.zmq_channel import Endpoints, NodeChannels, ipc_address


def receive(channels: NodeChannels, *others: NodeChannels, count: int = 1, seconds: float = 10) -> list:
    """The next ``count`` envelopes; ``others`` are kept going meanwhile."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count:
        left = deadline - time.monotonic()
        assert left > 0, f"only {len(found)} envelopes within {seconds} s"
        got, _ = channels.drain()
        found += got
        for other in others:
            other.drain()
        fds = [fd for each in (channels, *others) for fd in each.file_descriptors()]
        if not got:
            select.select(fds, [], [], min(left, 0.05))
    return found


@pytest.fixture
def made():
    channels: list[NodeChannels] = []

    def make(*arguments) -> NodeChannels:
        channels.append(NodeChannels(*arguments))
        return channels[-1]

    yield make
    for each in channels:
        each.close()


@pytest.fixture
def keys():
    return {name: new_keys() for name in ("s1", "a", "b", "stranger")}


def credentials(keys, name: str, *known: str) -> Credentials:
    return Credentials(keys[name], {other: keys[other].public for other in known or ("s1", "a", "b")})


def tcp_pair(made, keys):
    s1 = made("s1", Endpoints("tcp://127.0.0.1:*", {}), credentials(keys, "s1"))
    a = made("a", Endpoints(None, {"s1": s1.address}), credentials(keys, "a"))
    return s1, a


def test_ipc_both_ways_and_the_file_goes(made, runtime):
    s1 = made("s1", Endpoints(ipc_address(runtime, "s1"), {}))
    a = made("a", Endpoints(None, {"s1": ipc_address(runtime, "s1")}))
    assert a.can_reach("s1")
    assert not s1.can_reach("a")
    assert not s1.send("a", b"too early")
    assert s1.unsent == 1
    a.send("s1", b"one")
    assert receive(s1, a) == [("a", b"one")]
    assert s1.send("a", b"two")
    assert receive(a, s1) == [("s1", b"two")]
    assert (runtime / "s1.frames").exists()
    s1.close()
    assert not (runtime / "s1.frames").exists()


def test_tcp_with_keys_both_ways(made, keys):
    s1, a = tcp_pair(made, keys)
    a.send("s1", b"one")
    assert receive(s1, a) == [("a", b"one")]
    assert s1.send("a", b"two")
    assert receive(a, s1) == [("s1", b"two")]
    assert s1.handshakes_refused == 0


def test_an_unknown_key_is_refused_and_known_ones_go_on(made, keys):
    s1, a = tcp_pair(made, keys)
    stranger = made("a", Endpoints(None, {"s1": s1.address}), credentials(keys, "stranger"))
    stranger.send("s1", b"let me in")
    a.send("s1", b"one")
    assert receive(s1, a, stranger) == [("a", b"one")]
    deadline = time.monotonic() + 10
    while not s1.handshakes_refused:
        assert time.monotonic() < deadline
        assert s1.drain()[0] == []
    assert s1.send("a", b"secret")
    assert receive(a, s1, stranger) == [("s1", b"secret")]
    assert stranger.drain()[0] == []


def test_a_node_cannot_speak_as_another_or_get_what_is_for_it(made, keys):
    s1, a = tcp_pair(made, keys)
    a.send("s1", b"one")
    receive(s1, a)
    context = zmq.Context()
    thief = context.socket(zmq.DEALER)
    try:
        thief.setsockopt(zmq.LINGER, 0)
        thief.setsockopt(zmq.IDENTITY, b"a")  # claims the name of a, with the key of b
        thief.setsockopt(zmq.CURVE_SERVERKEY, keys["s1"].public.encode())
        thief.setsockopt(zmq.CURVE_PUBLICKEY, keys["b"].public.encode())
        thief.setsockopt(zmq.CURVE_SECRETKEY, keys["b"].secret.encode())
        thief.connect(s1.address)
        thief.send(b"I am a")
        assert receive(s1, a) == [("b", b"I am a")]
        s1.send("a", b"for a")
        assert receive(a, s1) == [("s1", b"for a")]
        assert not thief.poll(50)
    finally:
        thief.close(0)
        context.term()


def test_a_wrong_server_key_gets_no_connection(made, keys):
    s1 = made("s1", Endpoints("tcp://127.0.0.1:*", {}), credentials(keys, "s1"))
    peers = {"s1": keys["stranger"].public}
    a = made("a", Endpoints(None, {"s1": s1.address}), Credentials(keys["a"], peers))
    a.send("s1", b"one")
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        assert s1.drain()[0] == []


def test_a_plain_peer_gets_nothing(made, keys):
    s1, a = tcp_pair(made, keys)
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    try:
        plain.setsockopt(zmq.LINGER, 0)
        plain.connect(s1.address)
        plain.send(b"no keys")
        a.send("s1", b"one")
        assert receive(s1, a) == [("a", b"one")]
    finally:
        plain.close(0)
        context.term()


def test_messages_of_a_wrong_shape_or_too_long_are_dropped(made, runtime):
    s1 = made("s1", Endpoints(ipc_address(runtime, "s1"), {}))
    context = zmq.Context()
    rough = context.socket(zmq.DEALER)
    try:
        rough.setsockopt(zmq.LINGER, 0)
        rough.setsockopt(zmq.IDENTITY, b"a")
        rough.connect(ipc_address(runtime, "s1"))
        rough.send_multipart([b"one", b"part", b"too many"])
        rough.send(b"fine")
        assert receive(s1) == [("a", b"fine")]
        assert s1.refused == 1
        rough.send(bytes(ENVELOPE_MAX + 1))  # zmq closes the connection and connects again
        rough.send(b"after")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not (found := s1.drain()[0]):
            pass
        assert found in ([], [("a", b"after")])
    finally:
        rough.close(0)
        context.term()


def test_tcp_without_keys_and_other_mistakes_are_told(runtime, keys):
    with pytest.raises(UsageError, match="tcp:// needs CURVE keys"):
        NodeChannels("a", Endpoints("tcp://127.0.0.1:*", {}))
    with pytest.raises(UsageError, match="begins with ipc:// or tcp://"):
        NodeChannels("a", Endpoints("udp://127.0.0.1:1", {}))
    with pytest.raises(UsageError, match="over tcp:// only"):
        NodeChannels("a", Endpoints(f"ipc://{runtime}/x", {}), credentials(keys, "a"))
    with pytest.raises(EnvironmentLacks, match="longer than 107 bytes"):
        ipc_address(runtime / ("x" * 100), "a")
    first = NodeChannels("a", Endpoints("tcp://127.0.0.1:*", {}), credentials(keys, "a"))
    try:
        with pytest.raises(EnvironmentLacks, match="cannot bind"):
            NodeChannels("b", Endpoints(first.address, {}), credentials(keys, "b"))
    finally:
        first.close()
