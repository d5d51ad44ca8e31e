"""What a process can do to its data channels: everything that the kernel lets it. Its own stream may suffer, as it
would on any system; nobody else's does, and nothing of it stays in the agent.
"""

import base64

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.labs import wait_until

pytestmark = pytest.mark.live
_RAW = """
import socket as stdlib, random
def raw(sock): return stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM, fileno=os.dup(sock.fileno()))
"""

DEEDS = (
    "r.shutdown(stdlib.SHUT_RDWR)",
    "r.shutdown(stdlib.SHUT_RD)",
    "r.shutdown(stdlib.SHUT_WR); r.shutdown(stdlib.SHUT_RD)",
    "r.send(b'x', stdlib.MSG_OOB)",
    "for _ in range(2000): r.send(b'x', stdlib.MSG_OOB | stdlib.MSG_DONTWAIT)",
    "r.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 1); r.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, 1)",
    "stdlib.send_fds(r, [b'fds'], [0, 1, 2])",
    "stdlib.send_fds(r, [b'itself'], [r.fileno()])",
    "r.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVLOWAT, 1 << 30); r.setsockopt(stdlib.SOL_SOCKET, 42, 5)",
    "a = connect(); ask(a, 'detach', s=c.descriptor); ask(a, 'detach', s=c.descriptor)",
    "ask(connect(), 'detach', s=c.descriptor); r.close(); os.close(c.fileno())",
    "ask(connect(), 'WSPCloseSocket', s=c.descriptor); r.send(b'x' * 1000, stdlib.MSG_DONTWAIT)",
)
"""With a raw socket ``r`` for the channel of the socket ``c``."""


@pytest.fixture
def two(hostile):
    """(peer, puppet), connected by ``c``; the puppet is on the attacked host."""
    peer, puppet = hostile("client"), hostile()
    peer.run("l = socket.create_server(('', 7994), backlog=600)")
    puppet.run(_RAW + "c = socket.create_connection(('client', 7994), timeout=20)")
    peer.run("c, _ = l.accept(); c.settimeout(20)")
    return peer, puppet


def test_writing_and_reading_after_revocation(two, hostile, honest):
    peer, puppet = two
    target = hostile()
    peer.run("c.sendall(b'first,')")
    puppet.run("old = raw(c); old.setblocking(False); select.select([old], [], [], 20)")
    info = base64.b64encode(puppet.run(f"c.share({target.pid})")).decode()
    target.run(f"import base64; c = socket.fromshare(base64.b64decode({info!r})); c.settimeout(20)")
    heard = puppet.run("""
heard = set()
for _ in range(1000):
    for use in (lambda: old.send(b"stolen"), lambda: old.recv(100), lambda: old.send(b"x", stdlib.MSG_OOB)):
        try: heard.add(repr(use()))
        except OSError as error: heard.add(type(error).__name__)
sorted(heard)""")
    assert set(heard) <= {"BrokenPipeError", "ConnectionResetError", "b''"}
    peer.run("c.sendall(b'second')")
    assert target.run(read_exactly("12")) == b"first,second"
    target.run("c.sendall(b'mine')")
    assert peer.run(read_exactly("4")) == b"mine"
    honest.goes_on()


def test_never_reading_while_the_peer_sends(two, honest, agent):
    peer, puppet = two
    memory = agent.memory()
    peer.run("c.setblocking(False)")
    peer.start("""
sent = 0
while select.select([], [c], [], 2)[1]:
    try: sent += c.send(b"x" * 65536)
    except BlockingIOError: pass
sent""")
    honest.goes_on()
    assert peer.result() < 8 << 20  # what windows and buffers hold, then it has to wait
    assert agent.memory() < memory + (16 << 20)
    puppet.stop()
    honest.goes_on()


@pytest.mark.parametrize("end", ["killed", "reset by the peer", "shared"])
def test_odd_deeds_on_channels(hostile, honest, agent, end):
    """Every deed in a process of its own, and then every end."""
    peer, target = hostile("client"), hostile()
    peer.run("""
l, kept = socket.create_server(("", 7993), backlog=100), []
def take():
    while True: kept.append(l.accept())
threading.Thread(target=take, daemon=True).start()""")
    crowd = [hostile() for _ in DEEDS]
    for puppet, deed in zip(crowd, DEEDS, strict=True):
        puppet.run(_RAW + "c = socket.create_connection(('client', 7993), timeout=20); r = raw(c)")
        puppet.start(f"try:\n    {deed}\nexcept OSError: pass")
    for puppet in crowd:
        puppet.result()
    honest.goes_on(5)
    if end == "reset by the peer":
        peer.kill()
    elif end == "shared":
        for puppet in crowd:
            puppet.run(f"try: c.share({target.pid}, 'local')\nexcept (OSError, ValueError): pass")
    honest.goes_on(5)
    for puppet in crowd:
        puppet.kill()
    wait_until(lambda: agent.statistics()["channels"] == 1, 20, agent.statistics)


def test_a_grown_send_buffer_ends_its_own_connection_only(two, hostile, honest, agent):
    """The peer reads nothing, the process writes 8 MiB into its channel and shares: more than an honest one could."""
    _peer, puppet = two
    target = hostile()
    puppet.run("""
r = raw(c); r.setblocking(False)
r.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 64 << 20)
written = 0
try:
    while True: written += r.send(b"x" * 65536)
except BlockingIOError: pass""")
    memory = agent.memory()
    outcome = puppet.run(f"""
try: c.share({target.pid}, "local"); outcome = 0
except OSError as error: outcome = error.winerror
[outcome, r.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF) > 4 << 20]""")
    if not outcome[1]:
        pytest.skip("this machine allows no send buffers of more than 4 MiB")
    assert outcome[0] == 10050
    assert agent.memory() < memory + (16 << 20)
    honest.goes_on()


def test_a_channel_in_the_hands_of_another_process(two, hostile, honest, agent):
    """Passed on by SCM_RIGHTS without a ticket: it ends with its owner, who is killed while the other one writes."""
    peer, puppet = two
    peer.run("c.setblocking(False)")
    puppet.run("""
child = os.fork()
if not child:
    r = stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM, fileno=os.dup(c.fileno()))
    try:
        while True: r.send(b"x" * 1000)
    except OSError: os._exit(0)
""")
    honest.goes_on()
    puppet.kill()
    wait_until(lambda: agent.statistics()["channels"] == 1, 20, agent.statistics)
    honest.goes_on()


@pytest.mark.parametrize("seed", range(3))
def test_five_hundred_channels_closed_in_odd_moments(two, honest, agent, seed):
    peer, puppet = two
    peer.run("""
def take():
    while True:
        d, _ = l.accept(); kept.append(d)
kept = []; threading.Thread(target=take, daemon=True).start()""")
    puppet.start(f"""
generator = random.Random({seed})
a = attached(); many = []
for _ in range(200):
    d = socket.socket(); d.setblocking(False)
    d.connect_ex(("client", 7994)); many.append(d)
    one = generator.choice(many)
    deed = generator.randrange(7)
    try:
        if deed == 0: os.close(one.detach())
        elif deed == 1: one.close()
        elif deed == 2: ask(a, "WSPCloseSocket", s=one.descriptor)
        elif deed == 3: raw(one).shutdown(stdlib.SHUT_RDWR)
        elif deed == 4: one.send(b"x" * 10_000)
        elif deed == 5: one.shutdown(socket.SHUT_WR)
        else: one.recv(10)
    except (OSError, ValueError): pass
    if one.fileno() == -1: many.remove(one)
len(many)""")
    honest.goes_on()
    assert puppet.result(60) > 0
    puppet.kill()
    wait_until(lambda: agent.statistics()["descriptors"] == 1, 60, agent.statistics)
