"""A process pretends to be another: tickets of others, forged pids, a parent's descriptors. It gets WSAEINVAL, and no
ticket, socket or connection of anybody else changes.
"""

import base64

import pytest

from tests.nodes.handoff.conftest import read_exactly
from tests.support.labs import wait_until

pytestmark = pytest.mark.live
WSAEINVAL = 10022


def test_tickets_of_others_are_neither_guessed_nor_used_up(hostile, honest, agent):
    source, target, thief = hostile(), hostile(), hostile()
    source.run("sock = attached(); s, fd = new_socket(sock)")
    target.run("sock = attached()")
    thief.run("""
import base64, random
sock, heard, generator = attached(), {}, random.Random(1)
def attempt(data):
    number = wsa(ask(sock, "WSPSocket", info=base64.b64encode(bytes(data)).decode()))
    heard[number] = heard.get(number, 0) + 1
def attempts(good, count):
    attempt(good)
    for bit in range(count):
        altered = bytearray(good)
        altered[generator.randrange(len(good))] ^= 1 << bit % 8
        attempt(altered)
    for length in (0, 1, 115, 116, 117, 627, 629, 5000): attempt((good * 20)[:length])
    for number in range(count):
        attempt(good[:112] + number.to_bytes(4, "little") + generator.randbytes(512))
    return list(heard)
""")
    info = source.run(f"ask(sock, 'WSPDuplicateSocket', s=s, pid={target.pid}, mode='local')['result']['info']")
    assert thief.run(f"attempts(base64.b64decode({info!r}), 20)") == [WSAEINVAL]
    assert target.run(f"wsa(ask(sock, 'WSPSocket', info={info!r}))") == 0  # the right one, in its own time
    assert target.run(f"wsa(ask(sock, 'WSPSocket', info={info!r}))") == WSAEINVAL  # once
    thief.start(f"attempts(base64.b64decode({info!r}), 1000)")
    honest.goes_on()
    assert thief.result(60) == [WSAEINVAL]
    assert source.run("ask(sock, 'status', s=s)['result']['controller']") == target.pid


def test_forged_pids_in_shares(hostile, honest, agent):
    puppet, dead = hostile(), hostile()
    dead.kill()
    watched = agent.statistics()["watched"]
    puppet.start(f"""
sock = attached(); s, fd = new_socket(sock)
zombie = os.fork()
if not zombie: os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
pids = (0, -1, -os.getpid(), 2**31, 2**32 + os.getpid(), 2**64, {dead.pid}, zombie, 4_000_000)
heard = [wsa(ask(sock, "WSPDuplicateSocket", s=s, pid=pid, mode="local")) for pid in pids]
os.waitpid(zombie, 0)
heard + [ask(sock, "status", s=s)["result"]["control"]]""")
    honest.goes_on()
    assert puppet.result() == [WSAEINVAL] * 9 + ["yours"]
    assert agent.statistics()["watched"] == watched + 1  # the hostile process itself


def test_shares_with_every_process_there_is(hostile, honest, agent):
    """Processes that never asked for it: they are told nothing, the agent forgets them, the sockets come back."""
    puppet = hostile()
    puppet.start("""
sock = attached(); heard = []
children = []
for _ in range(60):
    child = os.fork()
    if not child: time.sleep(1000)
    children.append(child)
for child in children:
    s, fd = new_socket(sock)
    os.close(fd)
    heard.append(wsa(ask(sock, "WSPDuplicateSocket", s=s, pid=child, mode="local")))
sorted(set(heard))""")
    honest.goes_on()
    assert puppet.result() == [0]
    wait_until(lambda: agent.statistics()["watched"] <= 3, 30, agent.statistics)  # two honest ones, this one
    puppet.run("import signal\nfor child in children: os.kill(child, signal.SIGKILL); os.waitpid(child, 0)")


def test_a_forked_child_on_its_parents_connections(hostile, honest, agent):
    """It is not the parent: its packets are dropped, and the parent's own are answered as before."""
    puppet = hostile()
    assert puppet.run("""
sock = attached(); s, fd = new_socket(sock)
child = os.fork()
if not child:
    for op in ("WSPCloseSocket", "status", "WSPSocket", "attach"):
        sock.send(encoded({"op": op, "s": s, "af": 2, "type": 1, "version": 1, "id": 666}))
    os._exit(0)
os.waitpid(child, 0)
reply = ask(sock, "status", s=s)
[reply["id"], reply["result"]["control"]]""") == [1, "yours"]


def test_a_childs_connection_in_the_name_of_a_dead_parent(hostile, honest, agent):
    """The parent ends; whoever holds its connection is hung up on, and nothing is made in the dead one's name."""
    puppet = hostile()
    assert (
        puppet.run("""
readable, writable = os.pipe()
parent = os.fork()
if not parent:
    sock = attached(); s, fd = new_socket(sock)
    if os.fork(): os._exit(0)
    hung_up, _ = answer(sock)
    reply = ask(sock, "attach", version=1)
    os.write(writable, repr([hung_up, reply]).encode())
    os._exit(0)
os.waitpid(parent, 0)
select.select([readable], [], [], 25)[0] and os.read(readable, 100)""")
        == b"[None, None]"
    )
    wait_until(lambda: agent.statistics()["sockets"] == 1, 30, agent.statistics)  # the honest one's
    honest.goes_on()


def test_the_parents_data_channel_ends_for_the_child_at_revocation(hostile, honest, agent):
    peer, source, target = hostile("client"), hostile(), hostile()
    peer.run("l = socket.create_server(('', 7998))")
    source.run("c = socket.create_connection(('client', 7998), timeout=20)")
    peer.run("c, _ = l.accept(); c.settimeout(20)")
    source.run("""
go, told = os.pipe(), os.pipe()
child = os.fork()
if not child:
    import socket as stdlib
    raw = stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM, fileno=os.dup(c.fileno()))
    os.read(go[0], 1)
    heard = []
    for use in (lambda: raw.send(b"stolen"), lambda: raw.recv(100)):
        try: heard.append(repr(use()))
        except OSError as error: heard.append(type(error).__name__)
    os.write(told[1], json.dumps(heard).encode())
    os._exit(0)
""")
    info = base64.b64encode(source.run(f"c.share({target.pid})")).decode()
    target.run(f"import base64; c = socket.fromshare(base64.b64decode({info!r})); c.settimeout(20)")
    heard = source.run("os.write(go[1], b'x'); json.loads(os.read(told[0], 1000))")
    assert heard[0] in ("BrokenPipeError", "ConnectionResetError")
    assert heard[1] in ("b''", "ConnectionResetError")
    peer.run("c.sendall(b'question')")
    assert target.run(read_exactly("8")) == b"question"
    target.run("c.sendall(b'answer')")
    assert peer.run(read_exactly("6")) == b"answer"
