"""Applications that die at any moment: descriptors are released, peers are told, the agents live."""

import random

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.labs import wait_until
from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live

LIFE = """
import random
rng = random.Random({seed})
c = socket.create_connection(("client", {port}), timeout=20)
while True:
    c.sendall(b"z" * rng.randrange(1, 60_000))
    c.recv(rng.randrange(1, 60_000))
    if rng.random() < 0.05:
        d = socket.fromshare(c.share(os.getpid())); c.close(); c = d; c.settimeout(20)
"""


@pytest.mark.parametrize("seed", range(6))
def test_an_application_is_killed_at_a_random_moment(lab, puppets, seed):
    rng = random.Random(seed)
    peer, victim = puppets("client"), puppets("server")
    port = 9000 + seed
    peer.run(f"l = socket.create_server(('', {port}))")
    victim.start(LIFE.format(seed=seed, port=port))
    peer.run("c, _ = l.accept(); c.settimeout(20)")
    peer.start("while True: c.sendall(c.recv(65536) or exit())")
    with pytest.raises(AssertionError):
        victim.result(rng.uniform(0.02, 0.4))  # it would go on for ever
    victim.kill()
    with pytest.raises((PuppetError, EOFError)) as ended:
        peer.result()
    if ended.type is PuppetError:
        assert "ConnectionResetError" in ended.value.kinds
    wait_until(lambda: not lab.ask("server", "ps")["sockets"])
    wait_until(lambda: lab.ask("server", "statistics")["queue_pairs"] == 0)
    again = puppets("server")  # the host serves the next one
    fresh = puppets("client")
    fresh.run(f"l = socket.create_server(('', {port + 500}))")
    again.run(f"c = socket.create_connection(('client', {port + 500}), timeout=20); c.sendall(b'hello')")
    fresh.run("c, _ = l.accept(); c.settimeout(20)")
    assert fresh.run(read_exactly("5")) == b"hello"


@pytest.mark.parametrize(
    "code",
    [
        "l = socket.create_server(('', 9900))",
        "l = socket.create_server(('', 9900)); l.accept()",
        "c = socket.socket()",
        "c = socket.socket(); c.setblocking(False); c.connect_ex(('client', 9999))",
    ],
)
def test_killed_before_there_was_a_connection(lab, puppets, code):
    victim = puppets("server")
    victim.start(code)
    wait_until(lambda: lab.ask("server", "ps")["sockets"])
    victim.kill()
    wait_until(lambda: not lab.ask("server", "ps")["sockets"])


def test_a_listener_that_dies_resets_what_nobody_accepted(lab, puppets):
    listener, caller = puppets("server"), puppets("client")
    listener.run("l = socket.create_server(('', 9950))")
    caller.run("c = socket.create_connection(('server', 9950), timeout=20)")
    listener.kill()
    with pytest.raises(PuppetError) as reset:
        caller.run("c.recv(1)")
    assert "ConnectionResetError" in reset.value.kinds
    with pytest.raises(PuppetError) as refused:
        caller.run("socket.create_connection(('server', 9950), timeout=20)")
    assert "ConnectionRefusedError" in refused.value.kinds


def test_a_frozen_application_holds_nobody_up(pair, puppets):
    peer, source = pair
    other_peer, other = puppets("client"), puppets("server")
    other_peer.run("l = socket.create_server(('', 9960))")
    other.run("c = socket.create_connection(('client', 9960), timeout=20)")
    other_peer.run("c, _ = l.accept(); c.settimeout(20)")
    peer.run("c.setblocking(False)\ntry:\n    while True: c.send(b'f' * 65536)\nexcept BlockingIOError: pass")
    source.stop()
    for _ in range(20):
        other.run("c.sendall(b'g' * 20_000)")
        assert other_peer.run(read_exactly("20000")) == b"g" * 20_000
