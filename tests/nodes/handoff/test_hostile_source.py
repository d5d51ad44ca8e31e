"""A source that goes on using its old descriptor with bare system calls gets nothing and spoils nothing."""

import pytest

from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live

PEER = """
def send():
    data = b"".join(n.to_bytes(4, "big") for n in range(400_000))
    view = memoryview(data)
    while view:
        view = view[c.send(view[:50_000]):]
    c.shutdown(socket.SHUT_WR)
def receive():
    global heard
    parts = []
    while part := c.recv(65536):
        parts.append(part)
    heard = b"".join(parts)
threads = [threading.Thread(target=send), threading.Thread(target=receive)]
for thread in threads: thread.start()
"""
HOSTILE = """
fd = os.dup(c.fileno())          # the library cannot know of this one
os.set_blocking(fd, False)
stop, got, sent, errors = False, [], 0, set()
import random
def attack(seed):
    global sent
    rng = random.Random(seed)
    while not stop:
        try:
            part = os.read(fd, rng.randrange(1, 30_000))
            if part: got.append(part)
            else: errors.add("end of file")
        except OSError as error:
            errors.add(type(error).__name__)
        try:
            sent += os.write(fd, b"S" * rng.randrange(1, 3_000))
        except OSError as error:
            errors.add(type(error).__name__)
thread = threading.Thread(target=attack, args=(1,))
thread.start()
"""
TARGET = """
got = []
def receive():
    while part := c.recv(65536):
        got.append(part)
thread = threading.Thread(target=receive); thread.start()
for _ in range(200): c.sendall(b"T" * 1000)
"""


@pytest.mark.parametrize("mode", ["suspend", "local", "rehome"])
@pytest.mark.parametrize("attempt", range(3))
def test_stream_is_exact_at_the_target_and_at_the_peer(pair, puppets, mode, attempt):
    peer, source = pair
    target = puppets("server")
    peer.run(PEER)
    source.run(HOSTILE)
    source.run("time.sleep(0.01 * " + str(attempt) + ")")  # let it read and write for a while
    info = source.run(f"c.share({target.pid}, {mode!r})")
    target.run(f"c = socket.fromshare({info!r}); c.settimeout(20)")
    target.run(TARGET)
    target.run("thread.join(25); c.shutdown(socket.SHUT_WR)")
    by_target = target.run("b''.join(got)")
    source.run("stop = True; thread.join(10)")
    by_source, accepted = source.run("b''.join(got)"), source.run("sent")  # all that a system call ever gave or took
    assert by_source + by_target == b"".join(n.to_bytes(4, "big") for n in range(400_000))
    peer.run("for thread in threads: thread.join(25)")
    heard = peer.run("heard")
    assert heard == b"S" * accepted + b"T" * 200_000
    assert set(source.run("sorted(errors)")) <= {
        "BlockingIOError",
        "BrokenPipeError",
        "ConnectionResetError",
        "end of file",
    }


def test_requests_for_somebody_elses_descriptor_are_refused(pair, puppets):
    peer, source = pair
    other = puppets("server")
    s = source.run("c.descriptor")
    other.run("from provider.client.agent_connection import agent")
    for operation, members in {
        "WSPShutdown": "",
        "WSPCloseSocket": "",
        "WSPDuplicateSocket": f", pid={other.pid}",
        "reattach": "",
        "status": "",
        "WSPGetSockOpt": ", level=0xffff, name=0x1007",
    }.items():
        with pytest.raises(PuppetError) as refused:
            other.run(f"agent().call({operation!r}, s={s}{members})")
        assert refused.value.wsa == 10038, operation  # WSAENOTSOCK
    source.run("c.sendall(b'fine')")
    assert peer.run("c.recv(4)") == b"fine"


GARBAGE = """
import socket as plain
def say(packet):
    with plain.socket(plain.AF_UNIX, plain.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(os.environ["SANLOOM_AGENT"])
        sock.send(packet)
        return sock.recv(70_000)
"""


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        b"[]",
        b"{}",
        b"[" * 60_000,
        b'{"id": 1}',
        b'{"id": "x", "op": "WSPSocket"}',
        b'{"id": 1, "op": "no such"}',
        b'{"id": 1, "op": "WSPSocket", "af": "2"}',
        b'{"id": 1, "op": "WSPSocket", "info": "!"}',
        b'{"id": 1, "op": "WSPBind", "s": 99999999999999999999, "address": []}',
        b'{"id": 1, "op": "mark", "scenario": "san", "step": 99, "moment": "before"}',
        b'{"id": 1, "op": "attach", "version": 77}',
    ],
)
def test_garbage_to_the_agent_is_refused_and_the_agent_lives(pair, puppets, packet):
    peer, source = pair
    other = puppets("server")
    other.run(GARBAGE)
    answer = other.run(f"say({packet!r})")
    assert answer == b"" or b'"error"' in answer
    source.run("c.sendall(b'fine')")
    assert peer.run("c.recv(4)") == b"fine"
